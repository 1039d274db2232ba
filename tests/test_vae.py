import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from conceptcaps import tagmetrics, tagmodels, tagsets, vae
from conceptcaps.constraints import REASONS, Constraints
from conceptcaps.errors import InputError
from conceptcaps.io import read_json, read_rows, write_json, write_table
from conceptcaps.schemas import PAIRS
from conceptcaps.tagsampler import Sampler

CATEGORIES = {
    "genre": ["g0", "g1", "g2"],
    "mood": ["m0", "m1", "m2"],
    "instrument": ["i0", "i1", "i2", "i3"],
    "tempo": ["t0", "t1"],
}
SPEC = vae.Spec(
    hidden=64,
    latent=8,
    beta=0.1,
    learning_rate=3e-3,
    schedule="one_cycle",
    epochs=40,
    batch_size=32,
    input_dropout=0.1,
    crossover=0.2,
)
SAMPLING = vae.Sampling(prior="aggregate", min_categories=3, max_tags=8)


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
    write_table(directory / "pairs.parquet", planted(500), PAIRS)
    write_json(directory / "taxonomy.json", CATEGORIES)
    files = {
        "model": directory / "model.safetensors",
        "config": directory / "config.json",
        "metrics": directory / "metrics.json",
        "history": directory / "history.parquet",
        "latent": directory / "latent.parquet",
    }
    vae.fit(
        pairs=directory / "pairs.parquet",
        taxonomy=directory / "taxonomy.json",
        taxonomy_file=directory / "taxonomy.json",
        spec=spec,
        sampling=sampling,
        seed=3,
        **files,
    )
    return files


SAMPLED = tagsets.Spec(
    items=100,
    given=(),
    forbid=(),
    min_categories=3,
    max_tags=6,
    min_share=0.0,
    temperature=1.0,
    draws_per_latent=2,
    max_candidates_per_item=50,
)


def sample(files, output, taxonomy=None, **changes):
    """Sample beside `output`; MusicCaps' own sets are not there, or few of them were left."""
    path = output.with_suffix(".yaml")
    path.write_text(json.dumps(CATEGORIES | (taxonomy or {})))
    real = [row | {"aspect_list": ["g0", "m0", "i0"]} for row in planted(1)]
    write_table(output.with_suffix(".pairs"), real, PAIRS)
    tagsets.sample(
        taxonomy_file=path,
        pairs=output.with_suffix(".pairs"),
        model=files["model"],
        config=files["config"],
        spec=dataclasses.replace(SAMPLED, **changes),
        seed=3,
        output=output,
        metrics=output.with_suffix(".json"),
    )
    return read_rows(output)


def figures(path):
    return {m["name"]: m["value"] for m in read_json(path)["metrics"]}


def test_planted_structure_is_learned(fitted):
    _, files = fitted
    metrics = figures(files["metrics"])
    assert metrics["heldout_jaccard"] > 0.9
    assert metrics["prior_cooccurrence_cosine"] > 0.95
    assert metrics["prior_marginal_mae"] < 0.05


def test_the_paper_preset_is_the_papers():
    """Section 3.6: D-1024-256-1024-D, beta 0.25, Adam at 6e-5, 150 epochs; batch, dropout: code."""
    config = yaml.safe_load((Path(__file__).resolve().parent.parent / "config.yaml").read_text())
    spec = vae.Spec(**config["vae"]["presets"]["paper"])
    assert spec == vae.Spec(
        hidden=1024,
        latent=256,
        beta=0.25,
        learning_rate=6e-5,
        schedule="constant",
        epochs=150,
        batch_size=32,
        input_dropout=0.2,
        crossover=0.0,
    )
    sizes = [tuple(p.shape) for p in vae.BetaVAE(200, spec).parameters() if p.ndim == 2]
    assert sizes == [(1024, 200), (256, 1024), (256, 1024), (1024, 256), (200, 1024)]


def test_loss_falls(fitted):
    _, files = fitted
    losses = [row["train_loss"] for row in read_rows(files["history"])]
    assert losses[-1] < 0.6 * losses[0]


def test_the_latent_places_are_the_means_of_q(fitted):
    directory, files = fitted
    model, _, description = vae.load(files["model"], files["config"])
    pairs = {row["id"]: row for row in read_rows(directory / "pairs.parquet")}
    places = read_rows(files["latent"])
    assert {row["id"] for row in places} == set(pairs)
    tags = [pairs[row["id"]]["aspect_list"] for row in places]
    with torch.no_grad():
        means, _ = model.encode(vae.multi_hot(tags, description["tags"]))
    assert np.allclose([row["mean"] for row in places], means, atol=1e-6)


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


