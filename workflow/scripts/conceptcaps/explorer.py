"""A static page to browse, hear and compare a run's clips, from disk or from any web server.

Browsers let a page from disk load scripts, pictures and sound, but not read files: so data are
scripts, and spectrograms are drawn here. `data/run.js` holds what the filters need of every clip;
captions (`data/clips/`) and sound (`audio/`) are loaded when they are shown.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image

from conceptcaps import spectrogram
from conceptcaps.card import caption as figure_caption
from conceptcaps.categories import PRESENT_PROB_OF, TAGS_OF
from conceptcaps.clips import decode
from conceptcaps.errors import InputError
from conceptcaps.io import atomic, iter_batches, read_json, read_rows
from conceptcaps.mentions import Found, Mentions
from conceptcaps.runlog import progress
from conceptcaps.taxonomy import load_aliases, load_taxonomy, normalise, vocabulary

OWN_ARM = "conceptcaps"  # the arm that the dataset is made from
SPLITS = ("train", "validation", "test")
CHUNK = 64  # tag sets in a file of captions
NAMED, EXTRA, DENIED = range(3)  # what a marked part of a caption does to a tag
_SPECTROGRAM = {"width": 320, "height": 96}
_FIGURE_WIDTH = 1600  # pixels at most
_ID_CHARACTERS = 8  # of an id at least, in the index


@dataclass(frozen=True)
class Arm:
    """The tables of one arm, each a list of files, one per shard."""

    captions: list
    audio: list
    clap: list


def export_explorer(
    *,
    dataset,
    tags,
    arms: dict[str, Arm],
    taxonomy,
    scorecard,
    figures,
    captions,
    config,
    page,
    name: str,
    clips_per_arm: int | None,
    output,
) -> None:
    """Write the folder; open its index.html.

    Args:
        dataset: the dataset table: clips, splits and audit of arm `conceptcaps`.
        tags: the tables of tag sets that the other arms describe: sampled ones, MusicCaps' own.
        arms: tables of the compared arms; of `conceptcaps` only the audio is read.
        taxonomy: the taxonomy file, whose tags are found in the captions.
        scorecard: scorecard.json of the run.
        figures: PNG files.
        captions: the report's captions of the figures, in their order.
        config: the run's config.yaml, which the captions quote.
        page: the page's own files (HTML, CSS, JavaScript, icon).
        name: the dataset's name.
        clips_per_arm: the first so many clips of each arm; None: all.
        output: the folder; it appears when it is complete.

    Raises:
        InputError: a clip of the dataset has no audio, or one cannot be decoded.
    """
    listed = load_taxonomy(taxonomy)
    finder = Mentions(vocabulary(listed), load_aliases(taxonomy))
    index = {tag: i for i, tag in enumerate(vocabulary(listed))}
    clips = _dataset_clips(dataset, clips_per_arm)
    columns = ["id", *TAGS_OF.values()]
    sets = {row["id"]: row for table in tags for row in read_rows(table, columns)}
    for arm, tables in arms.items():
        if arm != OWN_ARM:
            _add_arm(clips, arm, tables, sets, clips_per_arm)
    items, card = list(clips), read_json(scorecard)
    with atomic(output) as folder:
        (folder / "data/clips").mkdir(parents=True)
        for path in map(Path, page):
            shutil.copyfile(path, folder / path.name)
        for arm, tables in arms.items():
            _write_audio(folder / "audio" / arm, arm, tables.audio, clips)
        for k, start in enumerate(range(0, len(items), CHUNK)):
            chunk = [_details(clips[item], item, finder, index) for item in items[start:][:CHUNK]]
            script = folder / f"data/clips/{k:05d}.js"
            _write_script(script, f"conceptcaps.receive({k},{{}});", chunk)
        run = {
            "name": name,
            "run_id": card["run_id"],
            "categories": listed,
            "splits": SPLITS,
            "chunk": CHUNK,
            "ids": shortened(items),
            "tags": [[index[tag] for tag in clips[item]["tags"] if tag in index] for item in items],
            "split": [SPLITS.index(s) if (s := clips[item]["split"]) else -1 for item in items],
            "verified": [clips[item]["verified"] for item in items],
            "scores": {
                arm: [_thousandths(clips[item]["arms"].get(arm)) for item in items] for arm in arms
            },
            "claims": card["claims"],
            "figures": _write_figures(folder / "figures", figures, captions, config),
        }
        _write_script(folder / "data/run.js", "window.conceptcaps={};", run)
    print(f"{len(items)} tag sets, {', '.join(arms)}")


def _dataset_clips(dataset, limit: int | None) -> dict[str, dict]:
    """Return {id: {"tags", "split", "verified", "heard", "arms": {arm: clip}}} of the dataset."""
    columns = ["id", "caption", *TAGS_OF.values(), "split", "clap_score", "verified"]
    return {
        row["id"]: {
            "tags": _tags(row),
            "split": row["split"],
            "verified": row["verified"],
            "heard": [p for c in PRESENT_PROB_OF.values() for p in row[c] or []],
            "arms": {OWN_ARM: {"caption": row["caption"], "score": row["clap_score"]}},
        }
        for row in read_rows(dataset, [*columns, *PRESENT_PROB_OF.values()])[:limit]
    }


def _tags(row: dict) -> list[str]:
    return [tag for column in TAGS_OF.values() for tag in row[column]]


def _add_arm(clips, arm: str, tables: Arm, sets: dict, limit: int | None) -> None:
    """Add an arm's clips: those with a caption, audio and a score, in the order of the captions."""
    scores = _column(tables.clap, "clap_score")
    played = _column(tables.audio, "duration_s")
    texts = _column(tables.captions, "caption")
    whole = [item for item in texts if item in scores and item in played and item in sets]
    for item in whole[:limit]:
        new = {"tags": _tags(sets[item]), "split": None, "verified": None, "heard": [], "arms": {}}
        entry = clips.setdefault(item, new)
        entry["arms"][arm] = {"caption": texts[item], "score": scores[item]}


