"""The coverage of the taxonomy: counts and companions of every tag, and its picture."""

import re
from types import SimpleNamespace

from dataset_run import CATEGORY_TAGS, write_run

from conceptcaps import build, coverage, export
from conceptcaps.io import read_table, write_json


def test_clips_and_companions_are_those_of_the_table_and_are_drawn(tmp_path):
    run = write_run(tmp_path, 40)
    spec = export.Spec(validation=0.15, test=0.15, licence=None)
    export.export_table(**run, spec=spec, seed=1)
    table = read_table(run["output"])
    rows = table.to_pylist()
    for split in ("train", "test"):
        counted = coverage.clips_of(table, split)
        jazz = [row for row in rows if row["split"] == split and "jazz" in row["genre_aspects"]]
        assert counted["jazz"] == len(jazz) > 0
    met = coverage.companions(table)
    assert met["jazz"]["genre"] == set() and met["jazz"]["mood"] == {"calm", "tense"}
    of_tempo = {
        tag: sum(tag in row["tempo_aspects"] for row in rows) for tag in CATEGORY_TAGS["tempo"]
    }
    found = build.coverage(table)["tempo"]
    assert found["tags"] == 2 and found["usable"] == 0
    assert (found["rarest"], found["rarest_clips"]) == ("fast tempo", of_tempo["fast tempo"])
    assert found["median_clips"] == sum(of_tempo.values()) / 2
    taxonomy = tmp_path / "taxonomy.json"
    write_json(taxonomy, {**CATEGORY_TAGS, "mood": [*CATEGORY_TAGS["mood"], "never heard"]})
    output = SimpleNamespace(png=tmp_path / "c.png", svg=tmp_path / "c.svg")
    coverage.plot_coverage(dataset=run["output"], taxonomy=taxonomy, output=output)
    first = output.svg.read_bytes()
    said = re.findall(r"<!-- (.*?) -->", output.svg.read_text())
    assert {"jazz", "never heard", "mood: 0 of 3 tags have 100 clips or more"} <= set(said)
    assert "train" in said and output.png.stat().st_size > 20_000
    coverage.plot_coverage(dataset=run["output"], taxonomy=taxonomy, output=output)
    assert output.svg.read_bytes() == first
