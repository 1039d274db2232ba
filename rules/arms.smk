"""Functions of the rules: the arms, their captions, clips and shards. No rules here."""

from conceptcaps.arms import OWN, OWN_CLIPS, SCORED_ANYWAY, SOURCE, COLUMN, collected, generated
from conceptcaps.audiofolder import METADATA, read_captions
from snakemake.iocontainers import Namedlist

# Wildcards of the arms whose captions a model writes, and of the others.
GENERATED = "|".join(generated(brought=bool(setting("arms.lp_musiccaps"))))
COLLECTED = "|".join(collected(brought=bool(setting("arms.lp_musiccaps"))))
# And of those that are played here, and those that are not: none match where there are none.
PLAYED = "|".join(SOURCE)
RECORDED = "|".join(setting("arms.recorded")) or "(?!)"
# What the rules that unpack arms read beside them, by name (a test compares).
BESIDE_ARMS = ("controls", "reference")


def check_recorded():
    """Stop when the name of an arm of recorded clips is taken, or its folder is not one.

    Rules name their inputs by arms, and Snakemake keeps some names for itself.
    """
    for arm, source in setting("arms.recorded").items():
        if arm in SOURCE:
            raise WorkflowError(
                f"arms.recorded: '{arm}' is the name of another arm. Give the folder another one."
            )
        if arm in BESIDE_ARMS or hasattr(Namedlist, arm):
            raise WorkflowError(
                f"arms.recorded: an arm cannot be named '{arm}', which means something else in the "
                f"rules. Give it another name, such as '{arm}_clips'."
            )
        if source != OWN_CLIPS:
            try:
                read_captions(source)
            except InputError as error:
                raise WorkflowError(f"arms.recorded.{arm}: {error}")


def prompts_of_arm(wildcards):
    """Return the file of an arm's prompts."""
    return setting("captioner.base.prompts" if wildcards.arm in OWN else "arms.prompts")


def brought_captions(wildcards):
    """Return [the file of LP-MusicCaps' own captions] for an arm that reads it."""
    path = setting("arms.lp_musiccaps")
    if wildcards.arm not in COLUMN:
        return []
    if not Path(path).exists():
        raise WorkflowError(
            f"arms.lp_musiccaps: there is no file '{path}'. Give its path, or null: then "
            "captioner.base writes these captions."
        )
    return [path]


def n_items(arm):
    """Return how many tag sets an arm captions and plays, or how many recorded clips it has."""
    if arm in setting("arms.recorded"):
        source = setting("arms.recorded")[arm]
        own = source == OWN_CLIPS
        return setting("sources.musiccaps.rows") if own else len(read_captions(source))
    total = config["tags"]["items"]
    return total if arm == "conceptcaps" else min(total, config["arms"]["compared_items"])


def last_item(wildcards):
    """Return the end of a shard: that of a full one stays when the dataset grows."""
    end = (int(wildcards.shard) + 1) * config["shards"]["items"]
    return min(end, n_items(wildcards.arm))


def shards(arm):
    """Return the shard names of an arm: 00000, 00001, ..."""
    return [f"{i:05d}" for i in range(math.ceil(n_items(arm) / config["shards"]["items"]))]


def arms():
    """Return the arms of this run, the dataset's own first."""
    return ["conceptcaps", *config["arms"]["compared"]]


def scored_arms():
    """Return the arms whose clips are scored: those of this run, then the recorded ones."""
    return [*arms(), *setting("arms.recorded")]


def arm_files(pattern, names=None):
    """Return {arm: [file of each shard]} for a pattern with {arm} and {shard}."""
    return {arm: expand(pattern, arm=arm, shard=shards(arm)) for arm in names or arms()}


def all_arm_files(pattern):
    """Return the files of all arms for a pattern with {arm} and {shard}."""
    return [path for paths in arm_files(pattern).values() for path in paths]


def clap_shards(wildcards):
    """Return {arm: [CLAP table of each shard]}."""
    return arm_files("<results>/scores/{arm}/clap/{shard}.parquet", scored_arms())


def recorded_clips(wildcards):
    """Return what a shard of recorded clips is read from: files, or MusicCaps and its clips."""
    folder = recorded_folder(wildcards)
    if folder is None:
        return {
            "table": "<results>/musiccaps/clips.parquet",
            "clips": "<results>/musiccaps/audio/{shard}.parquet",
        }
    first = int(wildcards.shard) * config["shards"]["items"]
    paths = [Path(folder) / name for name in read_captions(folder)]
    shard = paths[first : first + config["shards"]["items"]]
    return {
        "metadata": f"{folder}/{METADATA}",
        "files": [str(path) for path in shard if path.is_file()],  # others: in the ledger
    }


def recorded_folder(wildcards):
    """Return the folder of an arm of recorded clips, None for MusicCaps' own."""
    source = setting("arms.recorded")[wildcards.arm]
    return None if source == OWN_CLIPS else source


def text_arms():
    """Return the arms whose held-out captions are scored by name."""
    return [arm for arm in arms() if arm not in SCORED_ANYWAY]


def heldout_captions(wildcards):
    """Return {arm: captions of the held-out tags}."""
    return {arm: f"<results>/captions/{arm}/heldout.parquet" for arm in text_arms()}


def all_captions():
    """Return the caption files of every arm that there is, whether it is compared or not."""
    return [
        f"<results>/captions/{arm}/{name}.parquet"
        for arm in SOURCE
        for name in [*shards(arm), "heldout"]
    ]


def adapter(wildcards):
    """Return the adapter for the fine-tuned arm, nothing for the others."""
    return ["<results>/captioner/adapter"] if wildcards.arm == "conceptcaps" else []
