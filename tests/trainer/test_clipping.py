"""Clip and weight statistics by hand, and clipping radii against solving for the scale."""

import math

import numpy as np
import pytest
import torch

from trainer.clip_criterion import critical_drifts
from trainer.clipping import ClippingPool, batch_metrics, ess_fraction

LN = math.log


def metrics(ratios, advantages, *, probabilities=None, mask=None, low=0.2, high=0.2):
    """Ask about a batch given by its importance ratios, one row per rollout, in float64."""
    ratio = torch.tensor(ratios, dtype=torch.float64)
    if probabilities is None:
        probability = torch.full_like(ratio, 0.5)
    else:
        probability = torch.tensor(probabilities, dtype=torch.float64)
    mask_B_T = torch.ones_like(ratio) if mask is None else torch.tensor(mask, dtype=torch.float64)
    advantage = torch.tensor(advantages, dtype=torch.float64)
    found = batch_metrics(ratio.log(), probability.log(), advantage, mask_B_T, low, high)
    return {name: float(value) for name, value in found.items()}


# -- one batch --------------------------------------------------------------------------------


def test_the_clip_removes_a_gradient_only_where_the_advantage_pushes_further_out():
    found = metrics(
        [
            [1.5, 0.5, 1.0, 1.5],  # A > 0: the two 1.5 are clipped, the 0.5 is not
            [1.5, 0.5, 1.0, 0.5],  # A < 0: the two 0.5 are clipped, the 1.5 is not
        ],
        [1.0, -1.0],
    )
    assert found["clip_fraction_high"] == pytest.approx(2 / 8)
    assert found["clip_fraction_low"] == pytest.approx(2 / 8)
    assert found["outside_clip_fraction"] == pytest.approx(6 / 8)  # whatever the sign


def test_the_two_sides_have_ranges_of_their_own():
    ratios = [[1.25, 1.35, 0.85, 0.75]]
    wide_above = {"low": 0.2, "high": 0.3}
    assert metrics(ratios, [1.0], **wide_above)["clip_fraction_high"] == pytest.approx(1 / 4)
    assert metrics(ratios, [-1.0], **wide_above)["clip_fraction_low"] == pytest.approx(1 / 4)
    assert metrics(ratios, [-1.0], **wide_above)["clip_fraction_high"] == 0
    assert metrics(ratios, [1.0], **wide_above)["outside_clip_fraction"] == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [
        (1.5, 1.0, False),  # exactly 1 + ε is inside
        (math.nextafter(1.5, 2), 1.0, True),
        (math.nextafter(1.5, 1), 1.0, False),
        (math.nextafter(1.5, 2), -1.0, False),
        (0.5, -1.0, False),  # exactly 1 − ε is inside
        (math.nextafter(0.5, 0), -1.0, True),
        (math.nextafter(0.5, 1), -1.0, False),
        (math.nextafter(0.5, 0), 1.0, False),
    ],
)
def test_a_ratio_is_clipped_just_beyond_the_range_and_not_at_its_end(ratio, advantage, clipped):
    # exp(log r) must give r back to the last bit for a boundary to mean anything.
    log_ratio = torch.tensor([[LN(ratio)]], dtype=torch.float64)
    while float(log_ratio.exp()) != ratio:
        log_ratio = torch.nextafter(
            log_ratio, torch.full_like(log_ratio, math.copysign(9, ratio - float(log_ratio.exp())))
        )
    one = torch.ones(1, 1, dtype=torch.float64)
    found = batch_metrics(log_ratio, -one, one[0] * advantage, one, 0.5, 0.5)
    removed = float(found["clip_fraction_low"] + found["clip_fraction_high"])
    assert removed == (1.0 if clipped else 0.0)
    assert float(found["outside_clip_fraction"]) == (not 0.5 <= ratio <= 1.5)


