"""The miniature world's grammar: forty tags that go together by known rules."""

import itertools
import math
from hashlib import sha256

import numpy as np

from conceptcaps.errors import InputError, nearest

TAXONOMY: dict[str, tuple[str, ...]] = {
    "genre": (
        "blues", "classical", "country", "disco", "hip hop", "jazz", "metal", "pop", "reggae",
        "rock",
    ),
    "mood": (
        "happy", "sad", "calm", "energetic", "dark", "romantic", "aggressive", "dreamy", "groovy",
        "mellow", "playful", "mysterious",
    ),
    "instrument": (
        "piano", "acoustic guitar", "distorted electric guitar", "strings", "flute", "trumpet",
        "bass", "synth lead", "synth pad", "drums", "claps", "deep male voice",
        "bright female voice", "no percussion", "no voices",
    ),
    "tempo": ("slow tempo", "medium tempo", "fast tempo"),
}  # fmt: skip
CATEGORY_OF = {tag: category for category, tags in TAXONOMY.items() for tag in tags}

# No set holds two tags of one group.
EXCLUSIVE = (
    TAXONOMY["genre"],
    TAXONOMY["tempo"],
    ("happy", "sad"),
    ("calm", "energetic", "aggressive"),
    ("playful", "dark"),
    ("romantic", "aggressive"),
    ("drums", "no percussion"),
    ("claps", "no percussion"),
    ("deep male voice", "bright female voice", "no voices"),
)
_CLASHES = {frozenset(pair) for group in EXCLUSIVE for pair in itertools.combinations(group, 2)}
PERCUSSION = ("drums", "claps")
VOICES = ("deep male voice", "bright female voice")
NONE_OF = NO_PERCUSSION, NO_VOICES = ("no percussion", "no voices")

# The planted co-occurrence. Per genre: weights of slow, medium, fast; weights of moods; chance of
# each instrument; chance of a man's and of a woman's voice.
PROFILES = {
    "blues": (
        (6, 3, 1),
        {"sad": 5, "mellow": 3, "dark": 1, "groovy": 2, "romantic": 1},
        {"acoustic guitar": 0.6, "piano": 0.4, "bass": 0.6, "drums": 0.6},
        (0.6, 0.1),
    ),
    "classical": (
        (5, 3, 2),
        {"calm": 3, "romantic": 4, "sad": 2, "dreamy": 2, "mysterious": 2, "playful": 1},
        {"strings": 0.8, "piano": 0.5, "flute": 0.4, "trumpet": 0.1},
        (0.02, 0.08),
    ),
    "country": (
        (2, 5, 3),
        {"happy": 5, "romantic": 2, "mellow": 2, "playful": 2, "sad": 1},
        {"acoustic guitar": 0.9, "bass": 0.5, "drums": 0.5, "strings": 0.25, "claps": 0.15},
        (0.5, 0.25),
    ),
    "disco": (
        (0, 3, 7),
        {"happy": 4, "groovy": 5, "energetic": 4, "playful": 1},
        {"bass": 0.8, "strings": 0.4, "synth lead": 0.4, "claps": 0.6, "drums": 0.85},
        (0.15, 0.5),
    ),
    "hip hop": (
        (3, 6, 1),
        {"groovy": 4, "dark": 3, "aggressive": 1, "mellow": 2, "energetic": 1},
        {"bass": 0.8, "synth pad": 0.4, "piano": 0.3, "claps": 0.6, "drums": 0.85},
        (0.7, 0.1),
    ),
    "jazz": (
        (4, 4, 2),
        {"mellow": 4, "romantic": 3, "groovy": 2, "playful": 2, "mysterious": 1},
        {"piano": 0.7, "trumpet": 0.6, "bass": 0.7, "flute": 0.2, "drums": 0.55},
        (0.1, 0.2),
    ),
    "metal": (
        (1, 2, 7),
        {"aggressive": 6, "dark": 4, "energetic": 3, "mysterious": 1},
        {"distorted electric guitar": 0.95, "bass": 0.5, "drums": 0.9, "synth pad": 0.05},
        (0.5, 0.05),
    ),
    "pop": (
        (2, 5, 3),
        {"happy": 4, "romantic": 2, "energetic": 2, "dreamy": 2, "sad": 1, "playful": 1},
        {
            "synth lead": 0.5,
            "synth pad": 0.5,
            "piano": 0.4,
            "bass": 0.4,
            "drums": 0.7,
            "claps": 0.3,
        },
        (0.2, 0.6),
    ),
    "reggae": (
        (4, 6, 0),
        {"groovy": 4, "happy": 3, "calm": 3, "mellow": 3},
        {"bass": 0.9, "acoustic guitar": 0.4, "trumpet": 0.25, "synth lead": 0.15, "drums": 0.8},
        (0.5, 0.15),
    ),
    "rock": (
        (1, 4, 5),
        {"energetic": 5, "aggressive": 2, "happy": 1, "dark": 1, "mysterious": 1, "groovy": 1},
        {"distorted electric guitar": 0.8, "bass": 0.6, "drums": 0.85, "piano": 0.15},
        (0.5, 0.2),
    ),
}
_ABSENT = {"genre": 0.04, "mood": 0.06, "tempo": 0.12}  # chance that a set has no tag of a category
_SECOND_MOOD = 0.4  # chance of one, where it is compatible with the first
_TOLD_NO_PERCUSSION, _TOLD_NO_VOICES = 0.6, 0.5  # chance that a set without them says so


