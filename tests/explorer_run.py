"""A tiny finished run of two arms as an explorer, and an index of any size."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import yaml
from dataset_run import CATEGORY_TAGS, audio_row, write_run, write_shards
from PIL import Image

from conceptcaps import explorer, schemas
from conceptcaps import export as exports
from conceptcaps.io import read_rows, write_json, write_table

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ITEMS, COMPARED = 60, 20
MEASURED = {"value": 0.43212, "ci_low": 0.4, "ci_high": 0.5, "n": 1234, "what": "score (clap)"}
CLAIMS = [
    {"where": "Table 1", "claim": "A claim", "paper": 0.5, "differs": "Whole clips.", "needs": {},
     "protocol": {"status": "not run", "why": "one crop"}, "right": MEASURED, "unlike": {"a": "b"}},
    {"where": "Table 1", "claim": "Another", "paper": 23815, "differs": "Nothing.", "needs": {},
     "protocol": MEASURED | {"ci_low": None, "ci_high": None}, "right": MEASURED, "unlike": {}},
]  # fmt: skip
CAPTION = "There is no jazz here, a piano and a flute play."


def export(root: Path, **changes) -> Path:
    """Export a run of 60 clips, 20 of them in arm `base` too; `expected.json` says what it has."""
    root.mkdir(exist_ok=True)
    run = write_run(root, ITEMS)
    own = [path for path in run["captions"]]
    rows = [row | {"caption": CAPTION} for path in own for row in read_rows(path)]
    run["captions"] = write_shards(root / "captions/conceptcaps", rows, schemas.CAPTIONS)
    exports.export_table(**run, spec=exports.Spec(validation=0.15, test=0.15, licence=None), seed=1)
    ids = [row["id"] for row in rows[:COMPARED]]
    audio = [audio_row(item, 100 + i) for i, item in enumerate(ids)]
    clap = [row for path in run["clap"] for row in read_rows(path)][:COMPARED]
    base = explorer.Arm(
        write_shards(
            root / "captions/base",
            [row | {"caption": "A piece of music."} for row in rows[:COMPARED]],
            schemas.CAPTIONS,
        ),
        write_shards(root / "audio/base", audio, schemas.AUDIO),
        write_shards(root / "scores/base/clap", clap, schemas.CLAP),
    )
    (root / "taxonomy.yaml").write_text(yaml.safe_dump(CATEGORY_TAGS))
    picture = io.BytesIO()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(picture, "PNG")
    (root / "figures/tags.png").write_bytes(picture.getvalue())
    write_json(root / "scorecard.json", {"run_id": "r", "claims": CLAIMS})
    halves = [root / "tags-0.parquet", root / "tags-1.parquet"]
    for k, path in enumerate(halves):
        write_table(path, read_rows(run["tags"])[k::2], schemas.TAGS)
    arms = {"conceptcaps": explorer.Arm(run["captions"], run["audio"], run["clap"]), "base": base}
    given = dict(
        dataset=run["output"],
        tags=halves,  # as sampled sets and MusicCaps' own are
        arms=arms,
        taxonomy=root / "taxonomy.yaml",
        scorecard=root / "scorecard.json",
        figures=[root / "figures/tags.png"],
        captions=[root / "figures/tags.rst"],
        config=run["config"],
        page=sorted((ROOT / "resources/explorer").iterdir()),
        name="Tiny",
        clips_per_arm=None,
        output=root / "explorer",
    )
    explorer.export_explorer(**(given | changes))
    dataset = read_rows(run["output"])
    split = {row["id"]: row["split"] for row in dataset}
    tags = {row["id"]: row["aspect_list"] for row in read_rows(run["tags"])}
    expected = [
        {"id": row["id"], "arm": arm, "score": row["clap_score"]}
        | {"split": split[row["id"]], "tags": tags[row["id"]]}
        | {"verified": row.get("verified")}
        for arm, scored in (("conceptcaps", dataset), ("base", clap))
        for row in scored
    ]
    write_json(root / "explorer/expected.json", expected)
    return root / "explorer"


def synthetic_index(folder: Path, n: int) -> str:
    """Return data/run.js of `n` clips of 200 tags, ids of 8 characters, one arm."""
    text = (folder / "data/run.js").read_text()
    run = json.loads(text.removeprefix("window.conceptcaps=").rstrip(";\n"))
    rng = np.random.default_rng(0)
    run["categories"] = {
        category: [f"{category} {k}" for k in range(50)] for category in run["categories"]
    }
    run["ids"] = [f"{k:08x}" for k in range(n)]
    run["tags"] = [sorted(map(int, rng.choice(200, size=7, replace=False))) for _ in range(n)]
    run["split"] = rng.integers(0, 3, n).tolist()
    run["verified"] = [None] * n
    run["scores"] = {"conceptcaps": rng.integers(-100, 900, n).tolist()}
    return f"window.conceptcaps={json.dumps(run, separators=(',', ':'))};\n"