def _column(paths, column: str) -> dict:
    return {row["id"]: row[column] for path in paths for row in read_rows(path, ["id", column])}


def _write_audio(folder: Path, arm: str, shards, clips: dict) -> None:
    """Write FLAC and spectrogram of every clip that is shown; note where, and how long it is."""
    for shard in progress(shards, what=f"audio of {arm}"):
        place = folder / Path(shard).stem
        place.mkdir(parents=True)
        for batch in iter_batches(shard, 8, ["id", "audio", "duration_s"]):
            for row in batch.to_pylist():
                clip = clips.get(row["id"], {"arms": {}})["arms"].get(arm)
                if clip is None:
                    continue
                data = row["audio"]["bytes"]
                try:
                    wave, rate = decode(data)
                except InputError as error:
                    raise InputError(f"{shard}: clip {row['id']} {error}") from error
                path = place / f"{row['id']}.flac"
                path.write_bytes(data)
                path.with_suffix(".webp").write_bytes(spectrogram.draw(wave, rate, **_SPECTROGRAM))
                clip |= {"at": f"{arm}/{place.name}", "duration_s": row["duration_s"], "hz": rate}
    lost = [item for item, entry in clips.items() if "at" not in entry["arms"].get(arm, {"at": 0})]
    if lost:
        raise InputError(
            f"{len(lost)} clips of arm {arm} are in none of its audio tables (first: {lost[0]}). "
            "The tables come from different runs: make the dataset again."
        )


