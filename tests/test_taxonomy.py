import os
from collections import Counter
from pathlib import Path

import pytest

from conceptcaps.categories import CATEGORIES
from conceptcaps.errors import InputError
from conceptcaps.musiccaps import read_csv
from conceptcaps.taxonomy import (
    by_category,
    load_aliases,
    load_exclusive,
    load_implications,
    load_lookup,
    load_taxonomy,
    normalise,
    vocabulary,
)

ROOT = Path(__file__).resolve().parent.parent
GOOD = "genre: [Jazz, rock]\nmood: [sad]\ninstrument: [piano]\ntempo: [slow  tempo]\n"


def write(tmp_path, text):
    path = tmp_path / "taxonomy.yaml"
    path.write_text(text)
    return path


def test_tags_are_normalised_and_ordered(tmp_path):
    taxonomy = load_taxonomy(write(tmp_path, GOOD))
    assert vocabulary(taxonomy) == ["jazz", "rock", "sad", "piano", "slow tempo"]
    assert by_category(["piano", "nothing", "rock", "jazz"], taxonomy) == {
        "genre": ["jazz", "rock"],
        "mood": [],
        "instrument": ["piano"],
        "tempo": [],
    }


def test_json_is_read_too(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('{"genre": ["jazz"], "mood": ["sad"], "instrument": ["a"], "tempo": ["b"]}')
    assert load_taxonomy(path)["genre"] == ["jazz"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "style: [x]\n", "unknown category 'style'"),
        (GOOD.replace("mood: [sad]", "mood: [JAZZ]"), "tag 'jazz' is in category 'genre' and in"),
        (GOOD.replace("[sad]", "[]"), "category 'mood' needs a list with at least one tag"),
        (GOOD.replace("mood: [sad]\n", ""), "category 'mood' needs a list"),
        (GOOD.replace("[sad]", "[80]"), "category 'mood' holds 80, which is not text"),
        ("genre: [", "cannot be read as YAML"),
        ("- jazz", "must map each category to its tags"),
    ],
)
def test_broken_taxonomy_is_explained(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_taxonomy(write(tmp_path, text))


def test_exclusive_groups_are_read(tmp_path):
    path = write(tmp_path, GOOD + "exclusive: [[JAZZ, rock]]\n")
    assert load_exclusive(path) == [["jazz", "rock"]]
    assert load_exclusive(write(tmp_path, GOOD)) == []
    assert set(load_taxonomy(path)) == set(CATEGORIES)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("[jazz, rock]", "must be a list of groups"),
        ("{jazz: rock}", "must be a list of groups"),
        ("[[jazz]]", "two or more tags, each once"),
        ("[[jazz, jazz]]", "two or more tags, each once"),
        ("[[jazz, rok]]", "'rok', which is no tag of the taxonomy. Did you mean 'rock'"),
    ],
)
def test_broken_groups_are_explained(tmp_path, groups, message):
    with pytest.raises(InputError, match=message):
        load_exclusive(write(tmp_path, GOOD + f"exclusive: {groups}\n"))


def test_the_projects_own_taxonomy_is_four_times_fifty():
    taxonomy = load_taxonomy(ROOT / "resources/taxonomy.yaml")
    assert {category: len(taxonomy[category]) for category in CATEGORIES} == dict.fromkeys(
        CATEGORIES, 50
    )


def test_aliases_and_implications_are_read(tmp_path):
    text = GOOD.replace("[Jazz, rock]", "{Jazz: [Bebop], rock: []}")
    text += "implies: {slow tempo: [sad], sad: [piano]}\n"
    path = write(tmp_path, text + "compounds: [{tags: [jazz, rock], aspects: [jazz rock]}]\n")
    assert load_aliases(path) == {"jazz": ["bebop", "jazz rock"], "rock": ["jazz rock"]}
    assert load_implications(path) == {"slow tempo": ["piano", "sad"], "sad": ["piano"]}
    assert load_lookup(path).of("Jazz  rock") == ["jazz", "rock"]
    assert load_aliases(write(tmp_path, GOOD)) == load_implications(write(tmp_path, GOOD)) == {}


def test_plain_lists_match_exactly_and_aliases_do_not(tmp_path):
    exact = load_lookup(write(tmp_path, GOOD))
    assert exact.of("Jazz") == ["jazz"] and exact.of("slow  tempo") == ["slow tempo"]
    assert exact.of("jazz") == exact.of("slow tempo") == exact.of("Rock") == []
    loose = load_lookup(write(tmp_path, GOOD.replace("[Jazz, rock]", "{Jazz: [], rock: []}")))
    assert all(loose.of(name) == ["jazz"] for name in ("Jazz", "jazz", " JAZZ "))


@pytest.mark.parametrize(
    ("genre", "rest", "message"),
    [
        ("{jazz: [bop], rock: [bop]}", "", "alias 'bop' is under 'jazz' and under 'rock', both in"),
        ("{jazz: [bop, bop]}", "", "lists the alias 'bop' twice"),
        ("{jazz: [sad]}", "", "alias 'sad' is itself a tag"),
        ("{jazz: bop}", "", "must be a list"),
        (
            "[jazz]",
            "implies: {jazz: [sed]}",
            "'sed', which is no tag of the taxonomy. Did you mean",
        ),
        ("[jazz]", "implies: {jazz: [sad], sad: [jazz]}", "goes round in a circle"),
        ("[jazz]", "implies: {jazz: [sad, piano]}\nexclusive: [[sad, piano]]", "in one group"),
        ("[jazz]", "compounds: [{tags: [jazz], aspects: [x]}]", "needs two or more tags"),
    ],
)
def test_broken_relations_are_explained(tmp_path, genre, rest, message):
    path = write(tmp_path, GOOD.replace("[Jazz, rock]", genre) + rest + "\n")
    with pytest.raises(InputError, match=message):
        load_lookup(path)


def test_the_projects_own_taxonomy_covers_the_real_table():
    table = os.environ.get("MUSICCAPS_CSV")
    if not table:
        pytest.skip("set MUSICCAPS_CSV to the path of musiccaps-public.csv to run this")
    path = ROOT / "resources/taxonomy.yaml"
    lookup = load_lookup(path)
    rows = [{normalise(a) for a in row["aspect_list"]} for row in read_csv(table)]
    counts = Counter(aspect for row in rows for aspect in row)
    aliases = {alias for names in load_aliases(path).values() for alias in names}
    assert sorted(aliases - set(counts)) == []  # every alias occurs
    covered = sum(count for aspect, count in counts.items() if lookup.of(aspect))
    assert covered / sum(counts.values()) > 0.65
    assert sum(any(map(lookup.of, row)) for row in rows) / len(rows) > 0.97
