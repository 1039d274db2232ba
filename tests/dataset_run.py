"""The tables of a tiny finished run, from which the dataset and its hub folder are exported."""

import io
import json

import numpy as np
import soundfile as sf

from conceptcaps import clips, schemas
from conceptcaps.categories import PRESENT_PROB_OF, TAGS_OF
from conceptcaps.io import write_json, write_table

RATE_HZ = 8000
SHARD_ITEMS = 24
CATEGORY_TAGS = {
    "genre": ["jazz", "rock", "techno"],
    "mood": ["calm", "tense"],
    "instrument": ["piano", "drums", "flute"],
    "tempo": ["slow tempo", "fast tempo"],
}
SETTINGS = {
    "seed": 7,
    "sources": {"musiccaps": {"kind": "hub", "path": "google/MusicCaps", "revision": "main"}},
    "distill": {"taxonomy": "resources/taxonomy.yaml"},
    "vae": {"preset": "paper"},
    "tags": {"items": 70},
    "captioner": {
        "base": {"model": "meta-llama/Llama-3.1-8B-Instruct", "revision": "a" * 40},
        "gate": {"drafts": 8, "min_tag_recall": 0.8, "max_unasked_tags": 2},
    },
    "audio": {"model": "facebook/musicgen-large", "revision": "main", "duration_s": 0.5},
    "scores": {"clap": {"model": "lukewys/laion_clap", "revision": "main"}},
}


def tag_row(item: str, number: int) -> dict:
    """Return a tag row; numbers below 36 give distinct sets, then they come again."""
    picked, rest = {}, number
    for category, tags in CATEGORY_TAGS.items():
        picked[TAGS_OF[category]] = [tags[rest % len(tags)]]
        rest //= len(tags)
    tags = sorted(tag for tags in picked.values() for tag in tags)
    return {"id": item, "aspect_list": tags, **picked, "given": [], "seed": number}


def tone(number: int) -> bytes:
    """Return a FLAC tone of 0.5 s plus a hundredth per `number`."""
    samples = RATE_HZ // 2 + number * RATE_HZ // 100
    wave = 0.5 * np.sin(2 * np.pi * (200 + 10 * number) * np.arange(samples) / RATE_HZ)
    buffer = io.BytesIO()
    sf.write(buffer, wave, RATE_HZ, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def audio_row(item: str, number: int) -> dict:
    data = tone(number)
    return {
        "id": item,
        "audio": {"bytes": data, "path": f"{item}.flac"},
        "sampling_rate": RATE_HZ,
        "duration_s": sf.info(io.BytesIO(data)).duration,
        "gain_db": 0.0,
        "seed": 2**63 + number,  # needs the unsigned type
        "sha256": clips.sha256(data),
        "model": "tone@1",
    }


def audit_row(tags: dict, number: int) -> dict:
    """Judge every tag but moods, which cannot be judged."""
    probs = {
        column: [None if category == "mood" else 0.25] * len(tags[TAGS_OF[category]])
        for category, column in PRESENT_PROB_OF.items()
    }
    return {"id": tags["id"], **probs, "verified": number % 2 == 0, "present_prob": []}


def write_shards(folder, rows, schema) -> list:
    paths = []
    for start in range(0, len(rows), SHARD_ITEMS):
        paths.append(folder / f"{start // SHARD_ITEMS:05d}.parquet")
        write_table(paths[-1], rows[start : start + SHARD_ITEMS], schema)
    return paths


def tcav_row(concept: str, *, effect: float, significant: bool, control: str = "") -> dict:
    row = dict.fromkeys(schemas.TCAV.names)
    row.update(layer="conv4", concept=concept, genre="jazz", effect=effect, tcav=0.5 + effect)
    row.update(null_mean=0.5, null_sd=float("nan"), significant=significant, control=control)
    return row | {"p_holm": 0.001 if significant else 1.0}


def write_evidence(root) -> list:
    metric = {"name": "score|mean", "value": 0.4321, "ci_low": 0.4, "ci_high": 0.45, "n": 60}
    metric |= {"direction": "higher", "recipe": {"model": "tiny"}}
    contents = {
        "vae/metrics": {"metrics": [metric], "note": 1},
        "captioner/metrics": {"metrics": [metric]},
        "scores/text": {"arms": {"base": [metric], "conceptcaps": [metric]}},
        "scores/fad": {"arms": {"base": [metric]}, "floor": [metric | {"value": float("nan")}]},
        "gtzan/metrics": {"metrics": [metric], "confusion": [[1, 0], [0, 1]]},
    }
    paths = [root / f"{stage}.json" for stage in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_json(path, content)
    paths.append(root / "tcav/scores.parquet")
    rows = [
        tcav_row("piano", effect=0.4, significant=True),
        tcav_row("flute", effect=0.01, significant=False),
        tcav_row("piano", effect=0.0, significant=False, control="shuffled"),
        tcav_row("planted", effect=0.5, significant=True, control="planted"),
    ]
    write_table(paths[-1], rows, schemas.TCAV)
    return paths


def write_run(root, n: int, *, lost=(), settings=SETTINGS) -> dict:
    """Write a run of n items below `root`; return the inputs of export_table but spec and seed."""
    tags = [tag_row(f"item{i:03d}", i) for i in range(n)]
    captions = [
        {
            "id": row["id"],
            "caption": f"A piece | number {i}.",
            "prompt": "",
            "n_tokens": 5,
            "seed": i,
        }
        | {"model": "writer@1"}
        for i, row in enumerate(tags)
    ]
    audio = [audio_row(row["id"], i) for i, row in enumerate(tags) if row["id"] not in lost]
    clap = [
        {"id": row["id"], "clap_score": 0.01 * i, "clap_min": 0.0, "clap_max": 1.0}
        | {"text_truncated": False, "audio_embedding": [1.0], "text_embedding": [1.0]}
        for i, row in enumerate(audio)
    ]
    write_table(root / "tags/tags.parquet", tags, schemas.TAGS)
    audited = [audit_row(row, i) for i, row in enumerate(tags) if row["id"] not in lost]
    write_table(root / "audit/clips.parquet", audited, schemas.AUDIT)
    write_json(root / "run/provenance.json", {"run_id": "0123456789abcdef"})
    (root / "run/config.yaml").write_text(json.dumps(settings))
    (root / "figures").mkdir()
    (root / "figures/tags.png").write_bytes(b"a picture")
    (root / "figures/tags.svg").write_text("<svg/>")
    quoting = """Of ``{{ "{:,}".format(snakemake.config["tags"]["items"] * 100) }}`` sets."""
    (root / "figures/tags.rst").write_text(quoting)
    return {
        "tags": root / "tags/tags.parquet",
        "captions": write_shards(root / "captions/conceptcaps", captions, schemas.CAPTIONS),
        "audio": write_shards(root / "audio/conceptcaps", audio, schemas.AUDIO),
        "clap": write_shards(root / "scores/conceptcaps/clap", clap, schemas.CLAP),
        "audit": [root / "audit/clips.parquet"],
        "config": root / "run/config.yaml",
        "provenance": root / "run/provenance.json",
        "evidence": write_evidence(root),
        "output": root / "conceptcaps.parquet",
    }