EXCLUSIVE = {"exclusive": [["i0", "i1"], ["i2", "i3"]]}


def test_exclusive_tags_never_meet_in_a_sample(fitted):
    directory, files = fitted
    free = sample(files, directory / "free.parquet")
    held = sample(files, directory / "held.parquet", EXCLUSIVE)
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
    with pytest.raises(InputError, match=r"only 0 of 100 .* blame: too many tags"):
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
    assert tagmetrics.micro_jaccard(a, b) == pytest.approx(2 / 4)
    x = np.array([[1, 1, 0], [1, 1, 0]])
    assert tagmetrics.cooccurrence_cosine(x, 3 * x) == pytest.approx(1)
    assert tagmetrics.cooccurrence_cosine(x, np.array([[1, 0, 1]])) == pytest.approx(0)


def sampler(files, **settings):
    fitted, prior, _ = vae.load(files["model"], files["config"])
    return Sampler(fitted, prior, **settings)


def generators(n, seed=0):
    return [np.random.default_rng([seed, k]) for k in range(n)]


def constraints(**request):
    limits = {"groups": [], "implications": {}, "min_categories": 1, "max_tags": 11}
    return Constraints(CATEGORIES, **(limits | request))


def test_a_conditional_sample_is_the_model_given_the_tags(fitted):
    """The shares of the other tags equal those among the free samples that hold the given ones."""
    _, files = fitted
    model, rules = sampler(files), constraints()
    given, forbid = rules.columns(["g1", "i2"]), rules.columns(["i3"])
    free = model.sample(generators(60_000))
    kept = free[free[:, given].all(1) & ~free[:, forbid].any(1)]
    drawn = model.sample(generators(4000, 1), given=given, forbid=forbid)
    assert drawn[:, given].all() and not drawn[:, forbid].any()
    assert len(kept) > 1500
    assert np.abs(drawn.mean(0) - kept.mean(0)).max() < 0.05
    ored = free[:, rules.columns(["m1"])].mean()  # what OR-ing the given tags in would give
    assert drawn[:, rules.columns(["m1"])].mean() > ored + 0.4


def test_temperature_sharpens_the_tags_given_z(fitted):
    _, files = fitted
    rngs = generators(3000)
    z = sampler(files).latents(rngs)
    with torch.no_grad():
        likely = (sampler(files).vae.decoder(z) > 0).numpy()
    off = [
        (sampler(files, temperature=t).decode(z, generators(3000, 2)) != likely).mean()
        for t in (0, 0.5, 1.0, 2.0)
    ]
    assert off[0] == 0 and off == sorted(off) and off[3] > 1.3 * off[2] > 1.3 * off[1]


def test_every_tag_reaches_its_share_and_says_what_was_given(fitted):
    directory, files = fitted
    free = sample(files, directory / "free_share.parquet")
    rows = sample(files, directory / "share.parquet", min_share=0.35)

    def count(rows, tag):
        return sum(tag in row["aspect_list"] for row in rows)

    tags = [tag for group in CATEGORIES.values() for tag in group]
    assert min(count(free, tag) for tag in tags) < 33 <= min(count(rows, tag) for tag in tags)
    asked = [row for row in rows if row["given"]]
    assert asked and all(set(row["given"]) <= set(row["aspect_list"]) for row in asked)
    assert figures(directory / "share.json")["tags_conditional"] == len(asked) / 100


def test_more_items_keep_the_earlier_ones_under_a_share_too(fitted):
    directory, files = fitted
    few = sample(files, directory / "few_s.parquet", items=30, min_share=0.3)
    assert sample(files, directory / "many_s.parquet", items=70, min_share=0.3)[:30] == few


def test_implied_tags_are_there_and_known_sets_are_not(fitted):
    directory, files = fitted
    rows = sample(files, directory / "implied.parquet", {"implies": {"i0": ["i1"]}})
    assert all("i1" in row["aspect_list"] for row in rows if "i0" in row["aspect_list"])
    assert ["g0", "i0", "m0"] not in [row["aspect_list"] for row in rows]
    found = figures(directory / "implied.json")
    assert found["tags_novel"] == found["tags_unique"] == 1 and found["tags_unimplied"] == 0


