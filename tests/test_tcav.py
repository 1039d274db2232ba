"""TCAV: sets, CAVs, the test, the controls, and a table whose answer is known in advance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from conceptcaps import activations as activations_of
from conceptcaps import cav, clips, io, schemas, significance, tcav
from conceptcaps.categories import TAGS_OF
from conceptcaps.concepts import Concept, choose_concepts
from conceptcaps.errors import InputError

RATE, SAMPLES = 100, 8  # a clip is one window of eight samples
SPEC = tcav.Spec(
    layers=["layer"],
    categories=["instrument"],
    concepts=None,
    cav="classifier",
    set_size=10,
    random_sets=10,
    heldout_share=0.25,
    inverse_l2=0.01,
    permutations=199,
    class_clips=5,
    alpha=0.05,
)
DESCRIBED = {
    "classes": ["minus", "plus"],
    "split": {"test": [f"{genre}{k}" for genre in ("minus", "plus") for k in range(6)]},
}
WINDOW = {"sampling_rate_hz": RATE, "window_s": SAMPLES / RATE}


class Linear(nn.Module):
    """Eight samples, an identity layer, two opposed logits along the first axis."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(SAMPLES, SAMPLES, bias=False)
        self.head = nn.Linear(SAMPLES, 2, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(SAMPLES))
            self.head.weight.zero_()
            self.head.weight[:, 0] = torch.tensor([-1.0, 1.0])

    def forward(self, windows):
        return self.head(self.layer(windows))


def write_clips(path, ids, waves, genres=None):
    rows = []
    for k, (clip_id, wave) in enumerate(zip(ids, waves, strict=True)):
        data, _ = clips.encode_flac(wave, RATE, peak=1.0)
        row = {
            "id": clip_id,
            "audio": {"bytes": data, "path": f"{clip_id}.flac"},
            "sampling_rate": RATE,
            "duration_s": len(wave) / RATE,
            "sha256": clips.sha256(data),
        }
        extra = {"genre": genres[k]} if genres else {"gain_db": 0.0, "seed": 1, "model": "none"}
        rows.append(row | extra)
    io.write_table(path, rows, schemas.GENRE_CLIPS if genres else schemas.AUDIO)


@pytest.fixture
def gtzan(tmp_path):
    path = tmp_path / "gtzan.parquet"
    ids = [f"{genre}{k}" for genre in ("minus", "plus") for k in range(8)]
    waves = np.random.default_rng(5).uniform(-0.5, 0.5, (16, SAMPLES))
    write_clips(path, ids, waves, genres=["minus"] * 8 + ["plus"] * 8)
    return path


def test_a_linear_network_scores_exactly_one_and_zero(tmp_path, gtzan):
    rng = np.random.default_rng(0)
    positive = np.arange(60) < 30
    waves = rng.uniform(-0.1, 0.1, (60, SAMPLES))
    waves[positive, 0] += 0.8  # the concept is the axis that the logits read
    write_clips(tmp_path / "audio.parquet", [f"c{k}" for k in range(60)], waves)
    network = Linear()
    activations, _ = activations_of.read_activations(
        network, [tmp_path / "audio.parquet"], ["layer"], WINDOW
    )
    assert np.allclose(activations["layer"], waves, atol=1e-4)
    gradients, of_classes = activations_of.read_classes(
        network, gtzan, DESCRIBED, WINDOW, layers=SPEC.layers, class_clips=SPEC.class_clips, seed=1
    )
    assert gradients["layer"]["plus"].shape == (5, SAMPLES)  # class_clips of the six held out
    assert np.array_equal(gradients["layer"]["plus"], np.eye(1, SAMPLES).repeat(5, axis=0))
    concepts = {"bell": Concept("instrument", positive)}
    rows = tcav.test_concepts(
        activations, gradients, concepts, class_activations=of_classes, spec=SPEC, seed=1
    )
    minus, plus = (row for row in rows if row["concept"] == "bell")
    assert (plus["genre"], plus["tcav"], plus["tcav_sd"]) == ("plus", 1.0, 0.0)
    assert (minus["genre"], minus["tcav"], minus["tcav_sd"]) == ("minus", 0.0, 0.0)
    assert plus["null_mean"] == minus["null_mean"] == 0.5
    assert plus["significant"] and minus["significant"]
    assert plus["cav_accuracy"] == plus["cav_auc"] == 1.0
    assert plus["cav_p"] == plus["p_permutation"] == 1 / 200  # the least there is
    assert plus["effect_low"] < plus["effect"] == plus["effect_high"] == 0.5  # five clips only
    assert (plus["n_positive"], plus["relative"], plus["sets_shared"] > 0) == (30, None, True)
    assert {row["control"] for row in rows} == {"", "shuffled", "planted"}
    written = io.pa.Table.from_pylist(rows, schema=schemas.TCAV)
    assert written["alignments"].to_pylist()[0] == pytest.approx(minus["alignments"])


