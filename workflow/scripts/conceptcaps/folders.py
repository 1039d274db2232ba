"""Frechet and kernel distances of folders of audio, outside the workflow: a command.

    python -m conceptcaps.frechet REF_DIR GEN_DIR [GEN_DIR ...]

Its settings are those of config.yaml (scores.clap, scores.fad): its figures are the workflow's.
"""

import argparse
import sys
from contextlib import redirect_stdout
from dataclasses import fields
from pathlib import Path

import numpy as np
import yaml

from conceptcaps import audiofiles, clap, distances, frechet, io, reference, schemas
from conceptcaps.embeddings import clip_key, embedder_key, pool
from conceptcaps.errors import InputError

CONFIG = Path(__file__).resolve().parents[3] / "config.yaml"
LEAST_CLIPS = 4  # on either side; fewer cannot be split
_KEPT = "kept in the cache"
_SHOWN = 3  # files that were left out are printed up to this many; the JSON has all

HELP = """\
Frechet audio distance (FAD) and kernel audio distance (KAD) of folders of audio against a reference
folder. Any format that libsndfile reads (wav, au, flac, mp3, ogg, aiff), any rate, mono or stereo,
folders in folders included.
"""
AFTER = """\
what is printed
  FAD        Frechet distance; all sets at the same number of clips, since it falls with that number
  FAD inf    what is left of it for infinitely many clips; R2 says whether the line that it is read
             from is one (0.9 and more). It still holds the reference's own bias, so it is above 0
             for equal distributions: compare it with other sets' FAD inf, not with 0 or the floor
  KAD        unbiased squared MMD x 100; its expectation is 0 for equal distributions at any number
  floor      what N clips of the reference's own kind would have: parts of the reference against
             each other, scaled to the sizes of the rows with this N. Within its interval is no
             difference; compare FAD and KAD, and only with the floor of the same N
  controls   white noise, silence and the reference itself low-passed: how far the distance can
             move. Where they are fewer clips than the folders they have a floor of their own N,
             and their FAD is greater by that alone: hold each against its floor, KAD against all
  [a, b]     95 % interval, bootstrap over clips of both sides
A folder is called nearer than another only where their intervals do not overlap.

examples (from the repository's root, with PYTHONPATH=workflow/scripts)
  python -m conceptcaps.frechet reference/ generated/ --embedder logmel
  python -m conceptcaps.frechet reference/ a/ b/ --model path/to/clap --embedder transformers
  python -m conceptcaps.frechet reference/ generated/ --json fad.json --cache embeddings/

logmel needs no weights and hears spectra, not music: use it to try the command, or beside another.
Exit status: 0 measured, 2 wrong arguments or input.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        with redirect_stdout(sys.stderr):  # progress; the table alone goes to the output
            measured = measure_folders(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(measured))
    if options.json:
        io.write_json(options.json, measured)
        print(f"\nwritten: {options.json}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conceptcaps.frechet",
        description=HELP,
        epilog=AFTER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reference", metavar="REF_DIR", help="folder of reference clips")
    parser.add_argument("generated", metavar="GEN_DIR", nargs="+", help="folders to be measured")
    parser.add_argument("--embedder", choices=("laion_clap", "transformers", "logmel"))
    parser.add_argument("--model", help="hub id or local directory of the checkpoint")
    parser.add_argument("--revision", help="commit of a hub id; a local directory has none")
    parser.add_argument("--checkpoint", help="laion_clap: the file in the model's directory")
    parser.add_argument("--architecture", help="laion_clap: such as HTSAT-base")
    parser.add_argument("--window", type=float, metavar="S", help="seconds embedded at a time")
    parser.add_argument("--bootstraps", type=int, metavar="N", help="resamples of the clips")
    parser.add_argument("--controls", type=int, metavar="N", help="clips of each control")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--json", metavar="FILE", help="write everything, recipe included")
    parser.add_argument(
        "--cache", metavar="DIR", help="keep embeddings here; used again for the same content"
    )
    parser.add_argument(
        "--config", metavar="FILE", default=CONFIG, help="settings that are not given above"
    )
    return parser


def measure_folders(options: argparse.Namespace) -> dict:
    """Return what `distances.measure` does, with "embedder" and, of every folder, its "files".

    Raises:
        InputError: a folder holds too few clips (it says how many), or as `distances.measure`.
    """
    config = _config(options)
    spec = clap.Spec(**config["scores"]["clap"])
    embedder = clap.load_embedder(spec)
    names = _names([options.reference, *options.generated])
    base = next(iter(names))
    sets, files = {}, {}
    for name, folder in names.items():
        cache = Path(options.cache) / f"{name.replace('/', '_')}.parquet" if options.cache else None
        sets[name], files[name] = _embed(embedder, Path(folder), spec, cache)
    lengths = [audiofiles.duration_s(Path(options.reference) / name) for name in sets[base].ids]
    controls = reference.embed_controls(
        embedder,
        reference.folder_sources(options.reference),
        ids=sets[base].ids,
        controls=_of(reference.Controls, config["scores"]["fad"]),
        duration_s=float(np.median(lengths)),
        spec=spec,
        seed=config["seed"],
    )
    of_controls = distances.Clips(
        [clip.id for clip in controls],
        np.stack([pool(clip.windows, unit_norm=embedder.unit_norm) for clip in controls]),
    )
    recipe = {"embedder": embedder.name, "key": embedder_key(embedder, window_s=spec.window_s)}
    recipe |= {"window_s": spec.window_s, "sampling_rate_hz": embedder.sampling_rate_hz}
    measured = distances.measure(
        {name: clips for name, clips in sets.items() if name != base},
        reference=sets[base],
        controls=distances.control_groups(of_controls),
        spec=_of(distances.Spec, config["scores"]["fad"]),
        recipe=recipe,
        seed=config["seed"],
    )
    return {**measured, "reference": base, "embedder": recipe, "files": files}


def _config(options: argparse.Namespace) -> dict:
    try:
        config = yaml.safe_load(Path(options.config).read_text())
        settings, fad = config["scores"]["clap"], config["scores"]["fad"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(
            f"{options.config}: is not the workflow's config ({error}). Name one by --config."
        ) from error
    if options.embedder not in (None, settings["backend"]) and options.embedder != "logmel":
        if not options.model:
            raise InputError(f"--embedder {options.embedder}: say which by --model.")
        settings |= {"checkpoint": None, "architecture": None}
    if options.model:
        settings |= {"revision": None}
    given = {
        "backend": options.embedder,
        "model": options.model,
        "revision": options.revision,
        "checkpoint": options.checkpoint,
        "architecture": options.architecture,
        "window_s": options.window,
    }
    settings |= {key: value for key, value in given.items() if value is not None}
    if settings["backend"] == "laion_clap" and not settings["checkpoint"]:
        raise InputError("--embedder laion_clap: name the file by --checkpoint.")
    for key, value in (("bootstraps", options.bootstraps), ("control_clips", options.controls)):
        if value is not None:
            if value < 1:
                raise InputError(f"{key}: {value}; at least 1 is needed.")
            fad[key] = value
    config["seed"] = config["seed"] if options.seed is None else options.seed
    return config


def _of(kind, section: dict):
    return kind(**{field.name: section[field.name] for field in fields(kind)})


def _names(folders: list[str]) -> dict[str, str]:
    """Return {name: folder}: the folder's own name, or its path where two share one."""
    short = [Path(folder).resolve().name for folder in folders]
    names = [
        folder if short.count(name) > 1 else name
        for folder, name in zip(folders, short, strict=True)
    ]
    if len(set(names)) < len(names):
        raise InputError(f"{', '.join(folders)}: a folder is given twice. Give each once.")
    return dict(zip(names, folders, strict=True))


