"""The miniature world's composer: from a tag set to a list of notes on the codec's frame grid."""

from typing import NamedTuple

import numpy as np

from conceptcaps import grammar

FRAME_S = 0.04  # grid step: one frame of the miniature codec (25 Hz)
# Beats last whole frames, so that equal notes fall equally on codec frames. In BPM (1500 / frames):
# slow 62.5, 75; medium 100, 107; fast 150, 167.
BEAT_FRAMES = {"slow tempo": (24, 20), "medium tempo": (15, 14), "fast tempo": (10, 9)}
_LENGTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)  # note lengths in frames: few, for the note cache
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_TONICS = (0, 2, 7)  # C, D, G: few, for the note cache and for those who learn the music

MELODIC = ("flute", "trumpet", "synth lead", *grammar.VOICES)
SUSTAINED = ("strings", "synth pad")
RHYTHMIC = ("piano", "acoustic guitar", "distorted electric guitar")
# MIDI note of C in the octave where an instrument's melody or chords lie
_REGISTER = {
    "piano": 60, "acoustic guitar": 48, "distorted electric guitar": 36, "strings": 60, "flute": 72,
    "trumpet": 60, "bass": 36, "synth lead": 72, "synth pad": 48, "deep male voice": 48,
    "bright female voice": 60,
}  # fmt: skip


class Note(NamedTuple):
    """One sound: start and length in frames, MIDI pitch (0 for percussion), velocity in (0, 1]."""

    start: int
    instrument: str
    pitch: int
    length: int
    velocity: float


class Style(NamedTuple):
    """How a genre plays. Patterns have 16 steps of a quarter beat: one bar of four beats."""

    mode: str  # scale when no mood asks for one
    degrees: tuple[int, ...]  # chord of every two beats, as scale degrees from 0
    seventh: bool  # chords have four tones
    swing: bool  # the off-beat quaver comes at 2/3 of the beat
    kick: str
    snare: str
    hat: str
    comp: str  # where rhythmic instruments play
    comp_beats: float  # how long their chords last
    broken: bool  # they play the chord tone by tone
    bass: str
    walk: tuple[int, ...]  # semitones above the chord's root, in turn


STYLES = {
    "blues": Style(
        "major", (0, 0, 3, 0, 4, 3), True, True,
        "x.......x.......", "....x.......x...", "x.x.x.x.x.x.x.x.",
        "x.x.x.x.x.x.x.x.", 0.3, False, "x...x...x...x...", (0, 4, 7, 9),
    ),
    "classical": Style(
        "major", (0, 3, 4, 0, 5, 1), False, False,
        "x...............", "................", "................",
        "x.x.x.x.x.x.x.x.", 1.0, True, "x.......x.......", (0,),
    ),
    "country": Style(
        "major", (0, 0, 3, 4), False, False,
        "x.......x.......", "....x.......x...", "..x...x...x...x.",
        "....x.x.....x.x.", 0.4, False, "x.......x.......", (0, 7),
    ),
    "disco": Style(
        "minor", (0, 0, 5, 6), False, False,
        "x...x...x...x...", "....x.......x...", "..x...x...x...x.",
        "..x...x...x..xx.", 0.25, False, "x.x.x.x.x.x.x.x.", (0, 12),
    ),
    "hip hop": Style(
        "minor", (0, 0, 5, 5), False, False,
        "x..x......x.....", "....x.......x...", "x.x.x.x.x.x.xxxx",
        "x.......x.......", 1.5, False, "x..x......x.....", (0,),
    ),
    "jazz": Style(
        "major", (1, 4, 0, 5), True, True,
        "x...............", "......x.......x.", "x...x.x.x...x.x.",
        "x.....x.......x.", 0.5, False, "x...x...x...x...", (0, 3, 7, 10),
    ),
    "metal": Style(
        "minor", (0, 0, 5, 6), False, False,
        "xxxxx.xxxxxxx.xx", "....x.......x...", "x...x...x...x...",
        "x.xxx.xxx.xxx.xx", 0.3, False, "x.xxx.xxx.xxx.xx", (0,),
    ),
    "pop": Style(
        "major", (0, 4, 5, 3), False, False,
        "x.....x.x.......", "....x.......x...", "x.x.x.x.x.x.x.x.",
        "x...x...x...x...", 0.9, False, "x.....x.x.....x.", (0,),
    ),
    "reggae": Style(
        "major", (0, 3, 0, 4), False, False,
        "........x.......", "........x.......", "x.x.x.x.x.x.x.x.",
        "..x...x...x...x.", 0.2, False, "x..x..x.....x.x.", (0, 0, 7, 4),
    ),
    "rock": Style(
        "minor", (0, 6, 5, 6), False, False,
        "x.......x.x.....", "....x.......x...", "x.x.x.x.x.x.x.x.",
        "x.x.x.x.x.x.x.x.", 0.5, False, "x.x.x.x.x.x.x.x.", (0,),
    ),
}  # fmt: skip


