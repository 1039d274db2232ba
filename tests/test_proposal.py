"""What the taxonomy's editor is told."""

import csv

from conceptcaps import proposal
from conceptcaps.io import write_table
from conceptcaps.schemas import CLIPS

TAXONOMY = (
    "genre: {jazz: [bebop]}\nmood: {sad: [], calm: [serene]}\n"
    "instrument: {electric guitar: [], guitar: []}\ntempo: {slow: []}\n"
)
ROWS = [
    ["jazz", "sad", "oboe solo"],  # two categories: a tag for "oboe solo" would keep it
    ["Bebop", "serene", "oboe  solo", "loud"],
    ["jazz", "oboe solo"],  # one category: nothing that is added once keeps it
    ["jazz", "sad", "guitar", "loud"],  # kept already
    ["electric guitar riff", "slow", "calm"],
]


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_unnamed_aspects_come_with_the_rows_that_they_would_add(tmp_path):
    (tmp_path / "taxonomy.yaml").write_text(TAXONOMY)
    rows = [
        dict.fromkeys(CLIPS.names) | {"ytid": str(k), "aspect_list": row}
        for k, row in enumerate(ROWS)
    ]
    write_table(tmp_path / "clips", rows, CLIPS)
    files = {name: tmp_path / f"{name}.csv" for name in ("unmapped", "heads", "tags")}
    proposal.propose(
        clips=tmp_path / "clips",
        taxonomy_file=tmp_path / "taxonomy.yaml",
        min_categories=3,
        **files,
    )
    unmapped = read(files["unmapped"])
    assert [(r["aspect"], r["clips"]) for r in unmapped] == [
        ("oboe solo", "3"),
        ("loud", "2"),
        ("electric guitar riff", "1"),
    ]
    adds = [[int(row[column]) for column in proposal.ADDS.values()] for row in unmapped]
    assert adds == [[0, 0, 2, 2], [0, 0, 1, 1], [1, 0, 1, 0]]
    assert unmapped[2]["near_tags"] == "electric guitar; guitar" and unmapped[0]["near_tags"] == ""
    heads = {row["head"]: row for row in read(files["heads"])}
    assert heads["solo"]["clips_unmapped"] == "3" and heads["guitar"]["clips_unmapped"] == "0"
    tags = {row["tag"]: row for row in read(files["tags"])}
    assert tags["jazz"]["clips"] == "4" and tags["jazz"]["aliases_of_one_clip"] == "bebop"
    assert tags["slow"]["clips"] == "1" and tags["calm"]["aliases"] == "1"