def test_convolutions_enter_as_means_and_gradients_as_sums_over_positions(tmp_path, gtzan):
    torch.manual_seed(0)

    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv1d(1, 3, 1)
            self.head = nn.Linear(3, 2, bias=False)

        def forward(self, windows):
            return self.head(self.layer(windows[:, None]).mean(dim=2))

    network = Convolution()
    waves = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 2 * SAMPLES))  # two windows a clip
    write_clips(tmp_path / "audio.parquet", ["a", "b"], waves)
    activations, _ = activations_of.read_activations(
        network, [tmp_path / "audio.parquet"], ["layer"], WINDOW
    )
    with torch.no_grad():
        weight, bias = network.layer.weight[:, 0, 0].numpy(), network.layer.bias.numpy()
    assert np.allclose(activations["layer"], waves.mean(1)[:, None] * weight + bias, atol=1e-4)
    gradients, of_classes = activations_of.read_classes(
        network, gtzan, DESCRIBED, WINDOW, layers=SPEC.layers, class_clips=SPEC.class_clips, seed=1
    )
    expected = network.head.weight.detach().numpy()
    assert np.allclose(gradients["layer"]["minus"], expected[0], atol=1e-6)
    assert np.allclose(gradients["layer"]["plus"], expected[1], atol=1e-6)
    assert of_classes["layer"]["plus"].shape == (5, 3)


def random_table(seed, clips_count=160, width=24):
    """A layer of noise with unequal axes, and gradients that scatter around one axis per genre."""
    rng = np.random.default_rng(seed)
    activations = rng.normal(size=(clips_count, width)) * np.geomspace(2, 0.3, width)
    gradients = {
        f"genre{k}": 2 * np.eye(width)[k] + rng.normal(size=(8, width)) / 2 for k in range(3)
    }
    return tcav.Table("layer", activations, gradients, SPEC, seed)


def test_planted_concept_is_found_with_every_seed():
    for seed in range(10):
        rows = tcav.correct(random_table(seed).planted_rows(40), alpha=0.05)
        assert len(rows) == 3
        assert all(row["significant"] and row["tcav"] > 0.9 for row in rows)
        assert all(row["cav_auc"] > 0.7 and row["control"] == "planted" for row in rows)


def test_shuffled_labels_are_significant_no_more_often_than_alpha():
    families, p_values, accuracies = [], [], []
    for seed in range(40):
        rows = tcav.correct(random_table(seed).shuffled_rows(40), alpha=0.05)
        families.append(any(row["significant"] for row in rows))
        p_values += [row["p_value"] for row in rows]
        accuracies.append(rows[0]["cav_accuracy"])
    assert np.mean(families) <= 0.125  # 5 of 40; at a true rate of 5 % exceeded once in 70
    assert np.mean(np.array(p_values) < 0.05) < 0.08
    assert np.mean(np.array(p_values) < 0.5) > 0.25  # and not by never finding anything
    assert abs(np.mean(accuracies) - 0.5) < 0.04


