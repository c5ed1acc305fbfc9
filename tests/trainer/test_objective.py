"""The algorithm's formulas by hand, and their gradient against an enumerated tabular policy."""

import itertools
import math

import numpy as np
import pytest
import torch

from trainer.objective import clipped_surrogate, group_advantages


def advantages(*groups):
    return group_advantages(torch.tensor(groups, dtype=torch.float64)).tolist()


def surrogate(ratios, advantage, mask=None, low=0.2, high=0.2):
    """Return the loss, and minus its gradient with respect to every log-ratio."""
    log_ratio = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    mask_B_T = torch.ones_like(log_ratio) if mask is None else torch.tensor(mask).double()
    advantage_B = torch.tensor(advantage, dtype=torch.float64)
    loss = clipped_surrogate(log_ratio, advantage_B, mask_B_T, low, high)
    torch.autograd.backward(loss)
    return float(loss.detach()), (-log_ratio.grad).tolist()


# -- advantages -------------------------------------------------------------------------------


def test_advantages_are_standard_scores_within_the_group():
    # mean 0.5, deviations ±0.5, standard deviation 0.5.
    assert advantages([1, 0, 0, 1]) == [[1, -1, -1, 1]]
    # mean 2, deviations 1, −1, 0, 0, variance 2/4.
    root = math.sqrt(2)
    assert advantages([3, 1, 2, 2])[0] == pytest.approx([root, -root, 0, 0])


def test_a_group_is_compared_with_itself_only():
    alone = advantages([1, 0, 0, 0])[0]
    assert advantages([1, 0, 0, 0], [100, 90, 80, 70])[0] == pytest.approx(alone)
    # mean 1/4, variance 3/16: (3/4)/√(3/16) = √3 and −1/√3.
    assert alone == pytest.approx([math.sqrt(3)] + 3 * [-1 / math.sqrt(3)])


@pytest.mark.parametrize("reward", [0.0, 1.0, -3.0, 0.1, 1e6])
def test_a_group_of_equal_rewards_teaches_exactly_nothing(reward):
    # 0.1 is no binary fraction: the mean of three may differ from it by rounding.
    assert group_advantages(torch.full((2, 3), reward)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_advantages_do_not_depend_on_the_scale_or_the_zero_of_the_reward():
    plain = advantages([0.3, -0.2, 0.9, 0.4])[0]
    assert advantages([3 - 100, -2 - 100, 9 - 100, 4 - 100])[0] == pytest.approx(plain)
    assert sum(plain) == pytest.approx(0)
    assert sum(a * a for a in plain) / 4 == pytest.approx(1)


# -- clipped surrogate ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "gradient"),
    [
        (1.5, 1.0, 1.2, 0.0),  # min(1.5, 1.2): clipped
        (1.5, -1.0, -1.5, -1.5),  # min(−1.5, −1.2): the penalty is not clipped
        (0.5, 1.0, 0.5, 0.5),  # min(0.5, 0.8)
        (0.5, -1.0, -0.8, 0.0),  # min(−0.5, −0.8): clipped
        (1.1, 2.0, 2.2, 2.2),
        (0.9, -2.0, -1.8, -1.8),
        (1.0, 3.0, 3.0, 3.0),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_the_surrogate_of_one_token_by_hand(ratio, advantage, gain, gradient):
    loss, found = surrogate([[ratio]], [advantage])
    assert loss == pytest.approx(-gain)
    # ∂(r·A)/∂log r = r·A where the clip does not act.
    assert found[0][0] == pytest.approx(gradient)


@pytest.mark.parametrize(("ratio", "advantage"), [(1.5, 1.0), (0.5, -1.0)])
def test_at_the_very_end_of_the_clip_range_the_gradient_is_whole(ratio, advantage):
    log_ratio = torch.tensor([[ratio]], dtype=torch.float64).log()
    assert float(log_ratio.exp()) == ratio
    _, found = surrogate([[ratio]], [advantage], low=0.5, high=0.5)
    assert found[0][0] == pytest.approx(ratio * advantage)


def test_the_clip_range_may_differ_above_and_below():
    assert surrogate([[1.35]], [1.0], low=0.1, high=0.3)[0] == pytest.approx(-1.3)
    assert surrogate([[0.85]], [-1.0], low=0.1, high=0.3)[0] == pytest.approx(0.9)
    assert surrogate([[1.25]], [1.0], low=0.1, high=0.3)[0] == pytest.approx(-1.25)


def test_tokens_are_averaged_within_a_rollout_and_then_over_rollouts():
    # rollout 1: (1.1 + 0.9 + 1)/3·1 = 1; rollout 2, one token: 1.2·(−2) = −2.4; mean −0.7.
    mask = [[1, 1, 1], [1, 0, 0]]
    loss, gradient = surrogate([[1.1, 0.9, 1.0], [1.2, 5.0, 0.1]], [1.0, -2.0], mask)
    assert loss == pytest.approx(0.7)
    assert gradient[0] == pytest.approx([1.1 / 6, 0.9 / 6, 1.0 / 6])
    assert gradient[1] == pytest.approx([-2.4 / 2, 0, 0])


def test_a_rollout_without_a_token_counts_as_0():
    loss, gradient = surrogate([[1.1], [1.1]], [1.0, 1.0], [[1], [0]])
    assert loss == pytest.approx(-1.1 / 2)
    assert gradient[1] == [0]


def test_on_policy_the_loss_of_group_advantages_is_0_whatever_they_are():
    advantage = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.5]])).reshape(-1).tolist()
    loss, gradient = surrogate([[1.0, 1.0]] * 4, advantage)
    assert loss == pytest.approx(0, abs=1e-7)  # so it says nothing about progress (theory.md §4)
    assert gradient[0][0] == pytest.approx(advantage[0] / 8)


