"""The gate of captions: what a draft must and must not say before it enters the dataset."""

import re
from dataclasses import dataclass
from pathlib import Path

from conceptcaps import io
from conceptcaps.errors import InputError
from conceptcaps.mentions import Mentions
from conceptcaps.taxonomy import load_aliases, load_taxonomy, normalise, vocabulary

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
# fmt: off
_ENGLISH = frozenset((  # function words, of which any English prose is full
    "a", "an", "the", "this", "that", "these", "those", "it", "its", "is", "are", "was",
    "be", "been", "has", "have", "had", "do", "does", "can", "could", "would", "may",
    "might", "will", "there", "here", "and", "or", "but", "with", "without", "of", "in",
    "on", "at", "by", "for", "from", "to", "into", "as", "no", "not", "we", "you", "he",
    "she", "they", "one", "which", "who", "while", "also", "very", "more", "most", "some",
    "any", "all", "each", "other",
))
# fmt: on
_ARTIST = re.compile(  # names behind words that introduce an artist
    r"\b(?:[Ii]n the style of|[Rr]eminiscent of|[Ss]ounds? like|[Ff]eat(?:uring|\.)|"
    r"[Pp]erformed by|[Cc]omposed by|[Ss]ung by|[Ww]ritten by|[Pp]layed by|[Cc]over of|"
    r"[Ss]ongs? by|[Tt]racks? by)"
    r" ((?:the )?[A-Z][\w'-]+(?: (?:[A-Z&][\w'-]*|and [A-Z][\w'-]+))*)"
)


@dataclass(frozen=True)
class Spec:
    """What passes (config: captioner.gate); null switches a check off."""

    drafts: int  # of an item at most, the first included
    min_words: int
    max_words: int | None
    min_tag_recall: float | None  # share of an item's tags that its caption names, in [0, 1]
    max_unasked_tags: int | None  # tags of the taxonomy that it asserts though they are not its own
    min_english: float | None  # share of English function words among the words, in [0, 1]
    max_copied_words: int | None  # longest run of words that a training caption has too
    artist_patterns: bool  # refuse names behind words such as "in the style of"
    artists: str | None  # file of further names, one a line, that no caption may have


def ungated(spec: Spec) -> Spec:
    """Return the gate of the compared arms: one draft, which is refused only when it is no text.

    Arms are compared as they come; resampling would lend them what only the gate can do.
    """
    return Spec(1, spec.min_words, None, None, None, None, None, False, None)


@dataclass(frozen=True)
class Verdict:
    """What the gate says about a draft."""

    status: str  # "ok", or the first check that failed
    reason: str  # "" when ok
    recall: float | None  # share of the item's tags that are named; None without tags


class Gate:
    """Judge drafts.

    Args:
        spec: what passes.
        mentions: finds the taxonomy's tags in texts.
        training: the human captions that the model has learned from.

    Raises:
        InputError: the file of artists cannot be read.
    """

    def __init__(self, spec: Spec, *, mentions: Mentions, training: list[str] = ()):
        """Read the names and index the training captions; see the class."""
        self.spec, self.mentions = spec, mentions
        self.artists = _read_names(spec.artists) if spec.artists else None
        self.runs = set()  # every run of one word more than may be copied
        if spec.max_copied_words is not None:
            self.length = spec.max_copied_words + 1
            self.runs = {run for text in training for run in _runs(text, self.length)}

    def judge(self, caption: str, tags: list[str]) -> Verdict:
        """Return whether a caption of `tags` passes, and if not, why; the first reason counts."""
        found = self.mentions.find(caption)
        missing = [tag for tag in tags if tag not in found.named]
        recall = 1 - len(missing) / len(tags) if tags else None
        for status, check in (
            ("too_short", self._length),
            ("too_long", self._excess),
            ("missing_tags", lambda _: self._missing(tags, missing, found)),
            ("unasked_tags", lambda _: self._unasked(tags, found)),
            ("not_english", self._language),
            ("artist", self._artist),
            ("copied", self._copied),
        ):
            reason = check(caption)
            if reason:
                return Verdict(status, reason, recall)
        return Verdict("ok", "", recall)

    def _length(self, caption: str) -> str:
        words, least = len(caption.split()), self.spec.min_words
        return f"{words} words, min_words is {least}" if words < least else ""

    def _excess(self, caption: str) -> str:
        words, most = len(caption.split()), self.spec.max_words
        return f"{words} words, max_words is {most}" if most is not None and words > most else ""

    def _missing(self, tags, missing, found) -> str:
        least = self.spec.min_tag_recall
        if least is None or not tags or 1 - len(missing) / len(tags) >= least:
            return ""
        denied = [tag for tag in missing if tag in found.denied]
        also = f"; denied: {', '.join(denied)}" if denied else ""
        return f"not named: {', '.join(missing)}{also}"

    def _unasked(self, tags, found) -> str:
        unasked = sorted(found.asserted - set(tags))
        most = self.spec.max_unasked_tags
        if most is None or len(unasked) <= most:
            return ""
        return f"not asked for: {', '.join(unasked)}"

    def _language(self, caption: str) -> str:
        if self.spec.min_english is None:
            return ""
        words = _WORD.findall(caption.lower().replace("\u2019", "'"))
        share = sum(word in _ENGLISH for word in words) / max(len(words), 1)
        if share >= self.spec.min_english:
            return ""
        return f"{share:.2f} of the words are English function words"

    def _artist(self, caption: str) -> str:
        match = _ARTIST.search(caption) if self.spec.artist_patterns else None
        if match:
            return f"names an artist: {match[1]}"
        match = self.artists.search(caption) if self.artists else None
        return f"names an artist: {match[0]}" if match else ""

    def _copied(self, caption: str) -> str:
        if not self.runs:
            return ""
        run = next((run for run in _runs(caption, self.length) if run in self.runs), None)
        return f"copied from a training caption: {run}" if run else ""


def of_arm(arm: str, spec: Spec, *, taxonomy: str | Path, pairs: str | Path) -> Gate:
    """Return the gate of an arm: the whole one for the dataset's own, `ungated` for the others.

    Args:
        arm: the arm.
        spec: what passes.
        taxonomy: the taxonomy file: the tags that captions can name.
        pairs: table `schemas.PAIRS`; its split "train" must not be copied.
    """
    mentions = Mentions(vocabulary(load_taxonomy(taxonomy)), load_aliases(taxonomy))
    if arm != "conceptcaps":
        return Gate(ungated(spec), mentions=mentions)
    rows = io.read_rows(pairs, ["caption", "split"])
    training = [row["caption"] for row in rows if row["split"] == "train"]
    return Gate(spec, mentions=mentions, training=training)


def _runs(text: str, length: int):
    words = [word for word in re.split(r"[^\w']+", normalise(text)) if word]
    return (" ".join(words[k : k + length]) for k in range(len(words) - length + 1))


def _read_names(path: str) -> re.Pattern | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise InputError(f"captioner.gate.artists: {path} cannot be read ({error}).") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise InputError(f"captioner.gate.artists: {path} has no names. Give null for none.")
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")