def sample_tags(rng: np.random.Generator, *, genre: str | None = None) -> dict[str, list[str]]:
    """Draw one tag set by the planted rules: category -> tags, in the taxonomy's order.

    A given `genre` is always in the set. About 1 set in 100 has fewer than three categories.

    Raises:
        InputError: `genre` is not one of the taxonomy.
    """
    if genre is not None and genre not in PROFILES:
        raise InputError(f"genre '{genre}' is not in the grammar.{nearest(genre, PROFILES)}")
    played = genre or str(rng.choice(TAXONOMY["genre"]))
    tempi, moods, _, _ = PROFILES[played]
    drawn = {
        "genre": [played],
        "mood": _draw_moods(rng, moods),
        "instrument": _draw_instruments(rng, played),
        "tempo": [str(rng.choice(TAXONOMY["tempo"], p=np.array(tempi) / sum(tempi)))],
    }
    for category, chance in _ABSENT.items():
        if rng.random() < chance and not (category == "genre" and genre):
            drawn[category] = []
    return {c: [tag for tag in TAXONOMY[c] if tag in drawn[c]] for c in TAXONOMY}


def _draw_moods(rng: np.random.Generator, weights: dict[str, int]) -> list[str]:
    chances = np.array(list(weights.values())) / sum(weights.values())
    first, second = (
        str(mood) for mood in rng.choice(list(weights), size=2, replace=False, p=chances)
    )
    return (
        [first, second] if rng.random() < _SECOND_MOOD and compatible([first, second]) else [first]
    )


def _draw_instruments(rng: np.random.Generator, genre: str) -> list[str]:
    chances, (man, woman) = PROFILES[genre][2:]
    drawn = [tag for tag, chance in chances.items() if rng.random() < chance]
    if not set(drawn) - set(PERCUSSION):
        drawn.append(usual_instrument(genre))
    if not set(drawn) & set(PERCUSSION) and rng.random() < _TOLD_NO_PERCUSSION:
        drawn.append(NO_PERCUSSION)
    voice = rng.random()
    if voice < man + woman:
        drawn.append(VOICES[0] if voice < man else VOICES[1])
    elif rng.random() < _TOLD_NO_VOICES:
        drawn.append(NO_VOICES)
    return drawn


def is_held_out(tags: dict[str, list[str]]) -> bool:
    """Tell whether a tag set belongs to the fifth of all sets that no model is trained to play."""
    flat = sorted(tag for group in tags.values() for tag in group)
    return sha256("|".join(flat).encode()).digest()[0] % 5 == 0


def usual_instrument(genre: str) -> str:
    """Return the pitched instrument that a genre has most often."""
    chances = PROFILES[genre][2]
    return max(chances, key=lambda tag: 0 if tag in PERCUSSION else chances[tag])


