import numpy as np
import pytest
import tiny_models

from conceptcaps import gate, grammar, io, wording
from conceptcaps.errors import InputError
from conceptcaps.mentions import Mentions

SPEC = gate.Spec(
    drafts=8,
    min_words=3,
    max_words=30,
    min_tag_recall=1.0,
    max_unasked_tags=0,
    min_english=0.15,
    max_copied_words=4,
    artist_patterns=True,
    artists=None,
)
FIND = Mentions(["drums", "no drums", "piano", "jazz", "slow tempo"], {"drums": ["percussion"]})
TRAINING = ["The band plays on and on until the night ends."]


def judge(caption, tags, **changes):
    spec = gate.Spec(**{**vars(SPEC), **changes})
    return gate.Gate(spec, mentions=FIND, training=TRAINING).judge(caption, tags)


@pytest.mark.parametrize(
    ("caption", "tags", "status", "reason"),
    [
        ("This is jazz with a piano.", ["jazz", "piano"], "ok", ""),
        ("This is jazz with percussion.", ["jazz", "drums"], "ok", ""),
        ("Jazz piano.", ["jazz", "piano"], "too_short", "2 words"),
        ("This is jazz " * 20, ["jazz"], "too_long", "60 words"),
        ("This is jazz with a piano.", ["jazz", "drums"], "missing_tags", "not named: drums"),
        ("This is jazz without drums.", ["jazz", "drums"], "missing_tags", "denied: drums"),
        ("This is jazz without drums.", ["jazz", "no drums"], "ok", ""),
        ("This is jazz with a piano.", ["jazz"], "unasked_tags", "not asked for: piano"),
        ("Dies ist langsamer jazz mit Geige und Horn.", ["jazz"], "not_english", "0.00"),
        ("This is jazz in the style of Miles Davis.", ["jazz"], "artist", "Miles Davis"),
        ("It is jazz. The band plays on and on.", ["jazz"], "copied", "the band plays on and"),
        ("It is jazz. The band plays on.", ["jazz"], "ok", ""),
        ("", ["jazz"], "too_short", "0 words"),
    ],
)
def test_each_check_has_its_reason(caption, tags, status, reason):
    verdict = judge(caption, tags)
    assert verdict.status == status
    assert reason in verdict.reason
    assert (verdict.reason == "") == (status == "ok")


def test_thresholds_are_shares_and_null_switches_off():
    assert judge("This is jazz with a bass.", ["jazz", "piano"], min_tag_recall=0.5).status == "ok"
    assert judge("This is jazz with a bass.", ["jazz", "piano"]).recall == 0.5
    assert judge("This is a song.", []).recall is None
    off = gate.ungated(SPEC)
    caption = "Sung by Adele: the band plays on and on with a piano und so weiter."
    assert gate.Gate(off, mentions=FIND, training=TRAINING).judge(caption, ["jazz"]).status == "ok"
    assert off.drafts == 1


def test_names_from_a_file(tmp_path):
    names = tmp_path / "artists.txt"
    names.write_text("# known\nThe Beatles\n")
    found = judge("This is jazz as The Beatles play it.", ["jazz"], artists=str(names))
    assert (found.status, found.reason) == ("artist", "names an artist: The Beatles")
    with pytest.raises(InputError, match=r"captioner\.gate\.artists"):
        judge("", [], artists=str(tmp_path / "none.txt"))


def test_captions_that_name_their_tags_pass_in_the_miniature():
    rng = np.random.default_rng(5)
    spec = gate.Spec(**{**vars(SPEC), "max_copied_words": None, "max_words": 80})
    taxonomy = [tag for tags in grammar.TAXONOMY.values() for tag in tags]
    of_mini = gate.Gate(spec, mentions=Mentions(taxonomy))
    statuses = []
    for _ in range(300):
        tags = [tag for group in grammar.sample_tags(rng).values() for tag in group]
        verdict = of_mini.judge(wording.write_caption(tags, rng, style="concise"), tags)
        statuses.append(verdict.status)
        assert (verdict.status == "ok") == (verdict.recall == 1), verdict
    assert 0.8 < np.mean([status == "ok" for status in statuses]) < 0.98


def test_only_the_datasets_own_arm_is_gated(tmp_path):
    pairs = tiny_models.write_pairs(tmp_path / "pairs.parquet")
    known = dict(taxonomy="resources/mini/taxonomy.yaml", pairs=pairs)
    own, other = (gate.of_arm(arm, SPEC, **known) for arm in ("conceptcaps", "base"))
    copied = io.read_rows(pairs)[0]["caption"]
    tags = ["jazz", "piano"]
    assert own.judge(copied, tags).status == "copied"
    assert other.judge(copied, tags).status == "ok"