class Feel(NamedTuple):
    """How a mood plays."""

    mode: str | None  # scale it asks for
    level: float  # loudness in (0, 1]
    length: float  # articulation: factor on note lengths
    tilt_db: float  # brightness: gain per octave above 1 kHz
    echo: float  # share of the sound that comes back after five frames


FEELS = {
    "happy": Feel("major", 0.8, 0.8, 0.5, 0.0),
    "sad": Feel("minor", 0.45, 1.3, -1.0, 0.1),
    "calm": Feel(None, 0.3, 1.4, -1.5, 0.1),
    "energetic": Feel(None, 1.0, 0.8, 1.0, 0.0),
    "dark": Feel("minor", 0.7, 1.1, -2.5, 0.1),
    "romantic": Feel("major", 0.5, 1.4, -0.5, 0.1),
    "aggressive": Feel("minor", 1.0, 0.7, 1.5, 0.0),
    "dreamy": Feel("major", 0.4, 1.6, -0.5, 0.45),
    "groovy": Feel(None, 0.8, 0.6, 0.0, 0.0),
    "mellow": Feel(None, 0.4, 1.1, -1.5, 0.0),
    "playful": Feel("major", 0.7, 0.5, 1.0, 0.0),
    "mysterious": Feel("minor", 0.4, 1.3, -1.0, 0.3),
}
_NEUTRAL = Feel(None, 0.7, 1.0, 0.0, 0.0)


class Arrangement(NamedTuple):
    """A clip's notes and what the mix needs to know."""

    notes: list[Note]
    beat_frames: int
    feel: Feel


