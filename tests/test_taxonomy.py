from pathlib import Path

import pytest

from conceptcaps.errors import InputError
from conceptcaps.schemas import CATEGORIES
from conceptcaps.taxonomy import by_category, load_exclusive, load_taxonomy, vocabulary

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
