"""Functions of the rules: the checked config, fingerprints, sources. No rules here."""

import json
import math
import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

FIGURES = [
    "tags",
    "distill",
    "vae",
    "latent",
    "captioner",
    "text",
    "clap",
    "genrecnn",
    "tcav",
    "cavs",
    "coverage",
    "claims",
]
CONSTRAINTS = ["min_categories", "max_tags", "given", "forbid"]
# Settings that decide whether a result may stand, not what it is: changing one reruns nothing.
GATES = [
    "max_candidates_per_item",
    "min_logit_difference",
    "min_yield",
    "requests_per_minute",
    "retries",
]
MINI_MODELS = ["llama", "codec", "musicgen", "clap", "roberta", "gpt2", "judge"]

sys.path.insert(0, str(Path(workflow.basedir) / "workflow/scripts"))

from conceptcaps.audiofolder import SUFFIXES, list_audio
from conceptcaps.constraints import Constraints
from conceptcaps.errors import InputError, nearest
from conceptcaps.fingerprint import script_modules
from conceptcaps.settings import check_settings, with_preset
from conceptcaps.taxonomy import (
    load_exclusive,
    load_implications,
    load_lookup,
    load_taxonomy,
    vocabulary,
)


def check_config():
    """Stop with one message that lists everything wrong with the merged config."""
    try:
        check_settings(config, Path(workflow.basedir) / "workflow/schemas/config.schema.yaml")
    except InputError as error:
        raise WorkflowError(str(error))


def check_taxonomy():
    """Stop when the taxonomy is broken, or a concept to be tested is not one of its tags."""
    try:
        taxonomy = load_taxonomy(setting("distill.taxonomy"))
        load_lookup(setting("distill.taxonomy"))  # aliases, implications and exclusive groups too
        Constraints(
            taxonomy,
            groups=load_exclusive(setting("distill.taxonomy")),
            implications=load_implications(setting("distill.taxonomy")),
            **{key: setting(f"tags.{key}") for key in CONSTRAINTS},
        )
    except InputError as error:
        raise WorkflowError(f"taxonomy and tags: {error}")
    tags = vocabulary(taxonomy)
    for concept in setting("tcav.concepts") or []:
        if concept not in tags:
            raise WorkflowError(
                f"tcav.concepts: '{concept}' is not a tag of {setting('distill.taxonomy')}."
                f"{nearest(concept, tags)}"
            )


def say_scale():
    """Say once what is about to be made: an overlay too few means paper scale."""
    if workflow.is_main_process:
        source = setting("sources.musiccaps")
        logger.info(
            f"{setting('tags.items')} clips of {setting('audio.duration_s')} s with "
            f"{setting('audio.model')}; MusicCaps: {source['path'] or source['kind']}; "
            f"results in {setting('pathvars.results')}"
        )


def check_gpus():
    """Stop on `resources: {gpu: 0}`, which does not do what it seems to."""
    limit = workflow.global_resources.get("gpu")
    if workflow.is_main_process and limit is not None and limit.value == 0:
        raise WorkflowError(
            "resources: gpu is 0, in a profile or on the command line. Snakemake would lower what GPU "
            "jobs ask for to 0 and start all of them at once. Give the number of this machine's GPUs; "
            "without one, the number of GPU jobs that may share its cores (profiles/mini says 2); "
            "to keep them from running, name a target that needs none, such as tags."
        )


def check_results_writable():
    """Stop before anything else when the results directory cannot be made or written."""
    results = Path(config["pathvars"]["results"])
    there = results
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "may not be written" if there.is_dir() else "is not a directory"
        raise WorkflowError(
            f"pathvars.results: {results} cannot be written, since {there} {why}. "
            "Name another directory."
        )


def setting(path):
    """Return the config value at a dotted path such as 'audio.model'."""
    value = config
    for key in path.split("."):
        value = value[key]
    return value


def canonical(value):
    """Return a value as canonical JSON for params; a function, so that braces stay as they are."""
    text = json.dumps(value, sort_keys=True)
    return lambda wildcards: text


def section(path, *keys):
    """Return the config section at `path`, or only `keys` of it, as canonical JSON for params.

    What it holds decides what a job makes, so a change reruns the job. Gates are left out.
    """
    return _told(path, setting(path), keys)


def section_with_preset(path):
    """Return a section like `section`, with the values of the preset in use, not the others'."""
    return _told(path, with_preset(setting(path)), ())


def _told(path, values, keys):
    told = canonical(
        {
            key: value
            for key, value in values.items()
            if key not in GATES and (key in keys or not keys)
        }
    )
    told.path = path  # for `make why`
    return told


def gates(path):
    """Return the gates of the config section at `path` as JSON for params, unseen by reruns.

    Snakemake does not record params that are functions of `threads`.
    """
    text = json.dumps({key: value for key, value in setting(path).items() if key in GATES})
    return lambda wildcards, threads: text