def test_given_and_forbidden_tags_in_the_dataset(fitted):
    directory, files = fitted
    rows = sample(files, directory / "given.parquet", items=20, given=("g1",), forbid=("i0",))
    assert all("g1" in r["aspect_list"] and "i0" not in r["aspect_list"] for r in rows)
    assert all(r["given"] == ["g1"] for r in rows)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"given": ["g7"]}, "tags.given: 'g7' is no tag of the taxonomy. Did you mean 'g"),
        ({"given": ["i0", "i1"]}, "'i0' and 'i1' exclude each other"),
        ({"given": ["g0"], "forbid": ["g0"]}, "'g0' is given, .* and forbidden"),
        ({"given": ["i2"], "forbid": ["m1"]}, "'i2' is given, .* and forbidden|'m1' is given"),
        ({"given": ["g0", "m0"], "max_tags": 1}, "2 tags are given"),
        ({"forbid": ["t0", "t1"], "min_categories": 4}, "leaves tags in 3 categories"),
    ],
)
def test_contradictory_requests_are_named(request_, message):
    with pytest.raises(InputError, match=message):
        constraints(**(EXCLUSIVE_AND_IMPLIED | request_))


EXCLUSIVE_AND_IMPLIED = {"groups": [["i0", "i1"]], "implications": {"i2": ["m1"], "m1": ["m2"]}}


def test_verdicts_closed_form():
    rules = constraints(**EXCLUSIVE_AND_IMPLIED, min_categories=2, max_tags=3)

    def verdict(*tags):
        return REASONS[rules.verdict(vae.multi_hot([tags], rules.tags).numpy() > 0)[0]]

    assert verdict("i2", "m1", "m2") == ""
    assert "implied" in verdict("i2", "m1") and "exclude" in verdict("i0", "i1")
    assert "too few" in verdict("g0") and "too many" in verdict("g0", "m0", "t0", "t1")
    assert rules.closed(["i2"]) == {"i2", "m1", "m2"}


def test_the_two_sample_test_tells_different_sets_and_not_equal_ones():
    rng = np.random.default_rng(0)
    a, b, c = (rng.random((300, 12)) < p for p in (0.3, 0.3, 0.45))
    assert 0.4 < tagmetrics.c2st_auc(a, b, seed=0)[0] < 0.58
    assert tagmetrics.c2st_auc(a, c, seed=0)[0] > 0.65


def test_the_bound_is_below_the_likelihood_and_near_it_for_a_decoder_that_ignores_z():
    model = vae.BetaVAE(5, dataclasses.replace(SPEC, input_dropout=0.0)).eval()
    torch.nn.init.zeros_(model.decoder[-1].weight)
    prior = {"prior.means": torch.zeros(1, SPEC.latent), "prior.stds": torch.ones(1, SPEC.latent)}
    x = (torch.rand(20, 5) < 0.5).float()
    exact = -torch.nn.functional.binary_cross_entropy_with_logits(
        model.decoder[-1].bias.expand(20, 5), x, reduction="none"
    ).sum(1)
    bound = vae.log_bound(model, prior, x, seed=0)
    assert np.mean(bound) == pytest.approx(exact.mean().item(), abs=0.1)


@pytest.fixture(scope="module")
def two_kinds():
    """Sets of two kinds that share no tag: a mixture of two knows their likelihood exactly."""
    rng = np.random.default_rng(0)
    kind = rng.random((3000, 1)) < 0.3
    left, right = rng.random((3000, 3)) < 0.8, rng.random((3000, 3)) < 0.6
    return np.hstack([left & kind, right & ~kind])


def test_baselines_reach_the_planted_likelihood(two_kinds):
    train, test = two_kinds[:2400], two_kinds[2400:]
    settings = {"smoothing": 0.5, "seed": 1}
    one = tagmodels.mixture(train, components=1, steps=1, **settings)
    two = tagmodels.mixture(train, components=4, steps=80, **settings)
    chain = tagmodels.autoregressive(train, validation=test, steps=300, weight_decay=0.0, seed=0)
    planted = [
        sum(
            share * np.prod(np.where(row, p, np.subtract(1, p)))
            for share, p in ((0.3, [0.8] * 3 + [0] * 3), (0.7, [0] * 3 + [0.6] * 3))
        )
        for row in test
    ]
    truth = np.log(planted).mean()
    assert one.log_prob(test).mean() < truth - 0.4
    for model in (two, chain):
        assert model.log_prob(test).mean() == pytest.approx(truth, abs=0.08)
        drawn = model.draw(4000, np.random.default_rng(2))
        assert tagmetrics.cooccurrence_cosine(drawn, train) > 0.99
        assert tagmetrics.marginal_mae(drawn, train) < 0.02
    every = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(bool)
    for model in (one, two, chain):
        assert np.exp(model.log_prob(every)).sum() == pytest.approx(1, abs=1e-4)
