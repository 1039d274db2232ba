"""Human captions without what says nothing about the music; words are taken away, never added."""

import re

import ftfy

# A sentence made of these words alone, one of them a key, is about the recording.
_KEY = re.compile("quality|audio-quality|noisy|mono|recording|recorded|amateur")
_FILLER = re.compile(
    r"""a|an|and|as|at|audio|average|bad|be|been|best|bit|bit-rate|by|clip|crackling|decent|device
    |extremely|features|fidelity|full|great|has|have|heard|hissing|home|in|inferior|is|it|it's|its
    |live|low|low-quality|mediocre|mix|muffled|not|of|old|on|or|overall|phone|piece|poor|poor-quality
    |probably|quite|rather|really|recordings|seems|slightly|so|song|sound|sounds|static|terrible|that
    |the|there|this|to|tones|track|unclear|very|video|was|which|whole|with""",
    re.X,
)
_ADVERB = r"(?:very|really|quite|rather|extremely|a bit|slightly)"
_POOR = rf"(?:{_ADVERB} )?(?:low|poor|bad|inferior|average|mediocre)"
_NOISY = rf"(?:{_ADVERB} )?(?:in mono|mono|noisy)"
_IS_NOISY = rf"(?:the|this) (?:whole )?recording is {_NOISY}(?:(?:,? and|,) {_NOISY})*"
_ADJECTIVES = re.compile(
    rf"\b{_POOR}(?:[ -](?:audio|sound))?[ -]quality,? (?:(?:audio|home|live|mono|noisy),? )*"
    r"(?=recording|song|video|clip)",
    re.I,
)
_OPENING = re.compile(rf"\b{_IS_NOISY},? (?:and|but) (it)(?= sounds| is also)", re.I)
_CLAUSE = re.compile(
    rf",?(?: and| but|,|;) (?:{_IS_NOISY}(?:, as it was probably recorded with a phone)?"
    rf"|(?:has|is of|is in|of) (?:a |an )?{_POOR} (?:audio|sound)[ -]quality)(?=[.!?]|$)",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])")
_DANGLING = re.compile(
    r"(?:[\s,;:/-]+|\b(?:and|or|but|with|the|a|an|of|to|that|which|while|is|are))+$", re.I
)


def clean_caption(text: str) -> str:
    """Return a caption without encoding faults, remarks on the recording and dangling ends.

    Faults of encoding are undone (ftfy), blanks are single. "The low quality recording features"
    loses its adjectives; clauses and sentences that say only how the recording sounds are left out;
    an end without a full stop is cut back to the last word that can end a sentence, and closed.
    What remains may be empty.
    """
    text = " ".join(ftfy.fix_text(text).split())
    text = _OPENING.sub(lambda match: match[1].capitalize(), text)
    text = _CLAUSE.sub("", _ADJECTIVES.sub("", text))
    sentences = [s for s in _SENTENCE_END.split(text) if s and not _on_the_recording(s)]
    if sentences and not re.search(r"[.!?][\"')]*$", sentences[-1]):
        last = _DANGLING.sub("", sentences[-1])
        sentences[-1:] = [last + "."] if last else []
    return " ".join(sentences)


def _on_the_recording(sentence: str) -> bool:
    words = re.findall(r"[a-z'-]+", sentence.lower())
    return any(map(_KEY.fullmatch, words)) and all(
        _KEY.fullmatch(word) or _FILLER.fullmatch(word) for word in words
    )
