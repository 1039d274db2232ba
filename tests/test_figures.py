"""The figures: each is written as PNG and SVG, with the numbers it shows, byte for byte again."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from conceptcaps import curves, figures, io, schemas


def paths(folder, name="figure"):
    folder.mkdir(exist_ok=True)
    return SimpleNamespace(png=folder / f"{name}.png", svg=folder / f"{name}.svg")


def texts(svg):
    """Return the texts of an SVG; matplotlib keeps them as comments beside the glyphs."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text(), flags=re.DOTALL)


def tag_row(k, **extra):
    tags = {"genre": ["jazz"], "mood": ["sad", "calm"][: 1 + k % 2], "instrument": ["piano"]}
    columns = {schemas.TAGS_OF[category]: tags.get(category, []) for category in schemas.TAGS_OF}
    return {
        "id": str(k),
        "aspect_list": [tag for group in tags.values() for tag in group],
        **columns,
        **extra,
    }


def tables_of_tags(folder):
    io.write_table(folder / "clips", [{"aspect_list": ["a"] * 9}] * 30, schemas.CLIPS)
    pairs = [tag_row(k, ytid=str(k), caption="c", split="train") for k in range(20)]
    io.write_table(folder / "pairs", pairs, schemas.PAIRS)
    io.write_table(folder / "tags", [tag_row(k, given=[], seed=k) for k in range(7)], schemas.TAGS)
    return {name: folder / name for name in ("clips", "pairs", "tags")}


def history(folder):
    rows = [
        {"epoch": k, "train_loss": 9.0 / k, "heldout_loss": 10.0 / k, "heldout_jaccard": k / 10}
        for k in range(1, 6)
    ]
    io.write_table(folder / "history", rows, schemas.VAE_HISTORY)
    return {"history": folder / "history"}


def finetuning(folder):
    rows = [
        {"step": k, "epoch": k / 4, "loss": 3 / k if k else None, "learning_rate": 1e-3,
         "gradient_norm": 1.0, "validation_loss": abs(k - 4) + 0.5 if k % 4 == 0 else None}
        for k in range(9)
    ]  # fmt: skip
    io.write_table(folder / "finetuning", rows, schemas.FINETUNING)
    return {"history": folder / "finetuning"}


def metric(name, value, *, n=50, direction="higher", ci=True):
    low, high = (value - 0.1, value + 0.1) if ci else (None, None)
    return {"name": name, "value": value, "ci_low": low, "ci_high": high, "n": n,
            "direction": direction, "recipe": {}}  # fmt: skip


def text_scores(folder):
    arms = {
        "conceptcaps": [metric("bleu4", 0.4), metric("words", 30.0, direction="none")],
        "base": [metric("bleu4", 0.2, ci=False), metric("words", 50.0, direction="none")],
        "human": [metric("words", 40.0, direction="none")],
    }
    io.write_json(folder / "text.json", {"arms": arms})
    return {"scores": folder / "text.json"}


def genre_metrics(folder):
    report = {
        "metrics": [
            metric("clip_accuracy", 0.75, n=8),
            metric("expected_calibration_error", 0.1, n=8, direction="lower"),
        ],
        "confusion": [[3, 1], [1, 3]],
        "classes": ["jazz", "rock"],
    }
    io.write_json(folder / "metrics.json", report)
    return {"metrics": folder / "metrics.json"}


def tcav_rows():
    cells = [("piano", "", True), ("drums", "", False), ("shuffled", "shuffled", False)]
    cells.append(("planted", "planted", True))
    return [
        {
            "layer": layer,
            "concept": concept,
            "genre": genre,
            "tcav": 0.9 if found else 0.4,
            "significant": found,
            "cav_auc": 0.87,
            "n_random_sets": 10,
            "n_class": 8,
            "control": control,
        }
        for layer in ("conv4", "bottleneck")
        for concept, control, found in cells
        for genre in ("jazz", "rock")
    ]


def tcav_scores(folder):
    io.write_table(folder / "tcav", tcav_rows(), schemas.TCAV)
    return {"scores": folder / "tcav"}


FIGURES = {
    "tags": (figures.plot_tags, tables_of_tags, ["piano", "sampled (N = 7)", "All 4 tags"]),
    "captioner": (curves.plot_captioner, finetuning, ["8 steps; kept: step 4, 0.500"]),
    "vae": (figures.plot_vae, history, ["Loss over 5 epochs", "best 0.500, epoch 5"]),
    "text": (figures.plot_text, text_scores, ["bleu4", "higher is better, N = 50", "not defined"]),
    "genrecnn": (figures.plot_genrecnn, genre_metrics, ["accuracy 0.75", "N = 8"]),
    "tcav": (figures.plot_tcav, tcav_scores, ["4 of 8 tests significant", "planted", "0.87"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_written_and_says_what_it_shows(name, tmp_path):
    plot, make_inputs, expected = FIGURES[name]
    inputs, output = make_inputs(tmp_path), paths(tmp_path / "one")
    plot(**inputs, output=output)
    assert output.png.read_bytes().startswith(b"\x89PNG")
    assert output.png.stat().st_size > 5000
    shown = "\n".join(texts(output.svg))
    assert all(text in shown for text in expected), shown
    again = paths(tmp_path / "two")
    plot(**inputs, output=again)
    assert again.svg.read_bytes() == output.svg.read_bytes()
    assert len(list(output.png.parent.iterdir())) == 2  # no temporary file stays


def test_insignificant_cells_are_veiled(tmp_path):
    def veils(rows, name):
        io.write_table(tmp_path / name, rows, schemas.TCAV)
        figures.plot_tcav(scores=tmp_path / name, output=paths(tmp_path / "out", name))
        return (tmp_path / "out" / f"{name}.svg").read_text().count("opacity: 0.6")

    rows = tcav_rows()
    hidden = sum(not row["significant"] for row in rows)
    assert (
        veils(rows, "as_is") - veils([row | {"significant": True} for row in rows], "all") == hidden
    )


def test_tags_that_never_occur_in_the_samples_are_drawn(tmp_path):
    inputs = tables_of_tags(tmp_path)
    pairs = [tag_row(k, ytid=str(k), caption="c", split="train") for k in range(20)]
    pairs[0]["tempo_aspects"] = ["slow tempo"]
    io.write_table(inputs["pairs"], pairs, schemas.PAIRS)
    output = paths(tmp_path / "out")
    figures.plot_tags(**inputs, output=output)
    assert "All 5 tags" in "\n".join(texts(output.svg))


def test_colours_are_the_palette_of_okabe_and_ito():
    palette = {"#0072B2", "#E69F00", "#009E73", "#CC79A7"}
    assert set(figures.CATEGORY_COLOURS.values()) == palette
    assert len(set(figures.COLOUR_OF.values())) == len(figures.COLOUR_OF)
    assert np.all([colour in palette for colour in figures.COLOUR_OF.values()])