def _embed(embedder, folder: Path, spec, cache: Path | None) -> tuple[distances.Clips, list[dict]]:
    """Embed a folder's files, or take what is kept of them; return clips, and a row per file.

    Raises:
        InputError: too few of them can be embedded.
    """
    hashed = embedder_key(embedder, window_s=spec.window_s)
    files = dict(reference.folder_sources(folder))
    keys = {name: clip_key(path, hashed) for name, path in files.items()}
    kept = {}
    if cache and cache.is_file():
        rows = io.read_rows(cache)
        kept = {row["embedding_key"]: np.array(row["audio_embedding"]) for row in rows}
    missing = [(name, path) for name, path in files.items() if keys[name] not in kept]
    told = {}
    for clip, key in reference.embed_set(embedder, missing, spec=spec):
        told[clip.id] = reference.fate(clip)
        if clip.windows is not None:
            kept[key] = pool(clip.windows, unit_norm=embedder.unit_norm)
    for name in files:
        told.setdefault(name, {"id": name, "status": "ok", "reason": _KEPT})
    ids = [name for name in files if keys[name] in kept]
    if cache:
        rows = [
            {"id": name, "audio_embedding": kept[keys[name]], "embedding_key": keys[name]}
            for name in ids
        ]
        io.write_table(cache, rows, schemas.EMBEDDINGS)
    if len(ids) < LEAST_CLIPS:
        lost = [row for row in told.values() if row["status"] != "ok"]
        first = f" (first: {lost[0]['id']} {lost[0]['reason']})" if lost else ""
        raise InputError(
            f"{folder}: {len(ids)} of {len(files)} files can be embedded; at least {LEAST_CLIPS} "
            f"are needed{first}."
        )
    x = frechet.checked(np.stack([kept[keys[name]] for name in ids]), str(folder))
    return distances.Clips(ids, x), [told[name] for name in files]


