"""The fields of the hub folder's tables: names, types and what each one holds."""

from typing import NamedTuple

from datasets import Audio, Features, List, Value

from conceptcaps.categories import PRESENT_PROB_OF, TAGS_OF

STRINGS = List(Value("string"))


class Field(NamedTuple):
    """One column: its name, its type in the datasets library, its content for readers."""

    name: str
    feature: Value | List | Audio
    content: str


_TAGS_ARE = {
    "genre": "the tags that are genres",
    "mood": "the tags that are moods",
    "instrument": "the tags that name instruments or voices",
    "tempo": "the tags about tempo",
}
PUBLISHED = (  # as in the card of the published data set, in its order
    Field("id", Value("string"), "identifier of the row, unique in the data set"),
    Field("caption", Value("string"), "English description written from the tags"),
    Field("aspect_list", Value("string"), "all tags, as a printed Python list"),
    *(Field(TAGS_OF[category], STRINGS, content) for category, content in _TAGS_ARE.items()),
)
AUDIO = Field("file_name", Audio(), "the clip, mono 16-bit FLAC; only in the configs with audio")
RECORD = (  # this workflow's additions, behind them
    Field("split", Value("string"), "`train`, `validation` or `test`: the split it lies in"),
    Field("clap_score", Value("float64"), "CLAP's cosine between caption and clip, -1 to 1"),
    *(
        Field(
            column,
            List(Value("float32")),
            f"probability, 0 to 1, that each tag of `{TAGS_OF[category]}` is heard in the clip, by "
            "the concept audit; null: it cannot judge the tag, or did not run",
        )
        for category, column in PRESENT_PROB_OF.items()
    ),
    Field(
        "verified",
        Value("bool"),
        "whether the clip has a tag whose listener was checked on labelled clips, and the audit "
        "hears all such tags; null: it did not run",
    ),
    Field("seed", Value("uint64"), "seed of the clip"),
    Field("duration_s", Value("float64"), "length of the clip in seconds"),
    Field("caption_model", Value("string"), "language model, as id@revision"),
    Field("audio_model", Value("string"), "music model, as id@revision"),
    Field("licence", Value("string"), "licence of the row, a hub identifier"),
    Field("provenance", Value("string"), "identifier of the run that made the row"),
)
CODES = (
    Field(
        "codes",
        Value("binary"),
        "EnCodec codes of the clip, little-endian int16 [codebooks, frames]; only with audio",
    ),
    Field("codebooks", Value("int16"), "number of codebooks in `codes`; only with audio"),
)
TEXT_FIELDS = (*PUBLISHED, *RECORD)
AUDIO_FIELDS = (*PUBLISHED, AUDIO, *RECORD, *CODES)


def features(fields: tuple[Field, ...]) -> Features:
    """Return the fields as the datasets library's features."""
    return Features({field.name: field.feature for field in fields})


def type_name(feature: Value | List | Audio) -> str:
    """Return a type as the card prints it: 'string', 'list of string', 'Audio'."""
    if isinstance(feature, List):
        return f"list of {feature.feature.dtype}"
    return "Audio" if isinstance(feature, Audio) else feature.dtype