def test_clipped_gradient_mass_weighs_each_token_by_what_its_gradient_would_be():
    # r|A|(1−p): 1.5·2·(1−0.2) = 2.4 clipped, 1·2·(1−0.9) = 0.2 not; 0.5·1·(1−0.6) = 0.2 clipped,
    # 1.2·1·(1−0.5) = 0.6 not, the ratio of which moved against A < 0.
    found = metrics([[1.5, 1.0], [0.5, 1.2]], [2.0, -1.0], probabilities=[[0.2, 0.9], [0.6, 0.5]])
    assert found["clipped_gradient_mass"] == pytest.approx((2.4 + 0.2) / (2.4 + 0.2 + 0.2 + 0.6))
    assert found["clip_fraction_low"] + found["clip_fraction_high"] == pytest.approx(2 / 4)


def test_approx_kl_and_log_ratio_rms_by_hand():
    found = metrics([[math.e, 1.0]], [1.0])
    # k3 = r − 1 − ln r: (e − 1 − 1 + 0) / 2; ℓ = 1, 0.
    assert found["approx_kl"] == pytest.approx((math.e - 2) / 2)
    assert found["log_ratio_rms"] == pytest.approx(math.sqrt(1 / 2))


def test_approx_kl_keeps_its_precision_at_tiny_drifts():
    log_ratio = torch.tensor([[1e-3, -1e-3]])  # k3 = ℓ²/2 + …; r − 1 − ℓ in fp32 would be noise
    one = torch.ones(1, 2)
    found = batch_metrics(log_ratio, -one, torch.ones(1), one, 0.2, 0.2)
    assert float(found["approx_kl"]) == pytest.approx(5e-7, rel=0.2)


def test_m2_counts_only_tokens_that_moved_the_way_the_advantage_pushes():
    found = metrics([[math.e, math.exp(-3.0)], [math.e, math.exp(-2.0)]], [1.0, -1.0])
    # A > 0 and ℓ = 1: counts 1; A < 0 and ℓ = −2: counts 4; ℓ = −3 with A > 0 and 1 with A < 0 not.
    assert found["m2"] == pytest.approx((1 + 4) / 2)


def test_effective_sample_sizes_of_tokens_and_of_sequences():
    found = metrics([[2.0, 2.0], [1.0, 1.0]], [1.0, -1.0])
    # tokens 2, 2, 1, 1: 6² / (4·10); sequences 2·2 = 4 and 1: 5² / (2·17).
    assert found["ess_fraction"] == pytest.approx(36 / 40)
    assert found["sequence_ess_fraction"] == pytest.approx(25 / 34)


def test_padding_counts_nowhere():
    short = metrics([[1.5, 0.9], [0.5, 1.1]], [1.0, -2.0], mask=[[1, 1], [1, 0]])
    junk = metrics([[1.5, 0.9, 7.0], [0.5, 1e-9, 9.0]], [1.0, -2.0], mask=[[1, 1, 0], [1, 0, 0]])
    assert short == pytest.approx(junk)
    assert short["clip_fraction_high"] == pytest.approx(1 / 3)
    assert short["clip_fraction_low"] == pytest.approx(1 / 3)


def test_on_policy_nothing_is_clipped_and_every_weight_counts():
    found = metrics([[1.0] * 5] * 3, [1.0, -1.0, 0.5])
    assert math.isnan(found.pop("m2"))  # no token moved, and the mean of nothing is no number
    assert found == {
        "clip_fraction_low": 0,
        "clip_fraction_high": 0,
        "outside_clip_fraction": 0,
        "clipped_gradient_mass": 0,
        "approx_kl": 0,
        "log_ratio_rms": 0,
        "ess_fraction": 1,
        "sequence_ess_fraction": 1,
    }


def test_one_token_is_a_batch():
    found = metrics([[1.5]], [1.0])
    assert (found["clip_fraction_high"], found["clipped_gradient_mass"]) == (1, 1)
    assert (found["ess_fraction"], found["sequence_ess_fraction"]) == (1, 1)
    assert found["approx_kl"] == pytest.approx(0.5 - LN(1.5))


