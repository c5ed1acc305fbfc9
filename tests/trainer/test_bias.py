"""The cross-fitted bias against an exact oracle: a tabular policy whose gradients are enumerated.

Six prompts, four answers, groups of three: 6·4³ = 384 group outcomes, so the surrogate-gradient
mapping H(θ, φ) is a finite sum. Shards are drawn from those outcomes; seeds are fixed beforehand.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from trainer.bias import (
    CountSketch,
    bias_of,
    cross_fitted,
    difference,
    gram_of,
    jackknifed,
    naive,
)

PROMPTS, ANSWERS, GROUP = 6, 4, 3
SHARDS, GROUPS_PER_SHARD, REPETITIONS = 16, 24, 1000
EPSILON = 0.2
OUTCOMES = np.array(list(itertools.product(range(ANSWERS), repeat=GROUP)))


class Tabular:
    """A softmax policy over answers for each prompt, with its gradients written out by hand."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.logits = rng.normal(size=(PROMPTS, ANSWERS))
        self.rewards = rng.normal(size=(PROMPTS, ANSWERS))
        self.direction = rng.normal(size=(PROMPTS, ANSWERS))

    def policy(self, drift: float):
        z = np.exp(self.logits + drift * self.direction)
        return z / z.sum(axis=1, keepdims=True)

    def probabilities(self, drift: float):
        """Chance of each (prompt, group outcome) under the policy at a drift, [P·A^G]."""
        chances = self.policy(drift)[:, OUTCOMES].prod(axis=2)
        return (chances / PROMPTS).ravel()

    def gradients(self, drift: float, *, clipped: bool = True, corrected: bool = True):
        """Gradient of the surrogate at θ of each group outcome sampled at a drift, [P·A^G, P·A]."""
        theta, phi = self.policy(0.0), self.policy(drift)
        rows = []
        for p in range(PROMPTS):
            for outcome in OUTCOMES:
                reward = self.rewards[p, outcome]
                spread = reward.std()
                advantage = (reward - reward.mean()) / spread if spread > 1e-6 else 0 * reward
                gradient = np.zeros((PROMPTS, ANSWERS))
                for a, adv in zip(outcome, advantage, strict=True):
                    ratio = theta[p, a] / phi[p, a] if corrected else 1.0
                    too_far = (ratio > 1 + EPSILON and adv > 0) or (ratio < 1 - EPSILON and adv < 0)
                    if clipped and too_far:
                        continue
                    gradient[p] += ratio * adv * (np.eye(ANSWERS)[a] - theta[p]) / GROUP
                rows.append(gradient.ravel())
        return np.array(rows)


class Cell:
    """One true bias and many repetitions of its estimate from shards."""

    def __init__(self, drift: float, seed: int) -> None:
        tabular = Tabular(seed=7)
        self.stale, self.fresh = tabular.gradients(drift), tabular.gradients(0.0)
        self.p_stale, self.p_fresh = tabular.probabilities(drift), tabular.probabilities(0.0)
        self.h_fresh = self.p_fresh @ self.fresh
        self.bias = self.p_stale @ self.stale - self.h_fresh
        self._rng = np.random.default_rng(seed)

    def shards(self):
        """Mean gradients of each shard, stale and fresh, drawn apart."""
        size = (SHARDS, GROUPS_PER_SHARD)
        stale = self._rng.choice(len(self.p_stale), p=self.p_stale, size=size)
        fresh = self._rng.choice(len(self.p_fresh), p=self.p_fresh, size=size)
        return {
            "stale": torch.tensor(self.stale[stale].mean(axis=1)),
            "fresh": torch.tensor(self.fresh[fresh].mean(axis=1)),
        }


CELLS = {"zero": (0.0, 101), "small": (0.1, 102), "large": (0.8, 103)}


@pytest.fixture(scope="module", params=list(CELLS))
def repeated(request):
    """Give a cell's truth and its estimates: squared bias, harmful part, and naive square."""
    cell = Cell(*CELLS[request.param])
    estimates, harmful, naives, norms = [], [], [], []
    for _ in range(REPETITIONS):
        gram = gram_of(cell.shards())
        found = bias_of(gram, "stale")
        estimates.append(found.squared)
        harmful.append(found.harmful)
        norms.append(found.norm_squared)
        naives.append(naive(difference(gram, "stale", "fresh", "b")["b", "b"]))
    return request.param, cell, estimates, harmful, norms, naives


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))


