"""The miniature world's words: captions that name tags, and a synthetic MusicCaps of them."""

import numpy as np

from conceptcaps import seeding
from conceptcaps.errors import InputError
from conceptcaps.grammar import TAXONOMY, VOICES, by_category, sample_tags

_NAMED = {"concise": 0.98, "verbose": 0.85}  # chance that a caption names a tag
_WORDS = {"concise": (20, 40), "verbose": (40, 70)}


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
    mood = f" with {_article(moods)} {moods} feel" if moods else ""
    pace = f", played at a {tempo}" if tempo else ""
    form = rng.random()
    if genre and form < 0.25:
        return f"This {noun} is {genre}{mood}{pace}."
    if tempo and form < 0.45:
        return f"{_article(what).capitalize()} {what} with a {tempo}."
    if tempo and form < 0.6:
        return f"A {tempo} carries this {what}."
    if moods and form < 0.75:
        plain = f"{genre} {noun}".strip()
        return f"In {_article(moods)} {moods} mood, this is {_article(plain)} {plain}{pace}."
    pace = f" at a {tempo}" if tempo else ""
    return f"{rng.choice(['This is', 'Here is', 'The clip is'])} {_article(what)} {what}{pace}."


def _arrangement(instruments: list[str], rng: np.random.Generator, style: str) -> list[str]:
    absent = [tag for tag in instruments if tag.startswith("no ")]
    voices = [tag for tag in instruments if tag in VOICES]
    played = [tag for tag in instruments if tag not in absent and tag not in voices]
    long = style == "verbose"
    sentences = []
    if played:
        plain = [
            "It features {}.",
            "We hear {}.",
            "The sound is built on {}.",
            "One can hear {}.",
            "The instrumentation consists of {}.",
            "The band plays {}.",
        ]
        wordy = [
            "The arrangement is carefully layered around {}, which shape its character throughout.",
            "The listener will notice the prominent use of {} in the overall soundscape.",
        ]
        sentences.append(str(rng.choice(wordy if long else plain)).format(_listed(rng, played)))
    if voices:
        plain = [
            "A {} sings the melody.",
            "A {} leads.",
            "On top, a {} is singing.",
            "The lead is a {}.",
        ]
        wordy = ["A {} takes the central role and delivers the melody with conviction."]
        sentences.append(str(rng.choice(wordy if long else plain)).format(voices[0]))
    if absent:
        plain = ["There is {}.", "It has {}.", "The mix has {}.", "It is made with {}."]
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