def test_without_an_advantage_the_clipped_mass_is_unknown_and_not_0():
    found = metrics([[1.5, 0.5]], [0.0])
    assert math.isnan(found["clipped_gradient_mass"])
    assert math.isnan(found["m2"])
    assert (found["clip_fraction_low"], found["clip_fraction_high"]) == (0, 0)
    assert found["outside_clip_fraction"] == 1


def test_statistics_of_no_token_are_unknown_and_not_0():
    found = metrics([[1.5, 0.5]], [1.0], mask=[[0, 0]])
    assert found.pop("sequence_ess_fraction") == 1  # one sequence, and the empty product is 1
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("log_ratio", "names"),
    [
        (math.inf, ("approx_kl", "log_ratio_rms", "ess_fraction")),
        (-math.inf, ("approx_kl", "log_ratio_rms")),
        (math.nan, ("approx_kl", "log_ratio_rms", "ess_fraction", "sequence_ess_fraction")),
    ],
)
def test_a_ratio_that_is_not_finite_shows_and_never_turns_into_a_number(log_ratio, names):
    one = torch.ones(1, 2)
    found = batch_metrics(torch.tensor([[log_ratio, 0.0]]), -one, torch.ones(1), one, 0.2, 0.2)
    for name in names:
        assert not math.isfinite(found[name]), name


def test_effective_sample_size_survives_log_weights_whose_exponentials_overflow():
    assert float(ess_fraction(torch.tensor([1000.0, 1000.0]))) == 1
    assert float(ess_fraction(torch.tensor([1000.0, 0.0]))) == pytest.approx(1 / 2)
    assert float(ess_fraction(torch.tensor([-1000.0, -1000.0, -1000.0]))) == 1
    assert math.isnan(ess_fraction(torch.tensor([])))


# -- clipping radii ---------------------------------------------------------------------------


def test_critical_drifts_by_hand():
    found = critical_drifts(
        torch.tensor([0.1, 0.1, -0.1, -0.1, 0.0, 0.1], dtype=torch.float64),
        torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 0.0], dtype=torch.float64),
        drift=2.0,
        epsilon_low=0.2,
        epsilon_high=0.3,
    )
    # Scaling by s clips when s·0.1 > ln 1.3 (A > 0) or −s·0.1 < ln 0.8 (A < 0); drift is 2·s.
    assert found.tolist() == pytest.approx(
        [2 * LN(1.3) / 0.1, math.inf, math.inf, 2 * LN(0.8) / -0.1, math.inf, math.inf]
    )


class Batch:
    """A random batch: log-ratios seen at some drift, and advantages of which a part is 0."""

    def __init__(self, rng, tokens, drift, share_without_advantage):
        self.drift = drift
        self.log_ratio = rng.standard_t(4, tokens) * 0.05 * drift
        self.advantage = rng.choice([-1.2, -0.4, 0.7, 1.5], tokens)
        self.advantage[rng.random(tokens) < share_without_advantage] = 0

    def into(self, pool, low, high):
        log_ratio = torch.from_numpy(self.log_ratio)
        advantage = torch.from_numpy(self.advantage)
        pool.add(critical_drifts(log_ratio, advantage, self.drift, low, high), advantage)

    def clipped_at(self, radius, low, high):
        """Count the tokens that are clipped when this batch is scaled to another drift."""
        scaled = self.log_ratio * (radius / self.drift)
        with np.errstate(over="ignore"):
            ratio = np.exp(scaled)
        up = (self.advantage > 0) & (ratio > 1 + high)
        down = (self.advantage < 0) & (ratio < 1 - low)
        return int((up | down).sum())