def test_the_three_cells_are_what_their_names_say():
    relative = {}
    for name, arguments in CELLS.items():
        cell = Cell(*arguments)
        relative[name] = np.linalg.norm(cell.bias) / np.linalg.norm(cell.h_fresh)
    assert relative["zero"] < 1e-12
    assert 0.02 < relative["small"] < 0.2
    assert relative["large"] > 0.5


def test_the_estimates_are_unbiased_and_the_naive_one_is_not(repeated):
    _, cell, estimates, harmful, norms, naives = repeated
    truths = {
        "squared": (cell.bias @ cell.bias, [e.value for e in estimates]),
        "harmful": (cell.bias @ cell.h_fresh, [e.value for e in harmful]),
        "norm": (cell.h_fresh @ cell.h_fresh, [e.value for e in norms]),
    }
    for truth, values in truths.values():
        mean, error = mean_and_error(values)
        assert abs(mean - truth) < 3 * error
    mean, error = mean_and_error(naives)
    assert mean - cell.bias @ cell.bias > 10 * error, "the naive norm counts noise as bias"


def test_the_intervals_cover_the_truth_and_are_not_needlessly_wide(repeated):
    name, cell, estimates, _, _, _ = repeated
    truth = cell.bias @ cell.bias
    coverage = np.mean([e.low <= truth <= e.high for e in estimates])
    oracle_width = 2 * 1.96 * np.std([e.value for e in estimates], ddof=1)
    width = np.mean([e.high - e.low for e in estimates])
    assert coverage >= 0.88
    if name == "large":
        assert 0.92 <= coverage <= 0.98
    assert width <= 2 * oracle_width


def test_cross_fitting_uses_pairs_of_different_shards_only():
    # x = 1, 2, 4 and y = 3, 5, 7: Σ_{i≠j} x_i·y_j = 7·15 − (3 + 10 + 28) = 64; 64/(3·2) = 32/3.
    x, y = np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 7.0])
    assert cross_fitted(np.outer(x, y)) == pytest.approx(32 / 3)
    assert naive(np.outer(x, y)) == pytest.approx(7 / 3 * 5)


def test_a_difference_has_the_inner_products_of_the_differences():
    rng = np.random.default_rng(0)
    x, y = torch.tensor(rng.normal(size=(2, 4, 9)))
    gram = difference(gram_of({"x": x, "y": y}), "x", "y", "b")
    np.testing.assert_allclose(gram["b", "b"], (x - y) @ (x - y).T)
    np.testing.assert_allclose(gram["b", "y"], (x - y) @ y.T)
    np.testing.assert_allclose(gram["x", "b"], x @ (x - y).T)


def test_the_jackknife_of_a_mean_is_its_classical_standard_error():
    values = np.array([1.0, 4.0, 6.0, 9.0])
    found = jackknifed(
        {("x", "x"): np.diag(values)}, lambda g: float(np.trace(g["x", "x"]) / len(g["x", "x"]))
    )
    # Mean 5; deviations −4, −1, 1, 4: Σ² = 34; s² = 34/3; error = √(34/3/4) = 1.683; t_3 = 3.182.
    assert found.value == pytest.approx(5.0)
    assert found.stderr == pytest.approx(math.sqrt(34 / 12))
    assert found.high - found.value == pytest.approx(3.182446 * math.sqrt(34 / 12), rel=1e-6)


def test_fewer_than_three_shards_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        bias_of(gram_of({"stale": torch.ones(2, 3), "fresh": torch.ones(2, 3)}), "stale")


def test_a_bias_that_is_known_exactly_is_found_exactly():
    fresh = torch.tensor([[3.0, 4.0]]).repeat(16, 1)
    found = bias_of(gram_of({"stale": fresh + torch.tensor([0.0, -4.0]), "fresh": fresh}), "stale")
    # b = (0, −4): ‖b‖² = 16, ⟨b, H⟩ = −16, cosine of (3, 0) and (3, 4) = 0.6, relative 4/5.
    assert found.squared.value == pytest.approx(16)
    assert found.squared.stderr == pytest.approx(0)
    assert found.harmful.value == pytest.approx(-16)
    assert found.cosine.value == pytest.approx(0.6)
    assert found.relative == pytest.approx(0.8)


