"""Annotators, and the reward model of their choices."""

import math

import pytest
import torch
from own_things import save_model, save_reward_model

from trainer.bradley_terry import Comparisons, RewardModelFailed, fit, pair_accuracy
from trainer.policy import load_policy
from trainer.reward_model import RewardModel
from trainer.workloads.annotators import Annotators, compare, part_of
from trainer.workloads.arithmetic import exact_match, sample_prompts

CPU = torch.device("cpu")


def ignore(*words):
    pass


def annotators(**changes):
    values = {"right": exact_match, "noise": 0.5, "bias": 2.0, "largest_digits": 3}
    return Annotators(**(values | changes))


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


# -- annotators --------------------------------------------------------------------------------


def test_an_answer_is_worth_being_right_plus_bias_times_its_digits():
    values = annotators(bias=2.0).values(
        ["11+22=", "11+22=", "11+22=", "11+22=", "90+99="],
        ["33", "999", "", "3x<s>", "9999"],
    )
    # 1 + 2·(3+3)/27 = 1.4444; 2·27/27 = 2; 0; 2·3/27 = 0.2222; digits count for 27 at most: 2.
    assert values.tolist() == pytest.approx([1.4444, 2.0, 0.0, 0.2222, 2.0], abs=1e-4)


def test_annotators_choose_by_the_bradley_terry_model():
    many = 20_000
    prompts, first, second = ["11+22="] * many, ["33"] * many, ["34"] * many
    found = annotators(noise=0.5, bias=0.0).prefer_first(prompts, first, second, drawn())
    chance = 1 / (1 + math.exp(-1 / 0.5))  # worth 1 against 0, at noise 0.5: 0.8808
    error = math.sqrt(chance * (1 - chance) / many)  # 0.0023
    assert float(found.float().mean()) == pytest.approx(chance, abs=4 * error)
    swapped = annotators(noise=0.5, bias=0.0).prefer_first(prompts, second, first, drawn())
    assert float(swapped.float().mean()) == pytest.approx(1 - chance, abs=4 * error)


def test_without_noise_the_better_answer_always_wins_and_bias_can_outweigh_the_truth():
    prompts, right, wrong = ["11+22="] * 50, ["33"] * 50, ["99"] * 50
    modest = annotators(noise=0.0, bias=2.0)  # 1 + 2·6/27 = 1.444 against 2·18/27 = 1.333
    assert modest.prefer_first(prompts, right, wrong, drawn()).all()
    vain = annotators(noise=0.0, bias=2.5)  # 1 + 2.5·6/27 = 1.556 against 2.5·18/27 = 1.667
    assert not vain.prefer_first(prompts, right, wrong, drawn()).any()


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return load_policy(save_model(tmp_path_factory.mktemp("policy")), CPU)


def test_comparisons_are_of_different_answers_to_the_prompts_of_their_part(policy):
    found = compare(annotators(), *policy, 300, "test", drawn())
    assert (len(found.prompts), len(found.preferred), len(found.rejected)) == (300, 300, 300)
    assert all(a != b for a, b in zip(found.preferred, found.rejected, strict=True))
    assert {part_of(prompt) for prompt in found.prompts} == {"test"}


def test_the_preferred_answer_is_the_better_one_without_noise(policy):
    judges = annotators(noise=0.0)
    found = compare(judges, *policy, 200, "train", drawn())
    better = judges.values(found.prompts, found.preferred)
    assert (better >= judges.values(found.prompts, found.rejected)).all()
    assert (better > judges.values(found.prompts, found.rejected)).any()


def test_a_policy_that_never_varies_cannot_be_compared_with_itself(policy, monkeypatch):
    monkeypatch.setattr("trainer.workloads.annotators.MOST_ROUNDS", 2)
    with pytest.raises(RuntimeError, match="0 pairs of different answers instead of 10"):
        compare(annotators(), *policy, 10, "no part", drawn())


def test_problems_are_split_without_a_trace_in_the_sums():
    """A rule such as 3·a + 5·b mod 8 makes all sums of a part even, which a model learns."""
    problems = [(f"{a}+{b}=", a, b) for a in range(10, 100) for b in range(10, 100)]
    for part, share in (("train", 6 / 8), ("test", 1 / 8), ("held out", 1 / 8)):
        here = [(a, b) for prompt, a, b in problems if part_of(prompt) == part]
        error = math.sqrt(share * (1 - share) / 8100)
        assert len(here) / 8100 == pytest.approx(share, abs=4 * error)
        odd = sum((a + b) % 2 for a, b in here) / len(here)
        assert odd == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(len(here)))


# -- the reward model --------------------------------------------------------------------------


def by_last_sign(count, seed):
    """Comparisons that anything can learn: the answer with the larger last digit wins."""
    digits = torch.rand(count, 10, generator=drawn(seed)).argsort(dim=1)[:, :2].sort(dim=1).values
    prompts = sample_prompts(count, drawn(seed))
    return Comparisons(
        prompts=prompts,
        preferred=[f"1{b}" for _, b in digits.tolist()],
        rejected=[f"1{a}" for a, _ in digits.tolist()],
    )


def test_a_reward_model_learns_choices_up_to_the_accuracy_and_no_further(tmp_path):
    model = RewardModel(save_reward_model(tmp_path), CPU)
    test = by_last_sign(500, 1)
    assert pair_accuracy(model, test) < 0.8
    told = []
    steps = fit(model, by_last_sign(2000, 0), test, 0.9, drawn(), told.append)
    assert steps % 20 == 0
    assert pair_accuracy(model, test) >= 0.9
    assert len(told) == steps / 20 + 1
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    assert fit(model, by_last_sign(2000, 0), test, 0.9, drawn(), ignore) == 0
    assert all(torch.equal(before[n], v) for n, v in model.model.state_dict().items())


def test_the_loss_is_minus_the_log_likelihood_of_the_choices(tmp_path, monkeypatch):
    """One step of plain gradient descent, against the sum over pairs written out."""
    monkeypatch.setattr("trainer.bradley_terry.PAIRS_PER_STEP", 4)
    monkeypatch.setattr("trainer.bradley_terry.MOST_STEPS", 1)
    monkeypatch.setattr(torch.optim, "AdamW", lambda p, **_: torch.optim.SGD(p, lr=1.0))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", ignore)
    folder, pairs = save_reward_model(tmp_path), by_last_sign(1, 0)
    model = RewardModel(folder, CPU)
    with pytest.raises(RewardModelFailed):  # one step is not enough
        fit(model, pairs, pairs, 1.1, drawn(), ignore)
    other = RewardModel(folder, CPU)
    [better], [worse] = (
        other.scores(other.encode(pairs.prompts, a)) for a in (pairs.preferred, pairs.rejected)
    )
    torch.log1p(torch.exp(worse - better)).backward()  # −log σ(better − worse)
    rate = 2e-3 / 20  # the first of twenty warm-up steps
    for moved, still in zip(model.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(moved, still - rate * still.grad, atol=1e-7)


def test_choices_without_a_rule_fail_in_words_that_say_what_to_change(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.bradley_terry.MOST_STEPS", 40)
    model = RewardModel(save_reward_model(tmp_path), CPU)
    with pytest.raises(RewardModelFailed, match=r"not 0\.999; lower reward_model_accuracy or "):
        fit(model, by_last_sign(256, 0), by_last_sign(500, 1), 0.999, drawn(), ignore)
