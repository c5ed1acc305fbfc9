"""Drifts by hand on weights of two numbers."""

import math

import pytest
import torch

from trainer.drift import DriftTracker, WeightSample, kl_from

CPU = torch.device("cpu")


def numbers(found):
    return {name: float(value) for name, value in found.items()}


def test_every_drift_of_three_steps_by_hand():
    weights, gradient = torch.zeros(2), torch.zeros(2)
    start = weights.clone()
    tracker = DriftTracker(weights)

    def step(to, raw_gradient, learning_rate):
        gradient.copy_(torch.tensor(raw_gradient))
        before = numbers(tracker.before_update(weights, start, gradient))
        gradient.fill_(99.0)  # clipped by norm afterwards, in place
        weights.copy_(torch.tensor(to))
        return before | numbers(tracker.after_update(weights, learning_rate, 0.0))

    # θ_0 = (0, 0) → (3, 4): length 5, at η = 0.5 an update of norm 10.
    first = step([3.0, 4.0], [1.0, 0.0], 0.5)
    assert first == pytest.approx(
        {
            "cycle_drift": 0,  # before the update, θ_t = φ
            "grad_norm": 1,
            "update_norm": 10,
            "displacement": 5,
            "path_length": 5,
        }
    )  # and no gradient_cosine: there is no gradient before the first
    # (3, 4) → (3, 0): length 4; the gradients (1, 0) and (3, 4) have cosine 3/5.
    second = step([3.0, 0.0], [3.0, 4.0], 0.1)
    assert second == pytest.approx(
        {
            "cycle_drift": 5,
            "grad_norm": 5,
            "gradient_cosine": 0.6,
            "update_norm": 40,
            "displacement": 3,
            "path_length": 9,
        }
    )
    # (3, 0) → (0, 0): back at the start, but the path goes on; (3, 4)·(−6, −8) point apart.
    third = step([0.0, 0.0], [-6.0, -8.0], 1.0)
    assert third == pytest.approx(
        {
            "cycle_drift": 3,
            "grad_norm": 10,
            "gradient_cosine": -1,
            "update_norm": 3,
            "displacement": 0,
            "path_length": 12,
        }
    )


def test_cycle_drift_is_measured_from_the_weights_that_sampled():
    tracker = DriftTracker(torch.zeros(2))
    found = tracker.before_update(torch.tensor([4.0, 6.0]), torch.tensor([1.0, 2.0]), torch.ones(2))
    assert float(found["cycle_drift"]) == 5  # (3, 4)


def test_weight_decay_is_no_part_of_the_update_direction():
    weights = torch.tensor([2.0, 0.0])
    tracker = DriftTracker(weights)
    tracker.before_update(weights, weights, torch.ones(2))
    # Decoupled decay λ = 0.5 at η = 0.1 shrinks 2 to 1.9; the update adds (0, 0.3) to it.
    weights.copy_(torch.tensor([1.9, 0.3]))
    found = numbers(tracker.after_update(weights, 0.1, 0.5))
    assert found["update_norm"] == pytest.approx(3)  # 0.3 / 0.1
    assert found["displacement"] == pytest.approx(math.hypot(0.1, 0.3))
    assert found["path_length"] == pytest.approx(math.hypot(0.1, 0.3))


def test_the_start_is_kept_although_the_learner_changes_its_weights_in_place():
    weights = torch.ones(2)
    tracker = DriftTracker(weights)
    tracker.before_update(weights, weights, torch.ones(2))
    weights.add_(torch.tensor([0.0, 2.0]))
    assert float(tracker.after_update(weights, 1.0, 0.0)["displacement"]) == 2


def test_a_long_path_still_counts_tiny_steps():
    weights = torch.zeros(2)
    tracker = DriftTracker(weights)
    for coordinate, length in ((0, 2.0**20), (1, 2.0**-10)):  # in fp32 the second would be lost
        tracker.before_update(weights, weights, torch.ones(2))
        weights[coordinate] += length
        path = tracker.after_update(weights, 1.0, 0.0)["path_length"]
    assert float(path) == 2.0**20 + 2.0**-10


def test_a_weight_that_is_no_number_shows_in_every_drift():
    weights = torch.zeros(2)
    tracker = DriftTracker(weights)
    tracker.before_update(weights, weights, torch.ones(2))
    weights[0] = math.nan
    found = numbers(tracker.after_update(weights, 1.0, 0.0))
    assert all(math.isnan(value) for value in found.values())


def test_kl_from_the_start_by_hand_over_response_tokens_only():
    log_prob_start = torch.tensor([[-1.0, -2.0], [-0.5, -9.0]])
    log_prob = torch.tensor([[0.0 - 1.0, -1.0], [-1.5, 0.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    # ℓ = log π_θ − log π_θ0 = 0, 1, −1: k3 = 0, e − 2, 1/e.
    expected = (0 + (math.e - 2) + 1 / math.e) / 3
    assert float(kl_from(log_prob_start, log_prob, mask)) == pytest.approx(expected, rel=1e-6)


def test_kl_from_the_start_is_the_kl_from_the_start_to_the_policy():
    # Every outcome in proportion to θ_0: 8 of the first, 2 of the second. KL(p‖q), not KL(q‖p).
    p, q = (0.8, 0.2), (0.5, 0.5)
    counts = 8, 2
    start = [[math.log(p[i])] for i in (0, 1) for _ in range(counts[i])]
    now = [[math.log(q[i])] for i in (0, 1) for _ in range(counts[i])]
    exact = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = kl_from(torch.tensor(start), torch.tensor(now), torch.ones(10, 1))
    assert float(found) == pytest.approx(exact, rel=1e-6)


# -- a sample of the weights of a large model ------------------------------------------------------


def test_a_small_model_is_measured_whole():
    vector = torch.randn(1000)
    sample = WeightSample(1000, CPU)
    assert sample.is_whole
    assert sample(vector) is vector


@pytest.mark.parametrize("tail", [0.0, 0.7], ids=["even", "a few large weights"])
def test_norms_and_products_of_a_sample_are_those_of_the_whole(tail):
    """Five million weights in layers of different scale; a block in 64 is kept at the most."""
    drawn = torch.Generator().manual_seed(0)
    size = 5_000_077
    scale = torch.logspace(-1, 1, size) * torch.exp(tail * torch.randn(size, generator=drawn))
    one = scale * torch.randn(size, generator=drawn)
    other = 0.3 * one + scale * torch.randn(size, generator=drawn)
    sample = WeightSample(size, CPU)
    assert not sample.is_whole
    a, b = sample(one), sample(other)
    assert a.numel() == 2**19
    exact = float(torch.linalg.vector_norm(one - other))
    assert float(torch.linalg.vector_norm(a - b)) == pytest.approx(exact, rel=0.02)
    assert float(a @ b) == pytest.approx(float(one @ other), rel=0.05)


def test_two_samples_of_a_size_take_the_same_weights_and_leave_the_vector_alone():
    vector = torch.randn(300, generator=torch.Generator().manual_seed(1))
    before = vector.clone()
    first, again = (WeightSample(300, CPU, whole_up_to=10)(vector) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(vector, before)
    # All four blocks of 64 are taken, the last 44 weights stand for nobody: 300/256 is made up for.
    norm = float(torch.linalg.vector_norm(vector[:256])) * (300 / 256) ** 0.5
    assert float(torch.linalg.vector_norm(first)) == pytest.approx(norm, rel=1e-5)
