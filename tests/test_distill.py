import random

import pytest

from conceptcaps import distill
from conceptcaps.cleanup import clean_caption
from conceptcaps.errors import InputError
from conceptcaps.io import read_json, read_rows, write_table
from conceptcaps.schemas import CLIPS

TAXONOMY = "genre: [jazz, rock]\nmood: [sad, happy]\ninstrument: [piano, drums]\ntempo: [slow]\n"


def clip(ytid, aspects, caption="Some  music."):
    return {name: None for name in CLIPS.names} | {
        "ytid": ytid,
        "aspect_list": aspects,
        "caption": caption,
    }


def run(tmp_path, rows, min_categories=3, heldout=None, taxonomy=TAXONOMY):
    (tmp_path / "taxonomy.yaml").write_text(taxonomy)
    write_table(tmp_path / "clips.parquet", rows, CLIPS)
    distill.distill(
        clips=tmp_path / "clips.parquet",
        taxonomy_file=tmp_path / "taxonomy.yaml",
        spec=distill.Spec(min_categories, heldout or {"validation": 0.2, "test": 0.2}),
        seed=7,
        pairs=tmp_path / "pairs.parquet",
        ledger=tmp_path / "ledger.parquet",
        taxonomy=tmp_path / "taxonomy.json",
    )
    return read_rows(tmp_path / "pairs.parquet"), read_rows(tmp_path / "ledger.parquet")


def test_rows_are_kept_by_covered_categories_and_dropped_with_a_reason(tmp_path):
    pairs, ledger = run(
        tmp_path,
        [
            clip("a", ["Jazz ", "sad", "PIANO", "noisy"]),
            clip("b", ["jazz", "rock", "sad"]),
            clip("c", ["noisy"]),
            clip("d", ["rock", "happy", "slow"], caption="  "),
        ],
        taxonomy=TAXONOMY.replace("[jazz, rock]", "{jazz: [], rock: []}"),
    )
    assert [p["ytid"] for p in pairs] == ["a"]
    assert pairs[0]["aspect_list"] == ["jazz", "piano", "sad"]
    assert pairs[0]["genre_aspects"] == ["jazz"] and pairs[0]["tempo_aspects"] == []
    assert pairs[0]["caption"] == "Some music."
    assert [(r["ytid"], r["status"]) for r in ledger] == [
        ("a", "ok"),
        ("b", "dropped"),
        ("c", "dropped"),
        ("d", "dropped"),
    ]
    assert ledger[1]["reason"] == "too few categories: tags from 2 (genre, mood), 3 needed"
    assert ledger[3]["reason"].startswith("empty caption")
    assert read_json(tmp_path / "taxonomy.json")["tempo"] == ["slow"]


def test_no_tag_set_is_in_two_splits_and_row_order_does_not_matter(tmp_path):
    rng = random.Random(0)
    tags = ["jazz", "rock", "sad", "happy", "piano", "drums", "slow"]
    rows = [clip(f"{i:03d}", rng.sample(tags, 5)) for i in range(120)]
    pairs, _ = run(tmp_path, rows)
    splits = {}
    for pair in pairs:
        splits.setdefault(tuple(pair["aspect_list"]), set()).add(pair["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert {s for found in splits.values() for s in found} == {"train", "validation", "test"}
    before = (tmp_path / "pairs.parquet").read_bytes()
    rng.shuffle(rows)
    run(tmp_path, rows)
    assert (tmp_path / "pairs.parquet").read_bytes() == before


def test_split_counts_are_rounded_shares():
    splits = distill.split_tag_sets(
        [f"{i}" for i in range(200)], shares={"validation": 0.15, "test": 0.15}, seed=1
    )
    assert sorted(splits.values()).count("train") == 140
    other = distill.split_tag_sets(
        [f"{i}" for i in range(200)], shares={"validation": 0.15, "test": 0.15}, seed=2
    )
    assert splits != other


def test_tag_set_id_ignores_order_and_separates_sets():
    assert distill.tag_set_id(["a", "b"]) == distill.tag_set_id(["b", "a"])
    assert distill.tag_set_id(["a", "b"]) != distill.tag_set_id(["a b"])


def test_a_taxonomy_that_keeps_nothing_is_an_error(tmp_path):
    with pytest.raises(
        InputError,
        match=r"keeps none of the 1 clips.*no aspect is spelt like any tag of mood",
    ):
        run(tmp_path, [clip("a", ["jazz"])])


def test_aliases_and_implications_count_and_contradictions_are_dropped(tmp_path):
    text = (
        "genre: {jazz: [bebop], rock: []}\nmood: {sad: [sad mood], happy: []}\n"
        "instrument: {piano: [jazz piano], drums: []}\ntempo: [slow]\n"
        "implies: {sad: [slow]}\nexclusive: [[sad, happy]]\n"
    )
    rows = [
        clip("a", ["Bebop", "sad mood", "jazz piano"]),
        clip("b", ["bebop", "sad mood", "happy"]),
        clip("c", ["bebop", "sad mood", "jazz piano"]),
    ]
    pairs, ledger = run(tmp_path, rows, taxonomy=text)
    assert [pair["aspect_list"] for pair in pairs] == [["jazz", "piano", "sad", "slow"]]
    assert ledger[1]["reason"] == "contradiction: happy and sad"
    assert ledger[2]["reason"] == "duplicate: caption and tags of a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The low quality recording features a flute.", "The recording features a flute."),
        ("A harp  plays. The recording is noisy and in mono.", "A harp plays."),
        ("The recording is noisy and it sounds sad.", "It sounds sad."),
        ("It sounds sad, and the recording is a bit noisy.", "It sounds sad."),
        ("This is an amateur recording.", ""),
        ("A choir sings. It is soft and", "A choir sings. It is soft."),
        ("The childrenâ€™s song;", "The children's song."),
        ("An amateur plays the flute in mono.", "An amateur plays the flute in mono."),
    ],
)
def test_captions_are_cleaned_and_never_invented(text, expected):
    assert clean_caption(text) == expected
