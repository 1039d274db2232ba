"""The miniature world's language: planted rules hold, captions name tags by their words."""

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from conceptcaps import grammar, wording
from conceptcaps.categories import CATEGORIES
from conceptcaps.errors import InputError
from conceptcaps.schemas import CLIPS
from conceptcaps.taxonomy import load_exclusive

ROOT = Path(__file__).resolve().parent.parent
MANY = 2000


@pytest.fixture(scope="module")
def tag_sets():
    rng = np.random.default_rng(0)
    return [grammar.sample_tags(rng) for _ in range(MANY)]


def flat(tags):
    return [tag for group in tags.values() for tag in group]


def test_taxonomy_file_equals_the_grammar():
    path = ROOT / "resources/mini/taxonomy.yaml"
    assert load_exclusive(path) == [list(group) for group in grammar.EXCLUSIVE]
    taxonomy = yaml.safe_load(path.read_text())
    del taxonomy["exclusive"]
    assert taxonomy == {category: list(tags) for category, tags in grammar.TAXONOMY.items()}
    assert list(taxonomy) == list(CATEGORIES)


def test_no_tag_is_part_of_another():
    tags = list(grammar.CATEGORY_OF)
    assert not [(a, b) for a in tags for b in tags if a != b and a in b]


def test_exclusive_tags_never_meet(tag_sets):
    assert all(grammar.compatible(flat(tags)) for tags in tag_sets)
    assert not grammar.compatible(["claps", "no percussion"])
    assert all(len(tags["genre"]) <= 1 and len(tags["tempo"]) <= 1 for tags in tag_sets)


def test_most_sets_cover_three_categories_and_all_tags_occur(tag_sets):
    covered = [sum(bool(group) for group in tags.values()) for tags in tag_sets]
    assert np.mean(np.array(covered) >= 3) > 0.97
    assert {tag for tags in tag_sets for tag in flat(tags)} == set(grammar.CATEGORY_OF)


def test_planted_co_occurrence_is_found(tag_sets):
    def share(tag, genre):
        sets = [flat(tags) for tags in tag_sets if tags["genre"] == [genre]]
        return np.mean([tag in tags for tags in sets])

    assert share("distorted electric guitar", "metal") > 0.85  # planted: 0.95
    assert share("distorted electric guitar", "classical") == 0
    assert share("fast tempo", "disco") > 0.5 > share("fast tempo", "blues") + 0.3
    assert share("no percussion", "classical") > 0.4 > share("no percussion", "disco") + 0.2


def test_log_likelihood_matches_the_frequencies_of_draws():
    draws = 40_000
    rng = np.random.default_rng(5)
    sets = [grammar.sample_tags(rng) for _ in range(draws)]
    counts = Counter(tuple(flat(tags)) for tags in sets)
    for drawn, count in counts.most_common(40):
        chance = np.exp(grammar.log_likelihood(grammar.by_category(list(drawn))))
        error = np.sqrt(chance * (1 - chance) / draws)
        assert abs(count / draws - chance) < 5 * error, drawn
    assert all(np.isfinite(grammar.log_likelihood(tags)) for tags in sets[:2000])


def test_chances_of_all_classical_sets_sum_to_the_genres():
    _, moods, players, _ = grammar.PROFILES["classical"]
    of_moods = [[], *([mood] for mood in moods), *itertools.combinations(moods, 2)]
    extras = [*players, *grammar.NONE_OF, *grammar.VOICES]
    bands = [
        band for size in range(len(extras) + 1) for band in itertools.combinations(extras, size)
    ]

    def chance(**tags):
        whole = {"genre": ["classical"], "mood": [], "instrument": ["strings"], "tempo": []}
        whole = grammar.by_category([t for g in (whole | tags).values() for t in g])
        return np.exp(grammar.log_likelihood(whole))

    # The categories are independent given the genre: their sums multiply.
    base = chance()
    total = base
    for sets in (
        [chance(mood=list(group)) for group in of_moods],
        [chance(instrument=list(band)) for band in bands],
        [chance(tempo=[tag] if tag else []) for tag in ("", *grammar.TAXONOMY["tempo"])],
    ):
        total *= sum(sets) / base
    assert total == pytest.approx(0.96 / 10, rel=1e-9)


