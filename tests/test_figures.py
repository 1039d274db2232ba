"""The figures: each is written as PNG and SVG, with the numbers it shows, byte for byte again."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from conceptcaps import (
    cavfigures,
    claimsfigure,
    curves,
    figures,
    figurestyle,
    io,
    schemas,
    tagfigures,
)
from conceptcaps.categories import TAGS_OF


def paths(folder, name="figure"):
    folder.mkdir(exist_ok=True)
    return SimpleNamespace(png=folder / f"{name}.png", svg=folder / f"{name}.svg")


def texts(svg):
    """Return the texts of an SVG; matplotlib keeps them as comments beside the glyphs."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text(), flags=re.DOTALL)


def tag_row(k, **extra):
    tags = {"genre": ["jazz"], "mood": ["sad", "calm"][: 1 + k % 2], "instrument": ["piano"]}
    columns = {TAGS_OF[category]: tags.get(category, []) for category in TAGS_OF}
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


def tables_and_taxonomy(folder):
    tables = tables_of_tags(folder)
    clips = [{"aspect_list": ["jazz", "piano", "noise"], "caption": "Jazz, two words."}] * 30
    io.write_table(folder / "clips", clips, schemas.CLIPS)
    io.write_json(
        folder / "taxonomy.json",
        {"genre": ["jazz"], "mood": ["sad", "calm"], "instrument": ["piano"], "tempo": ["slow"]},
    )
    return tables | {"taxonomy_file": folder / "taxonomy.json"}


def places(folder):
    """Twenty pairs of jazz, ten of rock elsewhere, six of both or none."""
    kinds = [["jazz"]] * 20 + [["rock"]] * 10 + [["jazz", "rock"]] * 3 + [[]] * 3
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"{k:02}",
            "split": "train",
            "genre_aspects": kind,
            "mean": (rng.standard_normal(4) + 20 * len(kind) * (kind == ["rock"])).tolist(),
        }
        for k, kind in enumerate(kinds)
    ]
    io.write_table(folder / "latent", rows, schemas.VAE_LATENT)
    return {"latent": folder / "latent", "seed": 1}


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
        "conceptcaps": [
            metric("bleu4", 0.4),
            metric("words", 30.0, direction="none"),
            metric("bertscore_f1", 0.9),
            metric("mauve", 0.5) | {"recipe": {"reliability": "unreliable"}},
        ],
        "base": [metric("bleu4", 0.2, ci=False), metric("words", 50.0, direction="none")],
        "human": [metric("words", 40.0, direction="none")],
    }
    io.write_json(folder / "text.json", {"arms": arms})
    return {"scores": folder / "text.json"}


def genre_metrics(folder):
    report = {
        "metrics": [
            metric("clip_accuracy", 0.75, n=8),
            metric("expected_calibration_error", 0.1, n=8, direction="lower", ci=False),
            metric("calibration_error_null", 0.2, n=8, direction="none"),
        ],
        "confusion": [[3, 1], [1, 3]],
        "reliability": [
            {"low": 0.5, "high": 0.6, "n": 3, "confidence": 0.55, "accuracy": 0.4},
            {"low": 0.9, "high": 1.0, "n": 5, "confidence": 0.96, "accuracy": 1.0},
        ],
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
            "cav_p": 0.01 if found else 0.4,
            "pattern_cosine": 0.8,
            "alignment": 0.6 if found else 0.1,
            "alignments": [0.5, 0.7] if found else [0.0, 0.2],
            "null_alignments": [-0.2, 0.2],
            "control": control,
        }
        for layer in ("conv4", "bottleneck")
        for concept, control, found in cells
        for genre in ("jazz", "rock")
    ]


def tcav_scores(folder):
    io.write_table(folder / "tcav", tcav_rows(), schemas.TCAV)
    return {"scores": folder / "tcav"}


def claims(folder):
    found = {"value": 0.4, "ci_low": 0.3, "ci_high": 0.5, "n": 9, "what": "score"}
    claim = {
        "where": "Table 1",
        "claim": "A claim",
        "paper": 0.5,
        "differs": "",
        "unlike": {"a": 1},
    }
    claim |= {"protocol": {"status": "not run", "why": ""}, "right": found}
    counted = claim | {"paper": 200, "right": found | {"value": 40.0}}
    nothing = claim | {"paper": None}
    io.write_json(folder / "scorecard.json", {"claims": [claim, counted, nothing]})
    return {"scorecard": folder / "scorecard.json"}


FIGURES = {
    "tags": (tagfigures.plot_tags, tables_of_tags, ["piano", "sampled (N = 7)", "All 4 tags"]),
    "vae": (tagfigures.plot_vae, history, ["Loss over 5 epochs", "best 0.500, epoch 5"]),
    "distill": (
        tagfigures.plot_distill,
        tables_and_taxonomy,
        [
            "MusicCaps, 3 aspects",
            "distilled, 4 tags",
            "upper bars: MusicCaps (30 clips)",
            "mean 1.0",
        ],
    ),
    "latent": (
        tagfigures.plot_latent,
        places,
        ["jazz (20)", "rock (10)", "Latent space by genre (36 pairs, t-SNE)"],
    ),
    "captioner": (curves.plot_captioner, finetuning, ["8 steps; kept: step 4, 0.500"]),
    "text": (
        figures.plot_text,
        text_scores,
        [
            "BLEU-4 (%)\n",
            "higher is better, N = 50",
            "not defined",
            "BERTScore F1\n",
            "MAUVE (N &lt; 1,000: unreliable)",
        ],
    ),
    "genrecnn": (
        figures.plot_genrecnn,
        genre_metrics,
        [
            "accuracy 0.75",
            "N = 8",
            "Calibration error 0.10",
            "0.20 [0.10, 0.30] if it were calibrated",
        ],
    ),
    "tcav": (figures.plot_tcav, tcav_scores, ["4 of 8 tests significant", "planted", "0.87"]),
    "claims": (
        claimsfigure.plot_claims,
        claims,
        ["Table 1: A claim", "1 of 3 claims have figures from 0 to 1", "by the paper's protocol"],
    ),
    "cavs": (cavfigures.plot_cavs, tcav_scores, ["layer bottleneck", "shuffled", "10 random sets"]),
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
    tagfigures.plot_tags(**inputs, output=output)
    assert "All 5 tags" in "\n".join(texts(output.svg))


def test_the_latent_map_keeps_groups_apart(tmp_path):
    rows = io.read_rows(places(tmp_path)["latent"])
    place = tagfigures._map(np.array([row["mean"] for row in rows]), 1)
    kinds = [row["genre_aspects"] for row in rows]
    jazz, rock = (place[[kind == [genre] for kind in kinds]] for genre in ("jazz", "rock"))
    apart = np.linalg.norm(jazz.mean(0) - rock.mean(0))
    assert apart > 2 * np.linalg.norm(rock - rock.mean(0), axis=1).mean()


def test_colours_are_the_palette_of_okabe_and_ito():
    palette = {"#0072B2", "#E69F00", "#009E73", "#CC79A7"}
    assert set(figurestyle.CATEGORY_COLOURS.values()) == palette
    assert len(set(figurestyle.COLOUR_OF.values())) == len(figurestyle.COLOUR_OF)
    assert np.all([colour in palette for colour in figurestyle.COLOUR_OF.values()])
