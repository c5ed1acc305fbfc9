"""Every loss, and what its clip takes, against loops over numbers that know nothing of tensors."""

import math

import pytest
import torch

from trainer.clip_criterion import clip_of, loss_critical_drifts
from trainer.clipping import batch_metrics
from trainer.gradients import surrogate
from trainer.losses import LOSSES, clipped_share
from trainer.objective import Objective, centred_rewards, kl_penalty

GROUP, BUDGET = 3, 6
RANGES = {
    "grpo": (0.2, 0.3),
    "dr_grpo": (0.1, 0.2),
    "gspo": (0.05, 0.08),
    "cispo": (math.inf, 1.5),
    "tis": (math.inf, 0.5),
    "decoupled": (0.15, 0.2),
}
EVERY_LOSS = list(LOSSES)


class Batch:
    """Four ragged groups of three answers: one without variance, one-token answers, wild ratios."""

    def __init__(self, seed):
        random = torch.Generator().manual_seed(seed)
        self.lengths = [1, 5, 2, 1, 1, 1, 4, 3, 5, 2, 5, 1]
        self.rewards = torch.rand(4, GROUP, generator=random, dtype=torch.float64)
        self.rewards[1] = 0.1  # no binary fraction: its mean may differ from it by rounding
        shape = (12, max(self.lengths))
        draw = lambda: torch.randn(shape, generator=random, dtype=torch.float64)  # noqa: E731
        self.mask = torch.tensor(
            [[float(t < n) for t in range(shape[1])] for n in self.lengths], dtype=torch.float64
        )
        self.log_ratio = draw() * 0.3 * self.mask
        self.log_ratio[1, 0], self.log_ratio[6, 1], self.log_ratio[8, 2] = 6.0, -6.0, 4.0
        self.proximal = draw() * 0.2 * self.mask
        self.proximal[7, 0], self.proximal[10, 4] = 3.0, -3.0


def objective_of(loss):
    low, high = RANGES[loss]
    return Objective(
        loss=loss, epsilon_low=low, epsilon_high=high, group_size=GROUP, token_budget=BUDGET
    )