def solved(batches, criterion, low, high):
    """Find by bisection the drift at which the predicted active-clip fraction reaches p*."""
    tokens = sum(batch.log_ratio.size for batch in batches)

    def fraction(radius):
        return sum(batch.clipped_at(radius, low, high) for batch in batches) / tokens

    below, above = 0.0, 1e6
    if fraction(above) < criterion:
        return math.inf
    for _ in range(200):
        middle = (below + above) / 2
        below, above = (below, middle) if fraction(middle) >= criterion else (middle, above)
    return above


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.4)])
def test_a_radius_is_the_drift_at_which_the_predicted_clip_fraction_reaches_its_criterion(
    low, high
):
    rng = np.random.default_rng(0)
    batches = [Batch(rng, 30_000, drift, 0.3) for drift in (0.5, 1.0, 2.5, 0.2, 1.7)]
    pool = ClippingPool()
    for batch in batches:
        batch.into(pool, low, high)
    radii = pool.radii()
    assert list(radii) == ["0.0005", "0.001", "0.003", "0.01", "0.03", "0.1"]
    assert list(radii.values()) == sorted(radii.values())
    for criterion, radius in radii.items():
        assert radius == pytest.approx(solved(batches, float(criterion), low, high), rel=1e-5)


@pytest.mark.parametrize(
    ("criterion", "needed"), [("0.1", 500), ("0.01", 5000), ("0.001", 50_000), ("0.0005", 100_000)]
)
def test_a_radius_needs_50_clips_worth_of_tokens_with_an_advantage(criterion, needed):
    def radius(tokens):
        pool = ClippingPool()
        drifts, advantage = torch.ones(tokens + 7), torch.ones(tokens + 7)
        advantage[:7] = 0  # these are pooled, and do not help
        pool.add(drifts, advantage)
        return pool.radii()[criterion]

    assert radius(needed - 1) is None
    assert radius(needed) == 1


def test_an_empty_pool_knows_no_radius():
    assert set(ClippingPool().radii().values()) == {None}


def test_a_radius_is_infinite_when_too_few_tokens_would_ever_be_clipped():
    advantage = torch.ones(1000)

    def radius(clipped):
        drifts = torch.full((1000,), math.inf)
        drifts[:clipped] = 2.0
        pool = ClippingPool()
        pool.add(drifts, advantage)
        return pool.radii()["0.1"]

    assert radius(99) == math.inf
    assert radius(100) == 2.0  # 100 of 1 000 tokens are the 10 %
    assert radius(101) == 2.0


def test_tokens_without_an_advantage_count_as_never_clipped():
    pool = ClippingPool()
    pool.add(torch.full((500,), 3.0), torch.ones(500))
    assert pool.radii()["0.1"] == 3.0
    pool.add(torch.full((4500,), 1.0), torch.zeros(4500))
    assert pool.radii()["0.1"] == 3.0  # 500 of 5 000 tokens are still 10 %
    pool.add(torch.full((1,), 1.0), torch.zeros(1))
    assert pool.radii()["0.1"] == math.inf  # 500 of 5 001 are not


def test_old_batches_are_forgotten_when_newer_ones_fill_the_pool():
    pool = ClippingPool(capacity=1000)
    old, new = torch.full((600,), 1.0), torch.full((600,), 5.0)
    pool.add(old, torch.ones(600))
    pool.add(new, torch.ones(600))
    assert pool.radii()["0.1"] == 1.0  # without the old batch 600 of 1 000 tokens would be left
    pool.add(new, torch.ones(600))
    assert pool.radii()["0.1"] == 5.0


def test_a_batch_is_forgotten_with_the_tokens_that_had_no_advantage():
    pool = ClippingPool(capacity=600)
    half = torch.tensor([1.0, 0.0]).repeat(600)
    pool.add(torch.full((1200,), math.inf), half)
    pool.add(torch.full((700,), math.inf), torch.zeros(700))
    tenth = torch.full((600,), math.inf)
    tenth[:60] = 5.0
    pool.add(tenth, torch.ones(600))
    assert pool.radii()["0.1"] == 5.0  # 60 of 600; with the 1 900 forgotten ones it were inf
