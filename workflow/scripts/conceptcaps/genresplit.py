"""The genre corpus in three parts: by published lists, or by genre and seed."""

from collections import Counter, defaultdict
from pathlib import Path

from conceptcaps.errors import InputError
from conceptcaps.seeding import item_seed

PARTS = ("train", "validation", "test")


def split_clips(
    rows: list[dict], *, validation: float, test: float, seed: int
) -> dict[str, list[str]]:
    """Split clips (dicts with id, genre, sha256) into train, validation and test, genre by genre.

    Within a genre clips are ordered by a seed of their audio's hash; the first shares go to test
    and validation. Identical recordings of a genre fall into one part.

    Returns:
        {"train": ids, "validation": ids, "test": ids}, each sorted.

    Raises:
        InputError: a genre has too few clips for three parts.
    """
    genres, parts = defaultdict(list), {"train": [], "validation": [], "test": []}
    for row in rows:
        genres[row["genre"]].append((item_seed(seed, "genrecnn/split", row["sha256"]), row["id"]))
    for genre, keys in sorted(genres.items()):
        keys.sort()
        tests = max(1, round(test * len(keys)))
        validations = max(1, round(validation * len(keys)))
        if len(keys) - tests - validations < 1:
            raise InputError(
                f"gtzan: genre '{genre}' has {len(keys)} clips; {tests} for test and {validations} "
                "for validation leave none for training. Give it more clips or lower "
                "gtzan.classifier.test or validation."
            )
        first = {}
        for rank, (key, clip_id) in enumerate(keys):
            rank = first.setdefault(key, rank)
            part = (
                "test" if rank < tests else "validation" if rank < tests + validations else "train"
            )
            parts[part].append(clip_id)
    return {part: sorted(ids) for part, ids in parts.items()}


def read_split(lists: list[str | Path], rows: list[dict]) -> dict[str, list[str]]:
    """Return {"train", "validation", "test": ids} as three lists say, such as Sturm's.

    A line names a clip by its path or id (blues/blues.00029.wav, blues.00029); "#" starts a
    comment. Clips in no list are left out: that is how faults are filtered. Listed clips that the
    corpus lacks are printed.

    Args:
        lists: files of the training, the validation and the test clips.
        rows: dicts with id and genre.

    Raises:
        InputError: a clip is in two lists, or a genre has no clip in one of them.

    **Source:** Sturm 2013, Kereliuk et al. 2015: repetitions, distortions and artists in GTZAN.
    """
    genre, parts, part_of = {row["id"]: row["genre"] for row in rows}, {}, {}
    for part, path in zip(PARTS, lists, strict=True):
        listed = [_clip_id(line) for line in Path(path).read_text().splitlines()]
        listed = [clip_id for clip_id in listed if clip_id]
        absent = [clip_id for clip_id in listed if clip_id not in genre]
        for clip_id in listed:
            if part_of.setdefault(clip_id, path) != path:
                raise InputError(
                    f"{path}: {clip_id} is in {part_of[clip_id]} as well. A clip that is trained "
                    "on says nothing when it is tested: take it out of one."
                )
        parts[part] = sorted(set(listed) - set(absent))
        if absent:
            print(f"{path}: {len(absent)} of {len(listed)} clips are not in the corpus: {absent}")
        counts = Counter(genre[clip_id] for clip_id in parts[part])
        empty = sorted(name for name in set(genre.values()) if not counts[name])
        if empty:
            raise InputError(
                f"{path}: has no clip of {', '.join(empty)} that is in the corpus. Lines look like "
                "blues/blues.00029.wav; the corpus has ids like "
                f"{rows[0]['id']}."
            )
    left_out = len(genre) - sum(map(len, parts.values()))
    print(f"{left_out} of {len(genre)} clips are in no list and left out")
    return parts


def _clip_id(line: str) -> str:
    name = line.split("#")[0].strip().replace("\\", "/").rsplit("/", 1)[-1]
    for suffix in (".wav", ".au", ".flac", ".mp3"):
        name = name.removesuffix(suffix)
    return name
