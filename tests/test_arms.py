"""Every arm's captions, made by the workflow on a few items: one format, each in its own words."""

import csv

import pytest
import yaml
from conftest import check_out

from conceptcaps import arms, io, schemas

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
ITEMS, HELDOUT = 6, 3
FEW = {
    "pathvars": {"results": "results/few"},
    "sources": {"musiccaps": {"rows": 500}},
    "vae": {"presets": {"mini": {"epochs": 3}}},
    "tags": {"items": ITEMS, "min_share": 0.0, "prior": "normal"},
    "shards": {"items": 4},
    "arms": {"compared_items": ITEMS},
    "captioner": {
        "finetune": {"epochs": 1, "max_pairs": 48, "max_validation_pairs": 16, "evaluations": 1},
        "generate": {"max_new_tokens": 60, "min_yield": 0.0},
        "gate": {"drafts": 1, "min_tag_recall": None, "max_unasked_tags": None},
    },
    "scores": {"text": {"heldout_items": HELDOUT}},
}


def read(run, arm):
    """Return an arm's captions, shard after shard, and those of held-out pairs."""
    folder = run.results / "captions" / arm
    for path in (*folder.glob("*.parquet"), *folder.glob("*/*.parquet")):
        schema = {"ledger": schemas.LEDGER, "drafts": schemas.DRAFTS}
        wanted = schema.get(path.parent.name, schemas.CAPTIONS)
        assert io.read_table(path).schema.equals(wanted), path
    shards = sorted(folder.glob("0*.parquet"))
    ledger = [row for s in shards for row in io.read_rows(folder / "ledger" / s.name)]
    assert len(ledger) == ITEMS
    captions = {row["id"]: row for s in shards for row in io.read_rows(s)}
    assert set(captions) == {row["id"] for row in ledger if row["status"] == "ok"}
    return captions, io.read_rows(folder / "heldout.parquet")


def test_every_arm_is_made_in_one_format(tmp_path):
    run = check_out(tmp_path / "run")
    run.results = run.directory / "results/few"
    overlay = tmp_path / "few.yaml"
    overlay.write_text(yaml.safe_dump(FEW))
    command = ["--workflow-profile", "mini", "--configfile", "overlays/mini.yaml", overlay]
    run.snakemake(*command, "--", "captions_all_arms")
    pairs = {row["id"]: row for row in io.read_rows(run.results / "distill/pairs.parquet")}
    made = {arm: read(run, arm) for arm in arms.SOURCE}
    heldout = {arm: [row["id"] for row in rows] for arm, (_, rows) in made.items()}
    assert len(set(map(tuple, heldout.values()))) == 1 and len(heldout["base"]) == HELDOUT
    for arm, (captions, _) in made.items():
        assert (arms.SOURCE[arm] == arms.PAIRS) == set(captions).issubset(pairs) or not captions
    assert all(row["caption"] == pairs[key]["caption"] for key, row in made["musiccaps"][0].items())
    asked = {arm: rows[0]["prompt"] for arm, (_, rows) in made.items() if rows[0]["prompt"]}
    assert len(set(asked.values())) == len(asked) - 1  # the tuned model is asked as the base is
    assert set(asked) == set(arms.generated(brought=False))

    brought = tmp_path / "lp.csv"
    with brought.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ytid", *arms.COLUMN.values()])
        texts = [f"{column} by others" for column in arms.COLUMN.values()]
        writer.writerows([row["ytid"], *texts] for row in pairs.values())
    files = {"arms": {"lp_musiccaps": str(brought)}}
    overlay.write_text(yaml.safe_dump(FEW | {"arms": FEW["arms"] | files["arms"]}))
    run.snakemake(*command, "--", "captions_all_arms")
    for arm, column in arms.COLUMN.items():
        captions, rows = read(run, arm)
        assert len(captions) == ITEMS
        assert {row["caption"] for row in [*captions.values(), *rows]} == {f"{column} by others"}
