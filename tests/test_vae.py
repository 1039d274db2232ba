import dataclasses
import json

import numpy as np
import pytest
import torch

from conceptcaps import tagsets, vae
from conceptcaps.errors import InputError
from conceptcaps.io import read_json, read_rows, write_json, write_table
from conceptcaps.schemas import PAIRS

CATEGORIES = {
    "genre": ["g0", "g1", "g2"],
    "mood": ["m0", "m1", "m2"],
    "instrument": ["i0", "i1", "i2", "i3"],
    "tempo": ["t0", "t1"],
}
SPEC = vae.Spec(
    hidden=64, latent=8, beta=0.1, learning_rate=3e-3, epochs=40, batch_size=32, input_dropout=0.1
)
SAMPLING = vae.Sampling(prior="aggregate", prior_components=6, min_categories=3)


def planted(n, seed=0):
    """Genre k always with mood k; tempo follows the genre; two instruments at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        k = rng.integers(3)
        instruments = rng.choice(4, 2, replace=False)
        tags = [f"g{k}", f"m{k}", f"t{k % 2}", *(f"i{j}" for j in instruments)]
        rows.append(
            {name: None for name in PAIRS.names}
            | {"id": str(i), "aspect_list": tags, "split": "train" if i % 5 else "test"}
        )
    return rows


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("vae")
    return directory, fit(directory, SPEC)


def fit(directory, spec, sampling=SAMPLING):
    write_table(directory / "pairs.parquet", planted(600), PAIRS)
    write_json(directory / "taxonomy.json", CATEGORIES)
    files = {
        "model": directory / "model.safetensors",
        "config": directory / "config.json",
        "metrics": directory / "metrics.json",
        "history": directory / "history.parquet",
    }
    vae.fit(
        pairs=directory / "pairs.parquet",
        taxonomy=directory / "taxonomy.json",
        spec=spec,
        sampling=sampling,
        seed=3,
        **files,
    )
    return files


def sample(files, output, groups="[]", **changes):
    spec = tagsets.Spec(items=100, min_categories=3, max_tags=6, max_candidates_per_item=50)
    taxonomy = output.with_suffix(".yaml")
    taxonomy.write_text(json.dumps(CATEGORIES | {"exclusive": json.loads(groups)}))
    tagsets.sample(
        taxonomy_file=taxonomy,
        model=files["model"],
        config=files["config"],
        spec=dataclasses.replace(spec, **changes),
        seed=3,
        output=output,
    )
    return read_rows(output)


def test_planted_structure_is_learned(fitted):
    _, files = fitted
    metrics = {m["name"]: m["value"] for m in read_json(files["metrics"])["metrics"]}
    assert metrics["heldout_jaccard"] > 0.9
    assert metrics["prior_cooccurrence_cosine"] > 0.95
    assert metrics["prior_marginal_mae"] < 0.05


def test_loss_falls(fitted):
    _, files = fitted
    losses = [row["train_loss"] for row in read_rows(files["history"])]
    assert losses[-1] < 0.6 * losses[0]


def test_samples_are_distinct_and_obey_the_limits(fitted):
    directory, files = fitted
    rows = sample(files, directory / "tags.parquet")
    assert len(rows) == len({r["id"] for r in rows}) == 100
    assert len({tuple(r["aspect_list"]) for r in rows}) == 100
    for row in rows:
        parts = [row[f"{c}_aspects"] for c in ("genre", "mood", "instrument", "tempo")]
        assert sum(bool(part) for part in parts) >= 3
        assert len(row["aspect_list"]) <= 6
        assert sorted(t for part in parts for t in part) == row["aspect_list"]


def test_exclusive_tags_never_meet_in_a_sample(fitted):
    directory, files = fitted
    free = sample(files, directory / "free.parquet")
    held = sample(files, directory / "held.parquet", groups='[["i0", "i1"], ["i2", "i3"]]')
    meets = [{"i0", "i1"} <= set(row["aspect_list"]) for row in free]
    assert any(meets)
    assert not any({"i0", "i1"} <= set(row["aspect_list"]) for row in held)


def test_asking_for_more_keeps_the_earlier_ones(fitted):
    directory, files = fitted
    few = sample(files, directory / "few.parquet", items=20)
    many = sample(files, directory / "many.parquet", items=60)
    assert many[:20] == few


def test_the_same_fit_gives_the_same_bytes(fitted, tmp_path):
    _, files = fitted
    again = fit(tmp_path, SPEC)
    assert again["model"].read_bytes() == files["model"].read_bytes()


def test_a_spent_budget_says_what_was_rejected(fitted):
    directory, files = fitted
    with pytest.raises(InputError, match=r"only 0 of 100 .* 20.. too many tags"):
        sample(files, directory / "none.parquet", max_tags=1, max_candidates_per_item=11)
    assert not (directory / "none.parquet").exists()


def test_a_diverging_fit_stops_with_the_epoch(tmp_path):
    broken = dataclasses.replace(SPEC, learning_rate=1e30)
    with pytest.raises(InputError, match=r"the loss is .* in epoch \d+"):
        fit(tmp_path, broken)


def test_negative_elbo_closed_form():
    torch.manual_seed(0)
    model = vae.BetaVAE(5, dataclasses.replace(SPEC, input_dropout=0.0))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)  # logits 0, q = N(0, I): BCE = D ln 2, KL = 0
    loss = vae.negative_elbo(model, torch.zeros(3, 5), beta=7.0)
    assert loss.item() == pytest.approx(5 * np.log(2), rel=1e-6)
    torch.nn.init.ones_(model.mean.bias)  # KL = Z / 2 for mean 1, variance 1
    loss = vae.negative_elbo(model, torch.zeros(3, 5), beta=7.0)
    assert loss.item() == pytest.approx(5 * np.log(2) + 7.0 * SPEC.latent / 2, rel=1e-5)


def test_micro_jaccard_and_cooccurrence_closed_form():
    a, b = torch.tensor([[1, 1, 0], [1, 0, 0]]), torch.tensor([[1, 0, 0], [1, 1, 0]])
    assert vae.micro_jaccard(a, b) == pytest.approx(2 / 4)
    x = np.array([[1, 1, 0], [1, 1, 0]])
    assert vae.cooccurrence_cosine(x, 3 * x) == pytest.approx(1)
    assert vae.cooccurrence_cosine(x, np.array([[1, 0, 1]])) == pytest.approx(0)