def reference_advantage(rewards, row, *, scaled):
    group = rewards[row // GROUP * GROUP : row // GROUP * GROUP + GROUP]
    if max(group) == min(group):
        return 0.0
    mean = sum(group) / GROUP
    spread = math.sqrt(sum((r - mean) ** 2 for r in group) / GROUP) if scaled else 1.0
    return (rewards[row] - mean) / spread


def pessimistic(ratio, advantage, low, high):
    return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def reference_loss(loss, batch, log_ratio, constant):
    """Return the loss at ``log_ratio``; what a loss holds constant is taken from ``constant``.

    Both are lists of lists. The proximal policy is where the batch says, so log π_θ − log π_prox
    moves with log π_θ.
    """
    low, high = RANGES[loss]
    rewards = batch.rewards.reshape(-1).tolist()
    proximal = batch.proximal.tolist()
    total = 0.0
    for row, length in enumerate(batch.lengths):
        advantage = reference_advantage(rewards, row, scaled=loss != "dr_grpo")
        now, held = log_ratio[row][:length], constant[row][:length]
        near = [p + (a - b) for p, a, b in zip(proximal[row], now, held, strict=False)]
        if loss in ("grpo", "dr_grpo"):
            gains = [pessimistic(math.exp(x), advantage, low, high) for x in now]
        elif loss == "gspo":
            whole = math.exp(sum(now) / length)
            gains = [pessimistic(whole, advantage, low, high)] * length
        elif loss in ("cispo", "tis"):
            gains = [
                min(math.exp(h), 1 + high) * advantage * x for x, h in zip(now, held, strict=True)
            ]
        else:
            gains = [
                math.exp(h - p) * pessimistic(math.exp(u), advantage, low, high)
                for u, h, p in zip(near, held, proximal[row], strict=False)
            ]
        divisor = float(length)
        if loss == "dr_grpo":
            divisor = BUDGET
        if loss == "cispo":
            first = row // GROUP * GROUP
            divisor = sum(batch.lengths[first : first + GROUP]) / GROUP
        total += sum(gains) / divisor
    return -total / len(batch.lengths)


def by_autograd(loss, batch):
    """Return loss and gradient with respect to log π_θ of every token."""
    log_prob = batch.log_ratio.clone().requires_grad_()
    objective = objective_of(loss)
    near = batch.proximal + (log_prob - batch.log_ratio)
    found = objective.surrogate(log_prob, objective.advantages(batch.rewards), batch.mask, near)
    (gradient,) = torch.autograd.grad(found, log_prob)
    return float(found.detach()), gradient


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_a_loss_and_its_gradient_are_those_of_a_loop_over_numbers(loss, seed):
    batch = Batch(seed)
    found, gradient = by_autograd(loss, batch)
    here = batch.log_ratio.tolist()
    assert found == pytest.approx(reference_loss(loss, batch, here, here), rel=1e-12)
    for row, length in enumerate(batch.lengths):
        assert not gradient[row, length:].any()
        for t in range(length):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [list(each) for each in here]
                moved[row][t] += step
                ends.append(reference_loss(loss, batch, moved, here))
            slope = (ends[0] - ends[1]) / 2e-6
            assert float(gradient[row, t]) == pytest.approx(slope, rel=1e-5, abs=1e-8), (row, t)


def clipped(loss, batch):
    objective = objective_of(loss)
    advantage = objective.advantages(batch.rewards)
    low, high = RANGES[loss]
    clip = clip_of(loss, batch.log_ratio, advantage, batch.mask, low, high, batch.proximal)
    return clip, advantage


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_what_the_clip_keeps_is_the_gradient_of_the_loss(loss, seed):
    batch = Batch(seed)
    clip, advantage = clipped(loss, batch)
    _, gradient = by_autograd(loss, batch)
    divisor = objective_of(loss).divisors(batch.mask).unsqueeze(1)
    kept = clip.kept * advantage.unsqueeze(1) * batch.mask / divisor / len(batch.lengths)
    torch.testing.assert_close(-gradient, kept, rtol=1e-12, atol=1e-15)
    cut = ((clip.low | clip.high) & batch.mask.bool()).sum()
    assert 0 < cut < batch.mask.sum()
    away = clip.weight != clip.kept
    assert torch.equal(away & (advantage != 0).unsqueeze(1), clip.low | clip.high)


@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_without_a_range_the_gradient_is_what_the_clip_calls_its_weight(loss):
    batch = Batch(1)
    clip, advantage = clipped(loss, batch)
    objective = objective_of(loss)
    log_prob = batch.log_ratio.clone().requires_grad_()
    found = surrogate("unclipped", objective, log_prob, advantage, batch.mask)
    (gradient,) = torch.autograd.grad(found, log_prob)
    divisor = objective.divisors(batch.mask).unsqueeze(1)
    weight = clip.weight * advantage.unsqueeze(1) * batch.mask / divisor / len(batch.lengths)
    torch.testing.assert_close(-gradient, weight, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_clip_fractions_and_the_clipped_mass_are_those_of_a_loop_over_tokens(loss, seed):
    batch = Batch(seed)
    low, high = RANGES[loss]
    objective = objective_of(loss)
    probability = torch.full_like(batch.log_ratio, 0.3)
    probability[1, 0] = 0.9
    metrics = batch_metrics(
        batch.log_ratio,
        probability.log(),
        objective.advantages(batch.rewards),
        batch.mask,
        low,
        high,
        loss=loss,
        proximal_log_ratio_B_T=batch.proximal,
    )
    rewards = batch.rewards.reshape(-1).tolist()
    counts = {"low": 0, "high": 0, "outside": 0}
    taken = mass = 0.0
    for row, length in enumerate(batch.lengths):
        advantage = reference_advantage(rewards, row, scaled=loss != "dr_grpo")
        answer = math.exp(float(batch.log_ratio[row, :length].sum()) / length)
        for t in range(length):
            weight = ratio = math.exp(float(batch.log_ratio[row, t]))
            if loss == "gspo":
                weight = ratio = answer
            if loss == "decoupled":
                ratio = math.exp(float(batch.proximal[row, t]))
            truncates = loss in ("cispo", "tis")
            is_low = not truncates and ratio < 1 - low and advantage < 0
            counts["low"] += is_low
            pushed = advantage != 0 if truncates else advantage > 0
            is_high = ratio > 1 + high and pushed
            counts["high"] += is_high
            counts["outside"] += ratio > 1 + high or ratio < 1 - low
            share = abs(advantage) * (1 - float(probability[row, t]))
            mass += weight * share
            if is_low or is_high:
                taken += (weight - (1 + high) if truncates else weight) * share
    tokens = sum(batch.lengths)
    assert float(metrics["clip_fraction_high"]) == pytest.approx(counts["high"] / tokens)
    assert float(metrics["outside_clip_fraction"]) == pytest.approx(counts["outside"] / tokens)
    assert float(metrics["clipped_gradient_mass"]) == pytest.approx(taken / mass, rel=1e-9)
    if LOSSES[loss].clips_below:
        assert float(metrics["clip_fraction_low"]) == pytest.approx(counts["low"] / tokens)
    else:
        assert "clip_fraction_low" not in metrics, "never a 0 for what cannot happen"


# -- by hand ----------------------------------------------------------------------------------


def gradient_of(loss, ratios, advantage, low=0.2, high=0.2, near=None):
    """Return minus the gradient for one group, whose log-ratios are given as ratios."""
    log_ratio = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    mask = torch.ones_like(log_ratio)
    objective = Objective(
        loss=loss, epsilon_low=low, epsilon_high=high, group_size=len(ratios), token_budget=4
    )
    u = None
    if near is not None:
        u = torch.tensor(near, dtype=torch.float64).log() + log_ratio - log_ratio.detach()
    found = objective.surrogate(log_ratio, torch.tensor(advantage).double(), mask, u)
    (gradient,) = torch.autograd.grad(found, log_ratio)
    return (-gradient).tolist()


def test_gspo_judges_an_answer_by_the_geometric_mean_of_its_ratios():
    # √(4·0.25) = 1: inside, though both tokens are far outside; each bears s·A/2 = 1/2.
    assert gradient_of("gspo", [[4.0, 0.25]], [1.0])[0] == pytest.approx([0.5, 0.5])
    # √(1.44·1) = 1.2 = 1 + ε is inside, √(1.69) = 1.3 outside, and with A < 0 it is not removed.
    assert gradient_of("gspo", [[1.44, 1.0]], [1.0], 0.2, 0.21)[0] == pytest.approx([0.6, 0.6])
    assert gradient_of("gspo", [[1.69, 1.0]], [1.0])[0] == [0, 0]
    assert gradient_of("gspo", [[1.69, 1.0]], [-1.0])[0] == pytest.approx([-0.65, -0.65])


@pytest.mark.parametrize("loss", ["cispo", "tis"])
def test_a_truncated_weight_keeps_the_gradient_at_the_cap_for_either_sign(loss):
    # cap 1 + 1 = 2: ratio 8 weighs 2, ratio 0.01 weighs itself; two tokens share the mean.
    found = gradient_of(loss, [[8.0, 0.01]], [3.0], math.inf, 1.0)[0]
    assert found == pytest.approx([2 * 3 / 2, 0.01 * 3 / 2])
    assert gradient_of(loss, [[8.0, 0.01]], [-3.0], math.inf, 1.0)[0][0] == pytest.approx(-3)


def test_decoupled_weighs_by_the_behavior_policy_and_clips_by_the_proximal_one():
    # r = 3, u = 1.5 > 1.2: removed with A > 0; u = 1.1: weight π_prox/π_φ = 3/1.1, times u = r = 3.
    found = gradient_of("decoupled", [[3.0, 3.0]], [1.0], near=[[1.5, 1.1]])[0]
    assert found == pytest.approx([0, 3 / 2])
    # At the first update u = 1, so however far r is, nothing is removed.
    assert gradient_of("decoupled", [[3.0, 0.1]], [1.0])[0] == pytest.approx([1.5, 0.05])


def test_dr_grpo_divides_by_neither_length_nor_standard_deviation():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1]])
    assert centred_rewards(rewards)[0].tolist() == [0.75, -0.25, -0.25, -0.25]
    assert centred_rewards(rewards)[1].tolist() == [0, 0, 0, 0]
    # Budget 4: a token of a one-token answer bears A/4, like each of a two-token answer.
    assert gradient_of("dr_grpo", [[1.0]], [1.0])[0] == pytest.approx([1 / 4])
    assert gradient_of("dr_grpo", [[1.0, 1.0]], [1.0])[0] == pytest.approx([1 / 4, 1 / 4])


