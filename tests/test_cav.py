"""CAVs and the statistics of their scores, against closed forms and other implementations."""

from dataclasses import replace

import numpy as np
import pytest

from conceptcaps import cav, significance

SPEC = cav.CavSpec(
    set_size=10,
    random_sets=10,
    heldout_share=0.25,
    inverse_l2=0.01,
    kind="classifier",
    permutations=199,
)


def test_cav_quality_knows_chance_from_a_concept():
    rng = np.random.default_rng(0)
    x, positive = rng.normal(size=(120, 16)), np.arange(120) < 60
    chance = cav.fit_cavs(x, positive, rivals=None, spec=SPEC, rng=rng)
    assert abs(chance.auc - 0.5) < 0.2 and chance.auc_p > 0.05
    x[positive, 3] += 2
    real = cav.fit_cavs(x, positive, rivals=None, spec=SPEC, rng=rng)
    assert real.auc > 0.8 and real.auc_p == 1 / 200 and real.pattern_cosine > 0.9


def test_pattern_cavs_ignore_axes_that_only_cancel_noise():
    """Haufe's case: axis 1 holds noise alone, the classifier subtracts it, the pattern does not."""
    rng = np.random.default_rng(0)
    noise, label = rng.normal(size=400), np.repeat([1, 0], 200)
    x = np.stack([label + noise, noise], axis=1)
    pair = x[None, :200], x[None, 200:]
    (weights,), _ = cav.classifiers(*pair, inverse_l2=1.0)
    (pattern,) = cav.patterns(*pair)
    assert weights[1] < -0.8 * weights[0]
    assert abs(pattern[1]) < 0.2 * pattern[0]
    fitted = replace(SPEC, kind="pattern", set_size=100, inverse_l2=10.0)
    cavs = cav.fit_cavs(x, label > 0, rivals=None, spec=fitted, rng=rng)
    assert abs(cavs.concept[:, 1]).max() < 0.4 and cavs.pattern_cosine < 0.8


def test_effect_interval_by_hand():
    low, high = significance.effect_interval(
        np.full(9, 1.0), np.full(9, 0.5), n_class=36, shared=0.5
    )
    half = 1.96 * np.sqrt(0.95 * 0.05 / 40)  # (36 + 2) / (36 + 4); nothing varies but the clips
    assert (low, high) == pytest.approx((0.5 - half, 0.5))


def test_cosine_share_is_the_references_count():
    activations = np.array([[1.0, 0.0], [1.0, 0.05], [-1.0, 0.0], [0.0, 1.0]])
    directions = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert cav.cosine_share(activations, directions, above=0.1).tolist() == [0.5, 0.25]


def test_holm_against_hand_computed_values():
    adjusted = significance.holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert np.allclose(adjusted, [0.03, 0.06, 0.06, 0.02])
    assert np.allclose(significance.holm(np.array([0.9, 0.8])), [1.0, 1.0])


def test_welch_equals_scipy_where_nothing_is_shared():
    from scipy import stats

    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 9), rng.normal(0, 2, 20)
    assert significance.welch(a, b, shared=0.0) == pytest.approx(
        stats.ttest_ind(a, b, equal_var=False).pvalue
    )
    assert significance.welch(a, b, shared=0.4) > significance.welch(a, b, shared=0.0)
    same = np.full(5, 0.5)
    assert (
        significance.welch(same, same, shared=0.0),
        significance.welch(same + 1, same, shared=0.0),
    ) == (1.0, 0.0)


def test_sets_are_disjoint_where_clips_suffice():
    rng = np.random.default_rng(0)
    sets = cav.draw_sets(np.arange(100, 160), size=10, count=6, rng=rng)
    assert sorted(sets.ravel()) == list(range(100, 160))
    assert cav.shared_share(sets) == 0.0
    more = cav.draw_sets(np.arange(25), size=10, count=40, rng=rng)
    assert more.shape == (40, 10)
    assert all(len(set(one)) == 10 for one in more.tolist())
    assert np.bincount(more.ravel(), minlength=25).std() < 4
    assert cav.shared_share(np.array([[1, 2], [2, 3], [4, 5]])) == pytest.approx(0.5 / 3)


@pytest.mark.parametrize("inverse_l2", [0.01, 0.3, 100.0])
def test_classifiers_are_scikit_learns_all_at_once(inverse_l2):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    positive, negative = rng.normal(0.5, 1, (3, 12, 40)), rng.normal(0, 1, (3, 12, 40))
    weights, intercepts = cav.classifiers(positive, negative, inverse_l2=inverse_l2)
    for k in range(3):
        full = LogisticRegression(C=inverse_l2, solver="newton-cholesky", tol=1e-10, max_iter=500)
        full.fit(np.concatenate([positive[k], negative[k]]), np.repeat([1, 0], 12))
        assert np.allclose(weights[k], full.coef_[0], atol=1e-4)
        assert intercepts[k] == pytest.approx(full.intercept_[0], abs=1e-4)
    turned, _ = cav.classifiers(negative, positive, inverse_l2=inverse_l2)
    assert np.allclose(turned, -weights, atol=1e-6)


def test_alignment_is_the_mean_cosine():
    gradients = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert cav.alignment(gradients, np.array([[2.0, 0.0], [0.0, -1.0]])).tolist() == [0.3, -0.4]