def test_scores_that_share_clips_need_the_correction():
    """Without the term for shared clips random labels are found far too often."""
    plain = []
    for seed in range(20):
        table = random_table(seed)
        positive = np.random.default_rng(seed).permutation(160) < 20
        cavs = cav.fit_cavs(
            table.activations,
            positive,
            rivals=None,
            spec=replace(SPEC, set_size=20).cavs(),
            rng=np.random.default_rng(seed),
        )
        for gradients in table.gradients.values():
            null = significance.both_orders(cav.alignment, gradients, cavs.null)
            plain.append(
                significance.welch(cav.alignment(gradients, cavs.concept), null, shared=0.0)
            )
    assert np.mean(np.array(plain) < 0.05) > 0.15


def test_permutation_p_values_of_random_labels_are_uniform_and_a_shift_is_found():
    p_values = []
    for seed in range(60):
        table, rng = random_table(seed), np.random.default_rng(seed)
        positive = rng.permutation(160) < 30
        exchange = {"permutations": 199, "rng": rng}
        p_values += significance.permutation_p(
            table.activations, positive, table.gradients, **exchange
        ).values()
        moved = table.activations + 6 * positive[:, None] * np.eye(24)[0]
        found = significance.permutation_p(moved, positive, table.gradients, **exchange)
        assert found["genre0"] == 1 / 200
    p_values = np.array(p_values)  # 180, three of a seed share labels
    assert np.mean(p_values < 0.05) < 0.12
    assert 0.4 < np.mean(p_values < 0.5) < 0.6


def test_relative_scores_are_against_the_rest_of_the_category():
    """Bell and gong both move axis 0, which the class reads: against gongs, bells say nothing."""
    rng = np.random.default_rng(0)
    x, kind = rng.normal(size=(240, 12)), np.arange(240) // 60
    x[kind < 2, 0] += 2.0
    x[kind == 1, 1] += 2.0
    gradients = {"plus": np.eye(1, 12).repeat(8, axis=0) + rng.normal(size=(8, 12)) / 5}
    concepts = {"bell": Concept("instrument", kind == 0, rivals=kind == 1)}
    rows = tcav.test_concepts(
        {"layer": x}, {"layer": gradients}, concepts, spec=replace(SPEC, set_size=20), seed=3
    )
    (row,) = (row for row in rows if not row["control"])
    assert row["significant"] and row["tcav"] > 0.95
    assert not row["relative_significant"] and row["relative"] < row["tcav"] - 0.1
    few = {"bell": Concept("instrument", kind == 0, rivals=(kind == 1) & (np.arange(240) < 70))}
    rows = tcav.test_concepts({"layer": x}, {"layer": gradients}, few, spec=SPEC, seed=3)
    assert rows[0]["relative"] is None and "relative_significant" not in rows[0]


def test_holm_treats_controls_apart():
    tested = {"p_value": 0.01, "p_permutation": 0.02, "relative_p": None}
    rows = [tested | {"control": ""} for _ in range(4)] + [tested | {"control": "shuffled"}]
    corrected = tcav.correct(rows, alpha=0.03)
    assert [row["p_holm"] for row in corrected] == pytest.approx([0.04] * 4 + [0.01])
    assert [row["significant"] for row in corrected] == [False] * 4 + [True]


def test_both_tests_have_to_agree_and_relative_scores_are_a_family_of_their_own():
    tested = {"control": "", "p_value": 0.001, "relative_p": 0.02}
    rows = [
        tested | {"p_permutation": 0.01},
        tested | {"p_permutation": 0.2},
        tested | {"p_permutation": 0.01, "relative_p": None},
    ]
    corrected = tcav.correct(rows, alpha=0.05)
    assert [row["significant"] for row in corrected] == [True, False, True]
    assert [row["relative_p"] for row in corrected] == [0.04, 0.04, None]
    assert [row.get("relative_significant") for row in corrected] == [True, True, None]