@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_on_policy_every_loss_has_the_policy_gradient_of_its_normalisation(loss):
    batch = Batch(0)
    objective = objective_of(loss)
    advantage = objective.advantages(batch.rewards)
    fresh = torch.zeros_like(batch.log_ratio).requires_grad_()
    found = objective.surrogate(fresh, advantage, batch.mask)
    (gradient,) = torch.autograd.grad(found, fresh)
    divisor = objective.divisors(batch.mask).unsqueeze(1)
    plain = advantage.unsqueeze(1) * batch.mask / divisor / len(batch.lengths)
    torch.testing.assert_close(-gradient, plain)


def test_a_kl_penalty_is_divided_like_the_loss_it_is_added_to():
    log_prob, reference = torch.log(torch.tensor([[0.5, 0.5], [0.5, 0.5]])), torch.zeros(2, 2)
    mask, k3 = torch.tensor([[1.0, 1.0], [1.0, 0.0]]), 2 - 1 - math.log(2)  # π_ref/π_θ = 2
    assert float(kl_penalty(log_prob, reference, mask)) == pytest.approx(k3)
    by_budget = kl_penalty(log_prob, reference, mask, torch.tensor([4.0, 4.0]))
    assert float(by_budget) == pytest.approx(k3 * (2 / 4 + 1 / 4) / 2)