def test_a_policy_without_any_gradient_has_no_cosine_and_no_relative_bias():
    nothing = torch.zeros(16, 5)
    found = bias_of(gram_of({"stale": nothing, "fresh": nothing}), "stale")
    assert found.squared.value == 0
    assert math.isnan(found.cosine.value)
    assert math.isnan(found.relative)


def test_common_random_numbers_stay_unbiased_and_shrink_the_error():
    cell = Cell(0.15, seed=104)
    rng = np.random.default_rng(105)
    apart, common = [], []
    for _ in range(400):
        race = rng.exponential(size=(SHARDS, GROUPS_PER_SHARD, len(cell.p_stale)))
        stale, fresh = ((race / p).argmin(axis=2) for p in (cell.p_stale, cell.p_fresh))
        shards = {
            "stale": torch.tensor(cell.stale[stale].mean(axis=1)),
            "fresh": torch.tensor(cell.fresh[fresh].mean(axis=1)),
        }
        common.append(bias_of(gram_of(shards), "stale").squared.value)
        apart.append(bias_of(gram_of(cell.shards()), "stale").squared.value)
    mean, error = mean_and_error(common)
    assert abs(mean - cell.bias @ cell.bias) < 3 * error
    assert np.std(common) < 0.6 * np.std(apart)


def test_prompts_kept_disjoint_in_a_small_pool_would_bias_the_estimate():
    """Shards draw prompts independently: dealing a finite pool out correlates them negatively."""
    rng = np.random.default_rng(106)
    pool = rng.normal(size=(64, 3)) + 0.2
    truth = pool.mean(axis=0) @ pool.mean(axis=0)

    def estimate(prompts):
        rows = torch.tensor(pool[prompts].reshape(16, 4, 3).mean(axis=1))
        return cross_fitted(gram_of({"x": rows})["x", "x"])

    dealt = [estimate(rng.permutation(64)) for _ in range(400)]
    drawn = [estimate(rng.integers(64, size=64)) for _ in range(4000)]
    mean, error = mean_and_error(drawn)
    assert abs(mean - truth) < 3 * error
    mean, error = mean_and_error(dealt)
    assert truth - mean > 10 * error


def test_a_sketch_keeps_inner_products_within_its_stated_error():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 40_000, generator=rng)
    x, y = x / x.norm(), y / y.norm()
    rows, errors = 2**10, []
    for seed in range(200):
        sketch = CountSketch(40_000, torch.device("cpu"), rows=rows, seed=seed)
        assert not sketch.exact
        errors.append(float(torch.dot(sketch(x), sketch(y)) - torch.dot(x, y)))
    spread = np.std(errors, ddof=1)
    assert abs(np.mean(errors)) < 3 * spread / math.sqrt(len(errors))
    assert spread == pytest.approx(math.sqrt(1 / rows), rel=0.2)


def test_the_bias_of_sketched_gradients_agrees_with_the_exact_one():
    cell = Cell(0.8, seed=107)
    shards = cell.shards()
    torch.manual_seed(0)
    lift = torch.linalg.qr(torch.randn(6000, PROMPTS * ANSWERS, dtype=torch.float64))[0]
    wide = {kind: rows @ lift.T for kind, rows in shards.items()}
    sketch = CountSketch(6000, torch.device("cpu"), rows=1400)
    small = {kind: torch.stack([sketch(row) for row in rows]) for kind, rows in wide.items()}
    assert not sketch.exact
    exact, sketched = (bias_of(gram_of(each), "stale") for each in (wide, small))
    assert sketched.squared.value == pytest.approx(exact.squared.value, rel=0.1)
    assert sketched.cosine.value == pytest.approx(exact.cosine.value, abs=0.05)


def test_few_dimensions_are_not_sketched_at_all():
    sketch = CountSketch(1000, torch.device("cpu"))
    vector = torch.randn(1000)
    assert sketch.exact
    assert torch.equal(sketch(vector), vector)
    assert sketch(vector).data_ptr() != vector.data_ptr()