def table(measured: dict) -> str:
    """Return what `measure_folders` found as text."""
    embedder = measured["embedder"]
    files = {name: rows for name, rows in measured["files"].items()}
    reference_name = measured["reference"]
    n = len([row for row in files[reference_name] if row["status"] == "ok"])
    lines = [
        f"reference  {reference_name}: {n} clips",
        f"embedder   {embedder['embedder']}, windows of {embedder['window_s']:g} s at "
        f"{embedder['sampling_rate_hz']:,} Hz",
        "",
        f"{'set':<24} {'N':>6}  {'FAD':<28} {'FAD inf':<28} {'R2':>5}  {'KAD':<28}",
    ]
    groups = measured["arms"] | {f"({name})": m for name, m in measured["controls"].items()}
    floors = {metrics[0]["n"]: metrics for metrics in measured["control_floors"].values()}
    floors |= {measured["floor"][0]["n"]: measured["floor"]}
    rows = [*groups.items(), *(("(floor)", floors[size]) for size in sorted(floors, reverse=True))]
    for name, metrics in rows:
        of = {metric["name"].removesuffix("_floor"): metric for metric in metrics}
        far = of.get("fad_infinity")
        r2 = f"{far['recipe']['r2']:.2f}" if far else ""
        cells = [_cell(of["fad"]), _cell(far), _cell(of["kad"])]
        row = f"{name:<24} {of['fad']['n']:>6}  {cells[0]:<28} {cells[1]:<28} {r2:>5}  {cells[2]}"
        lines.append(row.rstrip())
    for row in measured["comparisons"]:
        if row["metric"] == "fad":
            gap = f"difference {row['difference']:.4g} [{row['ci_low']:.4g}, {row['ci_high']:.4g}]"
            say = {"lower": "nearer than", "higher": "farther than"}.get(row["verdict"])
            told = (
                f"{row['arm']} is {say} {row['against']}"
                if say
                else (f"{row['arm']} and {row['against']} are not separable")
            )
            lines.append(f"{told}: {gap}")
    return "\n".join([*lines, *_remarks(files)])


def _cell(metric: dict | None) -> str:
    if metric is None:
        return ""
    return f"{metric['value']:.4g} [{metric['ci_low']:.4g}, {metric['ci_high']:.4g}]"


def _remarks(files: dict[str, list[dict]]) -> list[str]:
    lines = []
    for name, rows in files.items():
        lost = [row for row in rows if row["status"] != "ok"]
        noted = [row for row in rows if row["status"] == "ok" and _is_remark(row["reason"])]
        for told, what in ((lost, "left out"), (noted, "noted")):
            if told:
                shown = "; ".join(f"{row['id']} {row['reason']}" for row in told[:_SHOWN])
                more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
                lines.append(f"{what} of {name}: {len(told)} of {len(rows)} ({shown}{more})")
    return [""] * bool(lines) + lines


def _is_remark(reason: str) -> bool:
    return bool(reason) and reason != _KEPT


if __name__ == "__main__":
    raise SystemExit(main())
