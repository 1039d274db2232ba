"""The miniature world's language: tags that go together by known rules, captions that name them."""

import numpy as np

from conceptcaps import seeding
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
PERCUSSION = ("drums", "claps")
VOICES = ("deep male voice", "bright female voice")

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
_NAMED = {"concise": 0.98, "verbose": 0.85}  # chance that a caption names a tag
_WORDS = {"concise": (20, 40), "verbose": (40, 70)}
_ABSENT = {"genre": 0.04, "mood": 0.06, "tempo": 0.12}  # chance that a set has no tag of a category


def sample_tags(rng: np.random.Generator, *, genre: str | None = None) -> dict[str, list[str]]:
    """Draw one tag set by the planted rules: category -> tags, in the taxonomy's order.

    A given `genre` is always in the set. About 1 set in 100 has fewer than three categories.

    Raises:
        InputError: `genre` is not one of the taxonomy.
    """
    if genre is not None and genre not in PROFILES:
        raise InputError(f"genre '{genre}' is not in the grammar.{nearest(genre, PROFILES)}")
    played = genre or str(rng.choice(TAXONOMY["genre"]))
    tempi, moods, instruments, voices = PROFILES[played]
    drawn = {
        "genre": [played],
        "mood": _draw_moods(rng, moods),
        "instrument": _draw_instruments(rng, instruments, voices),
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
    return [first, second] if rng.random() < 0.4 and compatible([first, second]) else [first]


def _draw_instruments(rng: np.random.Generator, chances: dict[str, float], voices) -> list[str]:
    drawn = [tag for tag, chance in chances.items() if rng.random() < chance]
    if not set(drawn) - set(PERCUSSION):
        drawn.append(max(chances, key=lambda tag: 0 if tag in PERCUSSION else chances[tag]))
    if not set(drawn) & set(PERCUSSION) and rng.random() < 0.6:
        drawn.append("no percussion")
    man, woman = voices
    voice = rng.random()
    if voice < man + woman:
        drawn.append(VOICES[0] if voice < man else VOICES[1])
    elif rng.random() < 0.5:
        drawn.append("no voices")
    return drawn


def compatible(tags: list[str]) -> bool:
    """Tell whether no two of the tags exclude each other."""
    return all(len(set(tags) & set(group)) < 2 for group in EXCLUSIVE)


def by_category(tags: list[str]) -> dict[str, list[str]]:
    """Sort a flat list of tags into categories.

    Raises:
        InputError: a tag is not in the grammar's taxonomy.
    """
    for tag in tags:
        if tag not in CATEGORY_OF:
            raise InputError(f"tag '{tag}' is not in the grammar.{nearest(tag, CATEGORY_OF)}")
    return {c: [tag for tag in tags if CATEGORY_OF[tag] == c] for c in TAXONOMY}


def write_caption(
    tags: dict[str, list[str]] | list[str], rng: np.random.Generator, *, style: str
) -> str:
    """Write a caption that names tags by their literal words.

    Args:
        tags: a tag set, by category or flat.
        rng: generator; each call draws other words, another order and other omissions.
        style: "concise" (20-40 words, names 98 % of the tags, like a person) or "verbose" (40-70
            words, names 85 %, like a language model that was not tuned).

    Raises:
        InputError: a tag or the style is unknown.
    """
    if style not in _NAMED:
        raise InputError(f"style '{style}': one of {', '.join(_NAMED)}.")
    tags = by_category(
        [tag for group in tags.values() for tag in group] if isinstance(tags, dict) else tags
    )
    named = {c: [tag for tag in group if rng.random() < _NAMED[style]] for c, group in tags.items()}
    sentences = [_opening(named, rng, style), *_arrangement(named["instrument"], rng, style)]
    lowest, highest = _WORDS[style]
    wanted = rng.integers(lowest, lowest + 8)  # most captions end near the short side of the range
    for closing in rng.permutation(_CLOSINGS[style]):
        words = len(" ".join(sentences).split())
        if words >= wanted:
            break
        if words + len(closing.split()) <= highest:
            sentences.append(str(closing))
    return " ".join(sentences)


def _opening(named: dict[str, list[str]], rng: np.random.Generator, style: str) -> str:
    moods = _listed(rng, named["mood"])
    genre = " ".join(named["genre"])
    tempo = " ".join(named["tempo"])
    noun = str(rng.choice(["piece", "song", "track", "recording"]))
    what = " ".join(word for word in (moods, genre, noun) if word)
    if style == "verbose":
        start = str(rng.choice(["This is", "The audio presents", "What we hear is"]))
        pace = f" that unfolds at a {tempo}" if tempo else ""
        return f"{start} {_article(what)} {what}{pace}."
    if genre and rng.random() < 0.3:
        mood = f" with {_article(moods)} {moods} feel" if moods else ""
        pace = f", played at a {tempo}" if tempo else ""
        return f"This {noun} is {genre}{mood}{pace}."
    if tempo and rng.random() < 0.4:
        return f"{_article(what).capitalize()} {what} with a {tempo}."
    pace = f" at a {tempo}" if tempo else ""
    return f"{rng.choice(['This is', 'Here is', 'The clip is'])} {_article(what)} {what}{pace}."


def _arrangement(instruments: list[str], rng: np.random.Generator, style: str) -> list[str]:
    absent = [tag for tag in instruments if tag.startswith("no ")]
    voices = [tag for tag in instruments if tag in VOICES]
    played = [tag for tag in instruments if tag not in absent and tag not in voices]
    long = style == "verbose"
    sentences = []
    if played:
        plain = ["It features {}.", "We hear {}.", "The sound is built on {}.", "One can hear {}."]
        wordy = [
            "The arrangement is carefully layered around {}, which shape its character throughout.",
            "The listener will notice the prominent use of {} in the overall soundscape.",
        ]
        sentences.append(str(rng.choice(wordy if long else plain)).format(_listed(rng, played)))
    if voices:
        plain = ["A {} sings the melody.", "A {} leads.", "On top, a {} is singing."]
        wordy = ["A {} takes the central role and delivers the melody with conviction."]
        sentences.append(str(rng.choice(wordy if long else plain)).format(voices[0]))
    if absent:
        plain = ["There is {}.", "It has {}.", "The mix has {}."]
        wordy = ["It is worth noting that there is {} in this performance."]
        sentences.append(str(rng.choice(wordy if long else plain)).format(_listed(rng, absent)))
    return sentences


def _listed(rng: np.random.Generator, words: list[str]) -> str:
    words = [str(word) for word in rng.permutation(words)] if words else []
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


# None of these sentences may contain a tag, not even inside a word: tag recall counts substrings.
_CLOSINGS = {
    "concise": [
        "It could be playing in a small bar.",
        "This would suit a film scene.",
        "The recording sounds like home studio work.",
        "It could be used in an advert.",
        "The melody is simple and repeats often.",
        "This may be heard on the radio.",
        "It would fit a road trip.",
        "The sound is close and dry.",
        "It might be background for a video game.",
        "The audio is clean and in mono.",
    ],
    "verbose": [
        "The production balances every element with care and leaves room for each part.",
        "Overall, the composition creates an immersive atmosphere that draws the listener in.",
        "The interplay between the different layers adds depth to the whole experience.",
        "It would be well suited for a wide range of settings, from films to social gatherings.",
        "As the music evolves, subtle variations keep the attention of the audience.",
        "The result is a memorable listening experience that leaves a lasting impression.",
        "Each section flows naturally into the next and maintains a coherent sense of direction.",
    ],
}


def corpus(rows: int, seed: int) -> list[dict]:
    """Make a synthetic MusicCaps: rows of `schemas.CLIPS`; row k is the same for any `rows` > k.

    Each row's aspect list holds its tags and up to two aspects outside the taxonomy, shuffled; one
    row in ten or so keeps tags of too few categories.
    """
    return [_row(k, seeding.item_rng(seed, "synthetic_musiccaps", str(k))) for k in range(rows)]


def _row(k: int, rng: np.random.Generator) -> dict:
    tags = sample_tags(rng)
    if rng.random() < 0.09:  # a thinly described clip
        kept = rng.choice(list(TAXONOMY), size=2, replace=False)
        tags = {category: group if category in kept else [] for category, group in tags.items()}
    noise = rng.choice(_NOISE, size=rng.integers(0, 3), replace=False)
    aspects = [tag for group in tags.values() for tag in group] + [str(aspect) for aspect in noise]
    start = 10 * int(rng.integers(0, 30))
    return {
        "ytid": f"syn{k:08d}",
        "start_s": start,
        "end_s": start + 10,
        "audioset_positive_labels": "/m/04rlf",  # AudioSet's class "Music"
        "aspect_list": [str(aspect) for aspect in rng.permutation(aspects)],
        "caption": write_caption(tags, rng, style="concise"),
        "author_id": int(rng.integers(0, 10)),
        "is_balanced_subset": bool(rng.random() < 0.2),
        "is_audioset_eval": bool(rng.random() < 0.5),
    }


_NOISE = (
    "low quality",
    "mono recording",
    "amateur performance",
    "background noise",
    "live audience",
)
