"""Which tags a text asserts and which it denies: aliases, word boundaries, negation."""

import re
from dataclasses import dataclass

from conceptcaps.taxonomy import normalise

_DENIAL = re.compile(  # of what follows within four words, in the same clause
    r"(?:\b(?:no|not|without|never|neither|nor|lacks?|lacking|(?:lack|absence|devoid|free) of)"
    r"|n't)(?: [\w'-]+){0,3} $"
)
_NOT_DENIAL = re.compile(r"\bnot (?:only|just|merely)\b")
_CLAUSE = re.compile(r"[.,;:!?()\n]|\b(?:but|while|although|though|with|only|instead)\b")
Span = tuple[int, int, str]
NEGATIVE = "no "  # how a tag starts that says that something is absent


@dataclass(frozen=True)
class Found:
    """What a text says about the tags of a vocabulary."""

    named: frozenset[str]  # tags whose words occur and are not denied, nested ones included
    asserted: frozenset[str]  # the same without tags inside a longer one's words
    denied: frozenset[str]  # tags whose words occur in denials only


class Mentions:
    """Find the tags of a vocabulary in texts.

    A tag occurs by its own words or by an alias, at word boundaries, in any case, with blanks for
    hyphens and with a plural ending. A word such as "no", "without" or "lacks" denies a tag up to
    four words behind it in the same clause. The tag "no drums" is named by its own words and by any
    denial of "drums". Of overlapping tags, the longest asserts: "acoustic guitar" names the tag
    "guitar" too, for recall, but does not assert it beside the longer one.
    """

    def __init__(self, vocabulary: list[str], aliases: dict[str, list[str]] | None = None):
        """Compile the patterns of the tags and of their aliases, {tag: [alias, ...]}."""
        aliases = aliases or {}
        self.patterns = {
            tag: re.compile(_words([tag, *aliases.get(tag, [])])) for tag in vocabulary
        }
        self.opposite = {
            tag: re.compile(_words([tag.removeprefix(NEGATIVE)]))
            for tag in vocabulary
            if tag.startswith(NEGATIVE)
        }

    def find(self, text: str) -> Found:
        """Return what the text says; see the class."""
        spans, denials = self.spans(normalise(text))
        named = frozenset(tag for *_, tag in spans)
        outer = frozenset(tag for start, end, tag in spans if not _inside(start, end, spans))
        denied = frozenset(tag for *_, tag in denials)
        return Found(named, outer, denied - named)

    def spans(self, text: str) -> tuple[list[Span], list[Span]]:
        """Return where a normalised text names tags, and where it denies them.

        Each span is (start, end, tag), in characters of `text`; spans may overlap.
        """
        named, denied = [], []
        for tag, pattern in self.patterns.items():
            for match in pattern.finditer(text):
                opposed = not match[0].startswith(NEGATIVE) and _is_denied(text, match.start())
                (denied if opposed else named).append((*match.span(), tag))
        for tag, pattern in self.opposite.items():
            named += [
                (*match.span(), tag)
                for match in pattern.finditer(text)
                if _is_denied(text, match.start())
            ]
        return named, denied


def _words(forms) -> str:
    """Return a pattern of any of the forms as whole words, the longest first."""
    parts = {r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", normalise(form)))) for form in forms}
    either = "|".join(sorted(parts, key=len, reverse=True))
    return rf"(?<!\w)(?:{either})(?:'s|s|es)?(?!\w)"


def _is_denied(text: str, start: int) -> bool:
    clause = _CLAUSE.split(text[:start])[-1]
    return bool(_DENIAL.search(clause)) and not _NOT_DENIAL.search(clause)


def _inside(start: int, end: int, spans: list[tuple[int, int, str]]) -> bool:
    return any(a <= start and end <= b and b - a > end - start for a, b, _ in spans)
