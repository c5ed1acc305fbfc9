"""Preference: a workload whose reward is a model's score, gold beside it, and KL to the start."""

import json
import math
from functools import partial

import pytest
import torch
from factories import a_config
from own_things import save_model
from transformers import AutoModelForSequenceClassification

from storage.records import RunStatus
from trainer.__main__ import result
from trainer.cache import content_key, read_card
from trainer.hooks import Hooks
from trainer.launch import create_run
from trainer.lockstep import Lockstep
from trainer.objective import clipped_surrogate, kl_penalty
from trainer.policy import load_policy
from trainer.reward_model import RewardModel
from trainer.rollout import Task, score
from trainer.worker import Worker
from trainer.workloads.arithmetic import exact_match, sample_prompts
from trainer.workloads.choice import task_and_start
from trainer.workloads.preference import CARD, identity

CPU = torch.device("cpu")


def ignore(*words):
    pass


# -- the workload ------------------------------------------------------------------------------

SMALL = {"workload": "preference", "comparisons": 256, "reward_model_accuracy": 0.51}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Give a home with an untrained policy and a reward model that hardly learned anything."""
    home = tmp_path_factory.mktemp("home")
    config = partial(a_config, **SMALL, model=str(save_model(home / "own")), prompts=4, steps=3)
    return home, config


def test_the_reward_is_the_models_score_and_gold_the_exact_match(small):
    home, config = small
    task, start = task_and_start(config(), home, ignore)
    assert start == home / "own"
    learner = Lockstep("a run", config(), task, start)
    batch = learner._sample(0).batch
    prompts = [p for p in batch.prompts for _ in range(8)]
    folder = home / "reward_models" / task.facts["reward_model"]
    scores = RewardModel(folder, CPU)(prompts, batch.completions)
    assert batch.rewards_P_G.flatten().tolist() == pytest.approx(scores, abs=1e-5)
    assert batch.gold_P_G.flatten().tolist() == exact_match(prompts, batch.completions)
    assert torch.equal(batch.decisive_P_G, batch.gold_P_G)
    assert task.chance_reward == 1 / 4096


def test_the_reward_model_is_a_saved_sequence_classifier_with_its_accuracies_on_its_card(small):
    home, config = small
    told = []
    task, _ = task_and_start(config(annotator_seed=3), home, told.append)
    folder = home / "reward_models" / task.facts["reward_model"]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.num_labels == 1
    card = read_card(folder, CARD)
    assert card["policy"] == content_key(home / "own")
    assert 0 <= card["pair_accuracy"] <= 1
    assert {name: card[name] for name in task.facts if name != "reward_model"} == {
        name: value for name, value in task.facts.items() if name != "reward_model"
    }
    assert told[-1] == (f"reward model: done, held-out pair accuracy {card['pair_accuracy']:.3f}")


def test_a_reward_model_is_made_once(small):
    home, config = small
    first = task_and_start(config(), home, ignore)[0].facts
    told = []
    assert task_and_start(config(seed=5, max_staleness=9), home, told.append)[0].facts == first
    assert told == []


@pytest.mark.parametrize(
    "changes",
    [
        {"annotator_noise": 0.4},
        {"annotator_bias": 0.4},
        {"annotator_seed": 1},
        {"comparisons": 300},
        {"reward_model_accuracy": 0.52},
    ],
)
def test_other_annotators_have_another_reward_model(small, changes):
    home, config = small
    assert identity(config(**changes), home / "own") != identity(config(), home / "own")


def test_another_policy_has_another_reward_model(small, tmp_path):
    home, config = small
    copy = save_model(tmp_path / "copy")
    assert identity(config(), copy) == identity(config(), home / "own")  # the same files elsewhere
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert identity(config(), copy) != identity(config(), home / "own")


def test_the_same_annotators_give_the_same_reward_model(small, tmp_path):
    home, config = small
    first = task_and_start(config(), home, ignore)[0].rewards
    again = task_and_start(config(), tmp_path, ignore)[0].rewards
    for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_keeps_gold_everywhere_and_how_good_its_reward_model_is(small, store, monkeypatch):
    home, config = small
    monkeypatch.setenv("ETALON_HOME", str(home))
    run = Worker(store, create_run(store, config()), ignore).run()
    assert run.status is RunStatus.FINISHED
    rows, evaluations = store.steps(run.id), store.evaluations(run.id)
    assert all(row.gold_reward_mean is not None for row in rows)
    assert all(row.gold_reward_mean != row.reward_mean for row in rows)
    assert all(evaluation.gold is not None for evaluation in evaluations)
    assert run.gold_reward_first == pytest.approx(sum(r.gold_reward_mean for r in rows) / 3)
    assert run.gold_reward_final == evaluations[-1].gold
    assert "gold_reward_mean" not in run.unmeasured
    [start] = [event for event in store.events(run.id) if event.kind == "start"]
    assert set(start.data) == {
        "reward_model",
        "pair_accuracy",
        "right_accuracy",
        "annotator_accuracy",
    }
    answer = json.loads(json.dumps(result(store, run)))
    for end in ("first", "last", "final"):
        assert answer[f"gold_reward_{end}"] == getattr(run, f"gold_reward_{end}")
        assert f"gold_reward_{end}_reason" not in answer


def with_rewards(learner, rewards, gold):
    """Give a learner other judges; both are functions of how many batches were judged."""
    calls = {"reward": 0, "gold": 0}

    def judge(name, value):
        def judged(_, completions):
            calls[name] += 1
            return [value(calls[name]) + 0.01 * (i % 2) for i in range(len(completions))]

        return judged

    learner.task = Task(
        name="task",
        chance_reward=0.0,
        max_new_tokens=3,
        sample_prompts=sample_prompts,
        rewards=judge("reward", rewards),
        gold=judge("gold", gold),
    )
    return learner


@pytest.mark.parametrize(
    ("rewards", "gold", "verdict"),
    [
        (lambda n: n, lambda n: 0.8 if n < 40 else 0.1, "collapsed"),
        (lambda n: 0.8 if n < 40 else 0.1, lambda _: 0.8, "healthy"),
    ],
    ids=["the reward rises while gold falls", "the reward falls while gold stays"],
)
def test_a_run_is_judged_on_gold(small, rewards, gold, verdict):
    home, config = small
    settings = config(
        steps=100, max_staleness=0, prompts=2, group_size=2, evaluate_every=1000, seed=1
    )
    learner = Lockstep("a run", settings, *task_and_start(settings, home, ignore))
    outcome = with_rewards(learner, rewards, gold).train(
        Hooks(
            on_step=ignore,
            on_evaluation=ignore,
            stop_requested=lambda: False,
            on_drift=ignore,
            on_bias=ignore,
            on_samples=ignore,
            on_rest=ignore,
        )
    )
    assert outcome.verdict == verdict
    if verdict == "collapsed":
        # The start takes one call, so 38 batches of 0.805 precede n of 0.105. The old ones keep
        # 2^(−n/10)·(1 − 2^−3.8) of the weight 1 − 2^(−(38+n)/10). n = 11: 0.433/0.967 = 0.448 and
        # r̄ = 0.105 + 0.7·0.448 = 0.419; n = 12: 0.404/0.969 = 0.417, r̄ = 0.397 < 0.805/2.
        assert outcome.onset == 38 + 12 - 1


# -- KL to the start ---------------------------------------------------------------------------


def test_the_penalty_is_k3_averaged_over_tokens_then_rollouts():
    log_prob = torch.log(torch.tensor([[0.5, 0.25, 0.9], [0.2, 1.0, 1.0]]))
    reference = torch.log(torch.tensor([[0.5, 0.5, 0.1], [0.1, 1.0, 1.0]]))
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    # r = 1, 2 | 0.5 and k3 = r − 1 − ln r: 0, 2 − 1 − 0.693147 = 0.306853 | 0.193147.
    # Means over tokens: 0.153426 | 0.193147; over rollouts: 0.173287.
    assert float(kl_penalty(log_prob, reference, mask)) == pytest.approx(0.173287, abs=1e-6)
    assert float(kl_penalty(log_prob, log_prob, mask)) == 0
    assert float(kl_penalty(log_prob, reference, torch.zeros(2, 3))) == 0


def test_in_expectation_the_penalty_is_the_kl_and_its_gradient_that_of_the_other_direction():
    """Enumerated: one token of four, every outcome weighted by its probability."""
    logits = torch.tensor([0.3, -0.5, 1.2, 0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([1.0, 0.2, 0.1, -0.4], dtype=torch.float64).log_softmax(0)
    log_prob = logits.log_softmax(0)
    weights = log_prob.exp().detach()
    mask = torch.ones(1, 1, dtype=torch.float64)
    terms = torch.stack([kl_penalty(log_prob[i].view(1, 1), reference[i], mask) for i in range(4)])
    expected = (weights * (log_prob.detach() - reference)).sum()
    assert float((weights * terms).sum().detach()) == pytest.approx(float(expected), abs=1e-12)
    [found] = torch.autograd.grad((weights * terms).sum(), logits)
    other = (reference.exp() * (reference - logits.log_softmax(0))).sum()  # KL(π_ref‖π_θ)
    [oracle] = torch.autograd.grad(other, logits)
    assert torch.allclose(found, oracle, atol=1e-12)


def test_the_penalty_is_part_of_the_loss_and_kept_in_the_row(small):
    home, config = small
    settings = config(kl_coefficient=0.7, max_staleness=0)
    learner = Lockstep("a run", settings, *task_and_start(settings, home, ignore))
    learner.evaluate(0, 16)
    first = learner.learner_step(0)
    assert first.extra["kl_penalty"] == pytest.approx(0, abs=1e-9)  # θ_0 is the reference
    moved = 0.05 * torch.randn(
        learner.weights.vector.shape, generator=torch.Generator().manual_seed(0)
    )
    learner.weights.vector.add_(moved.to(learner.device))
    kept = []
    sample = learner._sample
    learner._sample = lambda *given: kept.append(sample(*given)) or kept[-1]
    before = learner.weights.snapshot()
    row = learner.learner_step(1)
    [sampled] = kept
    batch = sampled.batch
    learner.weights.load(before)
    with torch.no_grad():
        log_prob, _ = score(learner.policy, batch)
        reference, _ = score(load_policy(home / "own", learner.device)[0], batch)
    k3 = [
        [math.exp(b - a) - 1 - (b - a) for a, b, m in zip(*row, strict=True) if m]
        for row in zip(log_prob.tolist(), reference.tolist(), batch.mask_B_T.tolist(), strict=True)
    ]
    penalty = sum(sum(row) / len(row) for row in k3) / len(k3)
    assert penalty > 1e-3
    assert row.extra["kl_penalty"] == pytest.approx(penalty, rel=1e-3)
    scored, _ = learner.backward(batch, None)
    surrogate = clipped_surrogate(
        scored.log_ratio_B_T, scored.advantage_B, batch.mask_B_T, 0.2, 0.2
    )
    assert row.loss == pytest.approx(float(surrogate) + 0.7 * row.extra["kl_penalty"], abs=1e-5)


def test_a_penalty_keeps_the_policy_near_its_start(small):
    home, config = small

    def kl_after_training(coefficient):
        settings = config(
            kl_coefficient=coefficient, steps=40, learning_rate=1e-2, kl_to_start_every=1
        )
        learner = Lockstep("a run", settings, *task_and_start(settings, home, ignore))
        learner.evaluate(0, 256)
        return [learner.learner_step(step) for step in range(40)][-1].kl_to_start

    free, kept = kl_after_training(0.0), kl_after_training(3.0)
    assert kept < 0.5 * free


def test_without_a_penalty_nothing_is_loaded_or_kept_for_it(small):
    home, config = small
    learner = Lockstep("a run", config(), *task_and_start(config(), home, ignore))
    learner.evaluate(0, 16)
    assert learner.reference is None
    assert "kl_penalty" not in learner.learner_step(0).extra