def fingerprint(*rule_names):
    """Return the hashes of the modules that rules run, as canonical JSON for params.

    Read when a job is planned, so that its own process reads no other's modules.
    """
    folder = Path(workflow.basedir) / "workflow/scripts"
    scripts = [folder / f"{name}.py" for name in rule_names]
    text = cache(
        lambda: json.dumps(
            {name: code for script in scripts for name, code in script_modules(script).items()},
            sort_keys=True,
        )
    )
    return lambda wildcards: text()


def local(path, revision):
    """Return the files of a model when a config entry names a local one, [] for a hub id."""
    if setting(revision) is not None:
        return []
    cure = f"Name a directory with the model's files, or a hub id together with {revision}."
    return model_files(path, setting(path), cure)


def zoo_model(name):
    """Return the files of a model that the miniature's own checks read.

    A function of the wildcards: at paper scale nobody needs the models to be there.
    """
    cure = "Name a directory with the miniature's models."
    model = f"{setting('mini.models')}/{name}"
    return lambda wildcards: model_files("mini.models", model, cure)


def model_files(path, model, cure):
    """Return the files of a model directory that the config names at `path`, cards left out.

    Files, since Snakemake compares their content; of a directory it sees only the date, and a fresh
    checkout would rerun everything. One that the workflow builds itself is the directory.
    """
    directory = Path(model)
    if directory.is_relative_to(config["pathvars"]["mini_models"]):
        return [model]
    found = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".md")
    files = [
        str(path)
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]
    if not files:
        raise WorkflowError(f"{path}: there is no directory '{model}' with files. {cure}")
    return files


def source_file(section_name, kind):
    """Return [path] of a source whose kind is a local file or folder, which must exist."""
    source = setting(section_name)
    if source["kind"] != kind:
        return []
    if not Path(source["path"]).exists():
        raise WorkflowError(
            f"{section_name}.path: there is no {kind} '{source['path']}'. "
            f"Give its path, or another {section_name}.kind."
        )
    return [source["path"]]


def optional_file(path):
    """Return [file] that the config names at `path`, which must exist; [] for null."""
    file = setting(path)
    if file is None:
        return []
    if not Path(file).is_file():
        raise WorkflowError(f"{path}: there is no file '{file}'. Give its path, or null for none.")
    return [file]


def genre_files():
    """Return the audio files of a genre corpus that is a folder, [] for another kind.

    Files, as in `model_files`; they lie where `gtzan.list_clips` looks: in the folders of the
    genres, in the corpus or in a folder of it.
    """
    return [
        str(file)
        for folder in source_file("gtzan", "folder")
        for file in _audio_files(Path(folder))
    ]


def _audio_files(folder):
    found = sorted(
        file
        for pattern in ("*/*", "*/*/*")
        for file in folder.glob(pattern)
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not found:
        raise WorkflowError(
            f"gtzan.path: '{folder}' holds no audio files ({', '.join(SUFFIXES)}) in folders such as "
            "blues or genres_original/blues. Name the unpacked corpus, or give another gtzan.kind."
        )
    return found


def split_lists():
    """Return the lists of the genre corpus' parts, [] where it is split by genre and seed."""
    folder = setting("gtzan.classifier.splits")
    if folder is None:
        return []
    found = [sorted(Path(folder).glob(f"{part}*.txt")) for part in ("train", "valid", "test")]
    if [len(files) for files in found] != [1, 1, 1]:
        raise WorkflowError(
            f"gtzan.classifier.splits: '{folder}' must hold one file each of train*.txt, valid*.txt and "
            "test*.txt, with the clips of that part, one a line (blues/blues.00029.wav)."
        )
    return [str(path) for files in found for path in files]


def miniature_checks():
    """Return [the checks] of a run in the miniature world, whose truth is known."""
    sources = config["sources"]["musiccaps"], config["gtzan"]
    known = all(source["kind"] == "synthetic" for source in sources)
    return ["<results>/checks.json"] if known else []


def labelled_clips():
    """Return the clips whose tags are known: the miniature world's own, else the genre corpus."""
    return (
        "<results>/miniature/clips.parquet"
        if miniature_checks()
        else "<results>/gtzan/clips.parquet"
    )


def reference_folder():
    """Return the folder of audio that FAD's reference is, or None: GTZAN or MusicCaps."""
    reference = setting("scores.fad.reference")
    return None if reference in ("gtzan", "musiccaps") else reference


def reference_clips():
    """Return what FAD's reference is read from: tables of clips, or the files of a folder."""
    folder = reference_folder()
    if folder is None and setting("scores.fad.reference") == "gtzan":
        return ["<results>/gtzan/clips.parquet"]
    if folder is None:
        return expand("<results>/musiccaps/audio/{shard}.parquet", shard=clip_audio_shards())
    try:
        return [str(path) for path in list_audio(folder)]
    except InputError as error:
        raise WorkflowError(f"scores.fad.reference: {error} Or say gtzan, or musiccaps.")


def clip_audio_shards():
    """Return the shard names of MusicCaps' own clips."""
    rows = config["sources"]["musiccaps"]["rows"]
    return [f"{i:05d}" for i in range(math.ceil(rows / config["shards"]["items"]))]


def grows(amount):
    """Return a resource that grows with every retry of a job."""
    return lambda wildcards, attempt: amount * attempt