def log_likelihood(tags: dict[str, list[str]]) -> float:
    """Return ln of the chance that `sample_tags` draws this set, in nats; -inf if it never does.

    A set without a genre may come from any of them: the chances of all ten are summed.

    Raises:
        InputError: a tag is not in the grammar's taxonomy.
    """
    tags = by_category([tag for group in tags.values() for tag in group])
    chance = sum(_chance(tags, genre) for genre in PROFILES) / len(PROFILES)
    return math.log(chance) if chance > 0 else -math.inf


def _chance(tags: dict[str, list[str]], genre: str) -> float:
    """Return the chance of a set when `genre` is played."""
    if tags["genre"] not in ([], [genre]):
        return 0.0
    tempi, moods, _, _ = PROFILES[genre]
    named = {
        "genre": float(tags["genre"] == [genre]),
        "mood": _mood_chance(set(tags["mood"]), moods),
        "instrument": _instrument_chance(set(tags["instrument"]), genre),
        "tempo": sum(
            weight / sum(tempi)
            for tag, weight in zip(TAXONOMY["tempo"], tempi, strict=True)
            if tags["tempo"] == [tag]
        ),
    }
    return math.prod(
        _ABSENT[category] * (not tags[category]) + (1 - _ABSENT[category]) * named[category]
        if category in _ABSENT
        else named[category]
        for category in named
    )


def _mood_chance(moods: set[str], weights: dict[str, int]) -> float:
    """Return the chance of one or two moods: the first draw, and the second where it is kept."""
    total = sum(weights.values())
    chance = 0.0
    for first, second in itertools.permutations(weights, 2):
        both = weights[first] / total * weights[second] / (total - weights[first])
        kept = _SECOND_MOOD if compatible([first, second]) else 0.0
        chance += both * (kept * (moods == {first, second}) + (1 - kept) * (moods == {first}))
    return chance


def _instrument_chance(band: set[str], genre: str) -> float:
    """Return the chance of a band: its players, the tags of what is absent, and its voice."""
    chances, voices = PROFILES[genre][2:]
    players = band & set(chances)
    hits, absent = players & set(PERCUSSION), band & set(NONE_OF)
    sung = [tag for tag in VOICES if tag in band]
    if band - players - absent - set(sung) or len(sung) > 1 or (sung and NO_VOICES in absent):
        return 0.0

    def drawn(tags: set[str]) -> float:
        return math.prod(c if tag in tags else 1 - c for tag, c in chances.items())

    pitched = players - hits
    chance = drawn(players) if pitched else 0.0
    if pitched == {usual_instrument(genre)}:  # it also plays where none was drawn
        chance += drawn(hits)
    silent = _TOLD_NO_PERCUSSION if NO_PERCUSSION in absent else 1 - _TOLD_NO_PERCUSSION
    chance *= float(NO_PERCUSSION not in absent) if hits else silent
    if sung:
        return chance * voices[VOICES.index(sung[0])]
    told = _TOLD_NO_VOICES if NO_VOICES in absent else 1 - _TOLD_NO_VOICES
    return chance * (1 - sum(voices)) * told


def sample_part(rng: np.random.Generator, *, held_out: bool) -> dict[str, list[str]]:
    """Draw one tag set of the held-out fifth, or of the rest."""
    while is_held_out(tags := sample_tags(rng)) != held_out:
        pass
    return tags


def compatible(tags: list[str]) -> bool:
    """Tell whether no two of the tags exclude each other."""
    return not any(frozenset(pair) in _CLASHES for pair in itertools.combinations(tags, 2))


def by_category(tags: list[str]) -> dict[str, list[str]]:
    """Sort a flat list of tags into categories.

    Raises:
        InputError: a tag is not in the grammar's taxonomy.
    """
    for tag in tags:
        if tag not in CATEGORY_OF:
            raise InputError(f"tag '{tag}' is not in the grammar.{nearest(tag, CATEGORY_OF)}")
    return {c: [tag for tag in tags if CATEGORY_OF[tag] == c] for c in TAXONOMY}