TAXONOMY = {"genre": [], "mood": [], "instrument": ["bell", "gong", "drum"], "tempo": ["slow"]}


def tag_rows(**counts):
    return [
        {
            "id": f"c{k}",
            **{column: [] for column in TAGS_OF.values()},
            "instrument_aspects": [tag for tag, count in counts.items() if k < count],
        }
        for k in range(40)
    ]


CHOICE = {"concepts": None, "categories": ["instrument"], "set_size": 10}


def test_concepts_need_enough_clips_with_and_without(capsys):
    ids = [f"c{k}" for k in range(40)]
    chosen, fates = choose_concepts(tag_rows(bell=10, gong=9, drum=31), ids, TAXONOMY, **CHOICE)
    assert list(chosen) == ["bell"]
    assert chosen["bell"].category == "instrument"
    assert (chosen["bell"].positive.sum(), chosen["bell"].rivals.sum()) == (10, 21)
    assert [fate["status"] for fate in fates] == ["ok", "too few", "too few"]
    assert "9 of 40" in fates[1]["reason"]
    assert "gong: 9, drum: 31" in capsys.readouterr().out


def test_too_few_clips_says_how_many_each_concept_has():
    ids = [f"c{k}" for k in range(40)]
    with pytest.raises(InputError, match=r"bell: 3, gong: 9, drum: 0.*tags.items"):
        choose_concepts(tag_rows(bell=3, gong=9), ids, TAXONOMY, **CHOICE)


def test_unknown_concepts_layers_and_clips_are_named(gtzan):
    ids = [f"c{k}" for k in range(40)]
    with pytest.raises(InputError, match=r"'bel' is not in the taxonomy\. Did you mean 'bell'"):
        choose_concepts(tag_rows(), ids, TAXONOMY, **CHOICE | {"concepts": ["bel"]})
    with pytest.raises(InputError, match="clip other has audio but no tags"):
        choose_concepts(tag_rows(bell=20), [*ids, "other"], TAXONOMY, **CHOICE)
    with pytest.raises(InputError, match="none of the classifier's test clips"):
        activations_of.heldout_clips(gtzan, {**DESCRIBED, "split": {"test": ["plus0"]}}, 5, 1)
    with pytest.raises(InputError, match="clips of plus, which the classifier was not trained on"):
        activations_of.heldout_clips(gtzan, {**DESCRIBED, "classes": ["minus"]}, 5, 1)


def test_values_that_are_not_finite_are_named(tmp_path):
    write_clips(tmp_path / "audio.parquet", ["a", "b"], np.full((2, SAMPLES), 0.5))
    network = Linear()
    with torch.no_grad():
        network.layer.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"layer 'layer'.*not finite for clip a"):
        activations_of.read_activations(network, [tmp_path / "audio.parquet"], ["layer"], WINDOW)


@pytest.mark.parametrize(
    ("activations", "gradients", "message"),
    [
        (np.ones((20, 4)), {"jazz": np.ones((3, 4))}, "gives the same for every clip"),
        (np.eye(20), {"jazz": np.ones((0, 20))}, "has no clips for jazz"),
        (np.eye(20), {"jazz": np.full((3, 20), np.nan)}, "not finite for jazz"),
    ],
)
def test_arrays_that_mean_nothing_are_refused(activations, gradients, message):
    with pytest.raises(InputError, match=message):
        tcav.Table("layer", activations, gradients, SPEC, 1)


def test_only_heldout_clips_are_differentiated(gtzan):
    chosen = activations_of.heldout_clips(gtzan, DESCRIBED, 4, seed=1)
    assert chosen <= set(DESCRIBED["split"]["test"])
    assert sum(clip_id.startswith("plus") for clip_id in chosen) == 4