def arrange(tags: dict[str, list[str]], rng: np.random.Generator, *, frames: int) -> Arrangement:
    """Compose `frames` frames of music that has exactly the tagged instruments.

    A set without genre or tempo gets one by chance, as its caption leaves it open. A set without
    any pitched instrument gets the genre's usual one.
    """
    genre = str(rng.choice(tags.get("genre") or grammar.TAXONOMY["genre"]))
    tempo = str(rng.choice(tags.get("tempo") or grammar.TAXONOMY["tempo"]))
    beat = int(rng.choice(BEAT_FRAMES[tempo]))
    style, feel = STYLES[genre], blend([FEELS[mood] for mood in tags.get("mood", [])])
    band = [tag for tag in tags.get("instrument", []) if not tag.startswith("no ")]
    if not set(band) - set(grammar.PERCUSSION):
        band.append(grammar.usual_instrument(genre))
    scale = np.array(_SCALES[feel.mode or style.mode]) + int(rng.choice(_TONICS))
    blocks = -(-frames // (2 * beat))  # chords, two beats each
    offset = 2 * int(rng.integers(2))  # the clip starts at the progression's first or third chord
    chords = [style.degrees[(block + offset) % len(style.degrees)] for block in range(blocks)]
    notes = _percussion(band, style, beat=beat, frames=frames)
    if "bass" in band:
        notes += _bass(chords, scale, style, beat=beat, frames=frames)
    notes += _accompany(band, chords, scale, style, feel, beat=beat, frames=frames)
    notes += _melody(band, chords, scale, feel, rng, beat=beat)
    return Arrangement([note for note in notes if note.start < frames], beat, feel)


def blend(feels: list[Feel]) -> Feel:
    """Average the moods of a set; the first that asks for a scale gets it."""
    if not feels:
        return _NEUTRAL
    mode = next((feel.mode for feel in feels if feel.mode), None)
    return Feel(mode, *(float(np.mean(values)) for values in list(zip(*feels, strict=True))[1:]))


def _hits(pattern: str, *, beat: int, frames: int, swing: bool = False) -> list[int]:
    """Return the frames of a pattern's hits, bar after bar."""
    late = 2 / 3 if swing else 1 / 2
    offsets = (0.0, 0.25, late, 0.75)
    steps = [
        bar * 4 * beat + round((step // 4 + offsets[step % 4]) * beat)
        for bar in range(-(-frames // (4 * beat)))
        for step, mark in enumerate(pattern)
        if mark == "x"
    ]
    return [frame for frame in steps if frame < frames]


def _length(frames: float) -> int:
    return max((length for length in _LENGTHS if length <= frames), default=_LENGTHS[0])


def _percussion(band: list[str], style: Style, *, beat: int, frames: int) -> list[Note]:
    notes = []
    if "drums" in band:
        for piece, pattern, velocity in (
            ("kick", style.kick, 1.0),
            ("snare", style.snare, 0.8),
            ("hat", style.hat, 0.4),
        ):
            hits = _hits(pattern, beat=beat, frames=frames, swing=style.swing)
            notes += [Note(frame, piece, 0, 6, velocity) for frame in hits]
    if "claps" in band:  # on two and four, whatever the drums do
        hits = _hits("....x.......x...", beat=beat, frames=frames)
        notes += [Note(frame, "claps", 0, 6, 0.8) for frame in hits]
    return notes


def _bass(chords, scale, style: Style, *, beat: int, frames: int) -> list[Note]:
    notes = []
    for i, frame in enumerate(_hits(style.bass, beat=beat, frames=frames, swing=style.swing)):
        root = _REGISTER["bass"] + scale[chords[frame // (2 * beat)]] % 12
        pitch = int(root + style.walk[i % len(style.walk)])
        notes.append(Note(frame, "bass", pitch, _length(0.9 * beat), 0.9))
    return notes


def _accompany(band, chords, scale, style, feel, *, beat: int, frames: int) -> list[Note]:
    """Play the chords: sustained by strings and pads, in the genre's pattern by the others."""
    notes = []
    for instrument in band:
        if instrument in SUSTAINED:
            for block, degree in enumerate(chords):
                pitches = _chord(scale, degree, instrument, seventh=style.seventh)
                length = _length(2 * beat)
                notes += [Note(block * 2 * beat, instrument, p, length, 0.4) for p in pitches]
        elif instrument in RHYTHMIC:
            hits = _hits(style.comp, beat=beat, frames=frames, swing=style.swing)
            length = _length(style.comp_beats * feel.length * beat)
            for i, frame in enumerate(hits):
                degree = chords[frame // (2 * beat)]
                pitches = _chord(scale, degree, instrument, seventh=style.seventh)
                if style.broken:
                    pitches = [pitches[i % len(pitches)]]
                notes += [Note(frame, instrument, p, length, 0.5) for p in pitches]
    return notes


def _chord(scale, degree: int, instrument: str, *, seventh: bool) -> list[int]:
    if instrument == "distorted electric guitar":  # its sound is a fifth already
        return [int(_REGISTER[instrument] + scale[degree] % 12)]
    tones = [degree + third for third in ((0, 2, 4, 6) if seventh else (0, 2, 4))]
    return [int(_REGISTER[instrument] + scale[tone % 7] % 12) for tone in tones]


_RHYTHMS = (  # (start, length) in beats, filling two beats
    ((0, 1), (1, 1)),
    ((0, 0.5), (0.5, 0.5), (1, 1)),
    ((0, 1.5), (1.5, 0.5)),
    ((0, 0.5), (0.5, 0.5), (1, 0.5), (1.5, 0.5)),
)


def _melody(band, chords, scale, feel, rng: np.random.Generator, *, beat: int) -> list[Note]:
    """Walk on the scale from a chord tone; melodic instruments take turns, two beats each.

    Without a melodic instrument the first of the others plays it, an octave up.
    """
    singers = [tag for tag in band if tag in MELODIC]
    others = [tag for tag in band if tag in SUSTAINED or tag in RHYTHMIC]
    octave = 0 if singers else 12
    singers = singers or others[:1]
    notes = []
    for block, degree in enumerate(chords if singers else []):
        instrument = singers[block % len(singers)]
        place = degree + int(rng.choice((0, 2, 4)))
        for start, length in _RHYTHMS[rng.integers(len(_RHYTHMS))]:
            pitch = _REGISTER[instrument] + octave + int(scale[place % 7]) % 12
            frame = block * 2 * beat + round(start * beat)
            held = _length(min(1.0, feel.length) * length * beat)
            notes.append(Note(frame, instrument, pitch, held, 0.8))
            place += int(rng.choice((-2, -1, 1, 2)))
    return notes