# -- the independent oracle: everything that can happen is enumerated -------------------------
#
# A tabular policy writes up to two of the tokens a, b and END: its logits are one row per context
# (nothing yet, after a, after b). There are 7 sequences, and 49 groups of two.

END = 2
SEQUENCES = [(END,), *((first, second) for first in (0, 1) for second in (0, 1, END))]
REWARDS = np.array([0.0, 1.0, 0.2, 0.0, 0.7, 0.1, 1.0])
LOW, HIGH = 0.1, 0.25


def contexts(sequence):
    """Return (context, token) of each token: context 0 at first, then 1 after a and 2 after b."""
    return [(0 if t == 0 else 1 + sequence[0], token) for t, token in enumerate(sequence)]


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def probability(policy, sequence):
    return math.prod(policy[context, token] for context, token in contexts(sequence))


def random_logits(seed, spread):
    return np.random.default_rng(seed).normal(size=(3, 3)) * spread


def groups(behavior):
    """Yield every group of two sequences with its exact probability under φ."""
    for one, two in itertools.product(range(7), repeat=2):
        pair = SEQUENCES[one], SEQUENCES[two]
        yield (one, two), probability(behavior, pair[0]) * probability(behavior, pair[1])


def enumerated_mapping(theta, phi):
    """Return H(θ, φ) and the share of tokens that the clip removes, in plain numpy.

    H = E_φ[mean over the group of mean over tokens of A·r·∇log π_θ, where the clip lets it pass].
    """
    policy, behavior = softmax(theta), softmax(phi)
    total, removed, tokens = np.zeros((3, 3)), 0.0, 0.0
    for members, weight in groups(behavior):
        rewards = REWARDS[list(members)]
        spread = rewards.std()
        for member, reward in zip(members, rewards, strict=True):
            advantage = (reward - rewards.mean()) / spread if spread > 0 else 0.0
            steps = contexts(SEQUENCES[member])
            for context, token in steps:
                ratio = policy[context, token] / behavior[context, token]
                tokens += weight
                if (advantage > 0 and ratio > 1 + HIGH) or (advantage < 0 and ratio < 1 - LOW):
                    removed += weight
                    continue
                direction = -policy[context]
                direction[token] += 1  # ∇ log softmax
                total[context] += weight / 2 / len(steps) * advantage * ratio * direction
    return total, removed / tokens


def log_probs(logits, sequence):
    """Return log π of each token, padded to two, with gradient."""
    rows = torch.log_softmax(logits, dim=1)
    found = [rows[context, token] for context, token in contexts(sequence)]
    return torch.stack(found + [rows.new_zeros(())] * (2 - len(found)))


def mapping_by_autograd(theta, phi):
    """Return minus the gradient of the expected loss: the trainer's formulas, exact weights."""
    logits = torch.tensor(theta, requires_grad=True)
    behavior_logits = torch.tensor(phi)
    total = torch.zeros((), dtype=torch.float64)
    for members, weight in groups(softmax(phi)):
        sequences = [SEQUENCES[member] for member in members]
        log_ratio = torch.stack(
            [log_probs(logits, s) - log_probs(behavior_logits, s).detach() for s in sequences]
        )
        mask = torch.tensor([[1.0, float(len(s) == 2)] for s in sequences], dtype=torch.float64)
        rewards = torch.tensor(REWARDS[list(members)])
        advantage = group_advantages(rewards.unsqueeze(0)).reshape(-1)
        total = total + weight * clipped_surrogate(log_ratio, advantage, mask, LOW, HIGH)
    torch.autograd.backward(total)
    return -logits.grad.numpy()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("apart", [0.0, 0.02, 0.3, 1.0])
def test_the_gradient_is_the_enumerated_surrogate_gradient_mapping(seed, apart):
    phi = random_logits(seed, 1.0)
    theta = phi + random_logits(seed + 100, apart)
    expected, removed = enumerated_mapping(theta, phi)
    assert mapping_by_autograd(theta, phi) == pytest.approx(expected, abs=1e-12)
    assert np.abs(expected).max() > 1e-3
    assert (removed > 0) == (apart >= 0.3)  # with and without the clip taking part


@pytest.mark.parametrize("seed", range(4))
def test_on_policy_the_gradient_is_the_policy_gradient_of_the_expected_reward(seed):
    theta = random_logits(seed, 1.0)

    def expected_reward(logits):
        policy = softmax(logits)
        return sum(probability(policy, s) * r for s, r in zip(SEQUENCES, REWARDS, strict=True))

    slope = np.zeros((3, 3))
    for place in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[place] = 1e-5
        slope[place] = (expected_reward(theta + step) - expected_reward(theta - step)) / 2e-5

    logits = torch.tensor(theta, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for sequence, reward in zip(SEQUENCES, REWARDS, strict=True):
        log_prob = log_probs(logits, sequence).unsqueeze(0)
        length = len(sequence)  # the mean over tokens, times their number, is their sum
        advantage = torch.tensor([(reward - 0.4) * length])  # the policy gradient bears a baseline
        mask = torch.tensor([[1.0, float(length == 2)]], dtype=torch.float64)
        loss = clipped_surrogate(log_prob - log_prob.detach(), advantage, mask, LOW, HIGH)
        total = total + probability(softmax(theta), sequence) * loss
    torch.autograd.backward(total)
    assert -logits.grad.numpy() == pytest.approx(slope, abs=1e-9)