# -- at which drift it clips ------------------------------------------------------------------


@pytest.mark.parametrize("loss", [name for name in EVERY_LOSS if name != "decoupled"])
def test_a_critical_drift_is_where_scaling_the_log_ratios_makes_the_clip_act(loss):
    batch = Batch(2)
    low, high = RANGES[loss]
    _, advantage = clipped(loss, batch)
    found, _ = loss_critical_drifts(loss, batch.log_ratio, advantage, batch.mask, 2.0, low, high)
    for radius in (0.3, 1.0, 2.0, 5.0):
        scaled = batch.log_ratio * (radius / 2.0)
        clip = clip_of(loss, scaled, advantage, batch.mask, low, high)
        acted = (clip.low | clip.high) & batch.mask.bool()
        if loss == "gspo":  # answers are clipped whole, and counted once
            acted = acted[:, :1]
        assert int((found < radius).sum()) == int(acted.sum()), radius
    assert 0 < int((found < 5.0).sum()) < len(found)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "gspo", "cispo", "tis"])
def test_a_wider_range_is_reached_at_no_smaller_drift(loss):
    batch = Batch(3)
    low, high = RANGES[loss]
    _, advantage = clipped(loss, batch)
    narrow, wide = (
        loss_critical_drifts(
            loss, batch.log_ratio, advantage, batch.mask, 1.0, min(0.9, k * low), k * high
        )[0]
        for k in (1, 2)
    )
    assert (wide >= narrow).all()
    assert (wide > narrow).any()


def test_the_active_share_is_unknown_where_an_end_that_is_clipped_is():
    assert clipped_share("grpo", 0.25, 0.5) == 0.75
    assert clipped_share("grpo", None, 0.5) is None
    assert clipped_share("grpo", 0.25, None) is None
    assert clipped_share("tis", None, 0.5) == 0.5
    assert clipped_share("cispo", None, None) is None
