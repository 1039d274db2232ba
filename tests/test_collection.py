"""All arms in one format: human captions, by rule, from a file, by LP-MusicCaps' prompts."""

import csv

import pytest
import tiny_models

from conceptcaps import arms, captions, chatmodel, collection, decoding, gate, io, schemas
from conceptcaps.errors import InputError
from conceptcaps.mentions import Mentions

PROMPTS = "resources/prompts/lp_musiccaps.yaml"
COLUMNS = tuple(arms.COLUMN.values())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_models.write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet")


def collect(folder, pairs, arm, *, shard=0, items=8, brought=None, min_yield=1.0):
    files = {name: folder / f"{arm}.{name}" for name in ("output", "ledger", "drafts")}
    known = dict(pairs=pairs, arm=arm, brought=brought)
    collection.collect_shard(
        **known, **files, shard=shard, shard_items=5, items=items, min_yield=min_yield
    )
    collection.collect_heldout(**known, items=10, output=folder / f"{arm}.heldout")
    tables = {name: io.read_rows(path) for name, path in files.items()}
    return tables | {"heldout": io.read_rows(folder / f"{arm}.heldout")}


def write_brought(path, clips, columns=COLUMNS):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ytid", *columns])
        writer.writerows([clip, *(f"{column}, of {clip}" for column in columns)] for clip in clips)
    return path


def test_human_captions_are_the_pairs_own(tmp_path, pairs):
    made = collect(tmp_path, pairs, "musiccaps", shard=1)
    rows = io.read_rows(pairs)[5:8]
    assert [r["caption"] for r in made["output"]] == [r["caption"] for r in rows]
    assert {r["model"] for r in made["output"]} == {"human"}
    assert [r["id"] for r in made["ledger"]] == [r["id"] for r in rows]
    test = {r["id"]: r["caption"] for r in io.read_rows(pairs) if r["split"] == "test"}
    assert {r["id"]: r["caption"] for r in made["heldout"]} == test


@pytest.mark.parametrize("arm", ["tag_concat", "template"])
def test_rules_say_all_tags_and_nothing_else(tmp_path, pairs, arm):
    made = collect(tmp_path, pairs, arm)
    opening = {"tag_concat": "", "template": "the music is characterized by "}[arm]
    expected = [opening + ", ".join(row["aspect_list"]) for row in io.read_rows(pairs)[:5]]
    assert [row["caption"] for row in made["output"]] == expected
    assert [row["caption"] for row in made["drafts"]] == expected


def test_brought_captions_are_found_by_their_clip(tmp_path, pairs):
    clips = [row["ytid"] for row in io.read_rows(pairs)]
    brought = write_brought(tmp_path / "lp.csv", clips[:4])
    for arm, column in arms.COLUMN.items():
        made = collect(tmp_path, pairs, arm, brought=brought, min_yield=0.8)
        assert [r["caption"] for r in made["output"]] == [f"{column}, of {c}" for c in clips[:4]]
        assert [row["status"] for row in made["ledger"]] == ["ok"] * 4 + ["missing"]
        assert [row["caption"] for row in made["heldout"]] == [""] * 4  # for the metrics: no text
    with pytest.raises(InputError, match=r"1 of 5 items were lost.*no caption of its clip"):
        collect(tmp_path, pairs, arm, brought=brought)


def test_a_file_of_captions_is_checked(tmp_path, pairs):
    arm = "lp_musiccaps_summary"
    short = write_brought(tmp_path / "short.csv", ["clip000"], ["caption_sumary"])
    with pytest.raises(InputError, match=r"no column 'caption_summary'. Did you mean 'caption_sum"):
        collect(tmp_path, pairs, arm, brought=short)
    with pytest.raises(InputError, match="cannot be read as CSV"):
        collect(tmp_path, pairs, arm, brought=tmp_path / "nowhere.csv")


def test_more_items_than_pairs_say_which_setting_to_lower(tmp_path, pairs):
    with pytest.raises(InputError, match=r"arms\.compared_items: lower that"):
        collect(tmp_path, pairs, "musiccaps", shard=4, items=25)


@pytest.mark.parametrize("arm", [*arms.COLUMN, "keyword_to_caption"])
def test_every_instruction_asks_in_its_own_words(arm):
    prompts = chatmodel.read_prompts(PROMPTS, arm)
    asked = chatmodel.messages(prompts, ["jazz", "piano"])[1]["content"]
    assert "jazz, piano" in asked and "{" not in asked
    others = [chatmodel.read_prompts(PROMPTS, other) for other in arms.COLUMN if other != arm]
    assert prompts["tagged"] not in {other["tagged"] for other in others}
    with pytest.raises(InputError, match="no prompts of the arm"):
        chatmodel.read_prompts(tiny_models.PROMPTS, arm)


def test_an_instruction_is_followed_by_the_same_model(tmp_path, pairs):
    arm = "lp_musiccaps_writing"
    refused_if_empty = gate.Spec(1, 1, None, None, None, None, None, False, None)
    captions.generate_shard(
        tags=pairs,
        shard=0,
        shard_items=2,
        items=2,
        arm=arm,
        adapter=None,
        base=tiny_models.base(prompts=PROMPTS),
        spec=decoding.Spec("transformers", 2, 12, 0.7, 0.9, 0.0),
        gate=gate.Gate(refused_if_empty, mentions=Mentions(["jazz"])),
        seed=1,
        output=tmp_path / "captions",
        ledger=tmp_path / "ledger",
        drafts=tmp_path / "drafts",
    )
    drafts = io.read_rows(tmp_path / "drafts")
    assert [row["id"] for row in drafts] == ["pair000", "pair001"]
    assert io.read_table(tmp_path / "captions").schema.names == schemas.CAPTIONS.names


def test_all_arms_are_generated_or_collected():
    for brought in (False, True):
        parts = arms.generated(brought=brought), arms.collected(brought=brought)
        assert sorted(parts[0] + parts[1]) == sorted(arms.SOURCE)
    with pytest.raises(
        InputError, match=r"arm 'lp_musiccaps_writin'.*Did you mean 'lp_musiccaps_w"
    ):
        captions._Writer([], "lp_musiccaps_writin", None, tiny_models.base(), None, None, 1, "x")