def _details(entry: dict, item: str, finder: Mentions, index: dict[str, int]) -> dict:
    """Return what is shown of a tag set when it is on the screen; see `explorer.js`."""
    arms = {}
    for arm, clip in entry["arms"].items():
        text = " ".join(clip["caption"].split())
        said = finder.find(text)
        marks = mark(text, entry["tags"], finder, said)
        arms[arm] = {
            "caption": text,
            "marks": [[start, end, kind, index[tag]] for start, end, kind, tag in marks],
            "named": [index[tag] for tag in entry["tags"] if tag in said.named],
            "denied": [index[tag] for tag in entry["tags"] if tag in said.denied],
            "extra": sorted(index[tag] for tag in said.asserted - set(entry["tags"])),
            "at": clip["at"],
            "s": round(clip["duration_s"], 2),
            "hz": clip["hz"],
        }
    found = {"id": item, "arms": arms}
    if any(p is not None for p in entry["heard"]):
        heard = zip(entry["tags"], entry["heard"], strict=True)
        found["heard"] = {index[tag]: round(p, 3) for tag, p in heard if p is not None}
    return found


def mark(
    text: str, tags: list[str], finder: Mentions, said: Found
) -> list[tuple[int, int, int, str]]:
    """Return the parts of a caption that speak of tags, as (start, end, kind, tag), in order.

    Kinds: `NAMED`, one of `tags`; `EXTRA`, another tag of the taxonomy, asserted; `DENIED`, one of
    `tags`, of which the text says that it is not there. Parts do not overlap: what is named stands
    above what is extra, longer tags above shorter ones. Offsets count the UTF-16 units of browsers.

    Args:
        text: a caption with single blanks.
        tags: the tags that it was asked for.
        finder: the taxonomy's tags.
        said: what `finder` finds in the text.
    """
    lowered = "".join(low if len(low := c.lower()) == 1 else c for c in text)
    if normalise(lowered) != lowered:  # a sign that lower() does not keep in its place
        return []
    named, denied = finder.spans(lowered)
    painted: list[tuple[int, str] | None] = [None] * len(text)
    layers = (
        (DENIED, [span for span in denied if span[2] in tags]),
        (EXTRA, [span for span in named if span[2] in said.asserted and span[2] not in tags]),
        (NAMED, [span for span in named if span[2] in tags]),
    )
    for kind, spans in layers:
        for start, end, tag in sorted(spans, key=lambda span: span[1] - span[0]):
            painted[start:end] = [(kind, tag)] * (end - start)
    units = [0]
    for c in text:
        units.append(units[-1] + (2 if ord(c) > 0xFFFF else 1))
    marks, start = [], 0
    for end in range(1, len(text) + 1):
        if end == len(text) or painted[end] != painted[start]:
            if painted[start]:
                marks.append((units[start], units[end], *painted[start]))
            start = end
    return marks


def shortened(ids: list[str]) -> list[str]:
    """Return beginnings of ids, all of one length, that tell them apart; at least 8 characters."""
    length = _ID_CHARACTERS
    while len({item[:length] for item in ids}) < len(ids):
        length += 1
    return [item[:length] for item in ids]


def _thousandths(clip: dict | None) -> int | None:
    return None if clip is None else round(1000 * clip["score"])


def _write_figures(folder: Path, figures, captions, config) -> list[dict]:
    """Write the figures as WebP without loss; return their names, sizes and captions."""
    folder.mkdir()
    settings = yaml.safe_load(Path(config).read_text())
    shown = []
    for source, template in zip(map(Path, figures), map(Path, captions), strict=True):
        with Image.open(source) as picture:
            picture.thumbnail((_FIGURE_WIDTH, 10 * _FIGURE_WIDTH))
            picture.convert("RGB").save(folder / f"{source.stem}.webp", "WEBP", lossless=True)
            size = picture.size
        text = figure_caption(template, settings)
        shown.append({"name": source.stem, "size": size, "caption": text.replace("`", "")})
    return shown


def _write_script(path: Path, call: str, value) -> None:
    """Write a script that hands over a value; `call` holds {} where it goes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    before, after = call.split("{}")
    path.write_text(f"{before}{text}{after}\n", encoding="utf-8")