@pytest.mark.parametrize(
    "tags",
    [
        ["rock", "jazz", "piano"],
        ["metal", "drums", "distorted electric guitar", "no percussion"],
        ["reggae", "bass", "fast tempo"],
        ["jazz", "piano", "aggressive"],
        ["jazz", "piano", "deep male voice", "no voices"],
        ["disco", "drums"],
    ],
)
def test_impossible_sets_have_no_likelihood(tags):
    assert grammar.log_likelihood(grammar.by_category(tags)) == -np.inf


def test_unknown_tags_have_no_likelihood_but_an_error():
    with pytest.raises(InputError, match="'pianos'"):
        grammar.log_likelihood({"instrument": ["pianos"]})


def test_a_fifth_of_the_sets_is_held_out(tag_sets):
    assert np.mean([grammar.is_held_out(tags) for tags in tag_sets]) == pytest.approx(0.2, abs=0.04)
    rng = np.random.default_rng(6)
    for part in (True, False):
        drawn = [grammar.sample_part(rng, held_out=part) for _ in range(50)]
        assert all(grammar.is_held_out(tags) == part for tags in drawn)
    shuffled = {"instrument": ["piano", "bass"], "genre": ["jazz"]}
    assert grammar.is_held_out(shuffled) == grammar.is_held_out(
        {"genre": ["jazz"], "instrument": ["bass", "piano"]}
    )


def test_given_genre_is_always_there():
    rng = np.random.default_rng(1)
    sets = [grammar.sample_tags(rng, genre="hip hop") for _ in range(200)]
    assert all(tags["genre"] == ["hip hop"] for tags in sets)
    with pytest.raises(InputError, match="Did you mean 'hip hop'"):
        grammar.sample_tags(rng, genre="hiphop")


@pytest.mark.parametrize(
    ("style", "recall", "words"), [("concise", 0.98, (20, 40)), ("verbose", 0.85, (40, 70))]
)
def test_captions_name_tags_and_nothing_else(tag_sets, style, recall, words):
    rng = np.random.default_rng(2)
    named = total = 0
    for tags in tag_sets:
        caption, given = wording.write_caption(tags, rng, style=style), flat(tags)
        assert words[0] <= len(caption.split()) <= words[1], caption
        found = [tag for tag in grammar.CATEGORY_OF if tag in caption]
        assert set(found) <= set(given), caption
        named, total = named + len(found), total + len(given)
    assert named / total == pytest.approx(recall, abs=0.01)


def test_captions_are_written_properly(tag_sets):
    rng = np.random.default_rng(3)
    for tags in tag_sets[:500]:
        caption = wording.write_caption(tags, rng, style="concise")
        assert re.fullmatch(r"([A-Z][a-z]*( |, |\. )?|[a-z]+( |, |\. )?)+\.", caption), caption
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption, re.IGNORECASE), caption


def test_flat_tags_write_the_same_caption_and_unknown_ones_are_named(tag_sets):
    tags = tag_sets[0]
    captions = [
        wording.write_caption(given, np.random.default_rng(4), style="concise")
        for given in (tags, flat(tags))
    ]
    assert captions[0] == captions[1]
    with pytest.raises(InputError, match=r"'pianos' is not in the grammar\. Did you mean 'piano'"):
        wording.write_caption(["pianos"], np.random.default_rng(0), style="concise")


def test_corpus_rows_do_not_depend_on_their_number():
    rows = wording.corpus(400, 7)
    assert wording.corpus(30, 7) == rows[:30]
    assert wording.corpus(30, 8) != rows[:30]
    assert pa.Table.from_pylist(rows, CLIPS).to_pylist() == rows
    assert len({row["ytid"] for row in rows}) == 400
    assert all(len(row["ytid"]) == 11 for row in rows)


def test_corpus_has_noise_and_rows_with_too_few_categories():
    rows = wording.corpus(1000, 7)
    covered = [
        len({grammar.CATEGORY_OF[a] for a in row["aspect_list"] if a in grammar.CATEGORY_OF})
        for row in rows
    ]
    assert np.mean(np.array(covered) < 3) == pytest.approx(0.1, abs=0.03)
    assert any("low quality" in row["aspect_list"] for row in rows)
