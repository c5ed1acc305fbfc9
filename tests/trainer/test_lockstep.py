"""The loop delivers the staleness it promises, and steps as GRPO written differently does."""

import math
from dataclasses import asdict, fields, replace

import pytest
import torch
from outcome_oracle import onset_batch, series
from transformers import AutoModelForCausalLM

from storage.records import RunInfo, missing_reason
from storage.store import Store
from trainer.hooks import Hooks
from trainer.meter import unmeasured
from trainer.schedule import BehaviorSchedule

# Everything but the clock readings must be the same in two runs.
TIMES = {"time", "seconds_generate", "seconds_learn", "seconds_measure", "seconds_wait"}


def trained(learner, steps):
    """Take learner steps and return their rows."""
    learner.evaluate(0, 64)
    return [learner.learner_step(step) for step in range(steps)]


def hooks(**given):
    """Listen to some of what a run tells, and never stop it."""
    silent = {field.name: lambda *_: None for field in fields(Hooks)}
    return Hooks(**(silent | {"stop_requested": lambda: False} | given))


def numbers(row):
    return {name: value for name, value in asdict(row).items() if name not in TIMES}


# -- staleness --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "max_staleness", "versions"),
    [
        ("cyclic", 3, [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]),  # refreshed every S+1 = 4 steps
        ("cyclic", 1, [0, 0, 2, 2, 4, 4]),
        ("cyclic", 0, [0, 1, 2, 3]),
        ("constant", 3, [0, 0, 0, 0, 1, 2, 3, 4, 5]),  # θ_0 until t = S, then θ_{t-3}
        ("constant", 1, [0, 0, 1, 2, 3]),
        ("constant", 0, [0, 1, 2, 3]),
    ],
)
def test_a_schedule_hands_out_exactly_the_weights_it_promises(schedule, max_staleness, versions):
    handed_out = BehaviorSchedule(schedule, max_staleness)
    weights = torch.empty(2)
    for step, version in enumerate(versions):
        weights.fill_(step)  # the learner changes its weights in place
        found, behavior = handed_out.behavior(step, weights)
        assert (found, behavior.tolist()) == (version, [version, version])


@pytest.mark.parametrize(
    ("schedule", "ages"),
    [("cyclic", [0, 1, 2, 0, 1, 2, 0]), ("constant", [0, 1, 2, 2, 2, 2, 2])],
)
def test_every_row_tells_the_staleness_of_the_weights_that_really_sampled(
    learner, device, schedule, ages
):
    run = learner(device=device, schedule=schedule, max_staleness=2, learning_rate=1e-3)
    run.evaluate(0, 64)
    history = []
    for step, age in enumerate(ages):
        history.append(run.weights.snapshot())
        row = run.learner_step(step)
        assert (row.step, row.sampled_at_step) == (step, step - age)
        assert (row.staleness_mean, row.staleness_max) == (age, age)
        assert torch.equal(run.behavior_weights.vector, history[step - age])
        drift = float(torch.linalg.vector_norm(history[step] - history[step - age]))
        assert row.cycle_drift == pytest.approx(drift, rel=1e-5, abs=0)
        assert (row.cycle_drift > 0) == (age > 0)


def assert_on_policy(row):
    """Every ratio is 1, KL 0 and ESS 1 up to rounding: fp32 has a unit of 1.2e-7."""
    assert row.log_ratio_rms < 1e-5
    assert abs(row.approx_kl) < 1e-9
    assert row.ess_fraction == pytest.approx(1, abs=1e-6)
    assert row.sequence_ess_fraction == pytest.approx(1, abs=1e-6)
    assert row.cycle_drift == 0


def assert_off_policy(row):
    assert row.log_ratio_rms > 1e-3
    assert row.approx_kl > 1e-6
    assert row.sequence_ess_fraction < row.ess_fraction < 1 - 1e-6


def test_without_staleness_every_ratio_is_one(learner, device):
    for schedule in ("cyclic", "constant"):
        run = learner(device=device, schedule=schedule, max_staleness=0, learning_rate=1e-3)
        for row in trained(run, 4):
            assert_on_policy(row)


def test_within_a_cycle_the_ratio_is_one_at_age_0_and_leaves_it_afterwards(learner, device):
    for row in trained(learner(device=device, max_staleness=1, learning_rate=1e-3), 6):
        if row.step % 2 == 0:
            assert_on_policy(row)
            # Measured, and nothing was removed: that is a 0, unlike at S = 0.
            assert (row.clip_fraction_low, row.clip_fraction_high) == (0, 0)
        else:
            assert_off_policy(row)


def test_without_staleness_clipping_is_unknown_because_it_is_structurally_impossible(learner):
    run = learner(max_staleness=0)
    [row] = trained(run, 1)
    info = RunInfo(id="a run", name="a run", created_at=0.0, unmeasured=unmeasured(run.config))
    for name in ("clip_fraction_low", "clip_fraction_high", "outside_clip_fraction"):
        assert getattr(row, name) is None
        assert missing_reason(info, row, name).startswith("structurally impossible")
    for name in ("clipped_gradient_mass", "clipping_radii"):
        assert getattr(row, name) is None
        assert missing_reason(info, row, name).startswith("structurally impossible")
    assert row.clip_fraction is None


def test_every_number_that_a_row_lacks_has_a_reason(learner, device):
    for changes in ({"max_staleness": 0}, {"max_staleness": 2}, {"prompts": 1, "group_size": 2}):
        run = learner(device=device, **changes)
        info = RunInfo(id="a run", name="a run", created_at=0.0, unmeasured=unmeasured(run.config))
        for row in trained(run, 12):
            for name, value in numbers(row).items():
                if value is None:
                    assert missing_reason(info, row, name) != "not measured", name
                elif isinstance(value, float):
                    assert math.isfinite(value), (name, row.step)


# -- determinism ------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_rows_and_another_seed_does_not(learner):
    first, second, other = (
        [numbers(row) for row in trained(learner(seed=seed, max_staleness=1), 6)]
        for seed in (5, 5, 6)
    )
    assert first == second
    assert all(mine["reward_mean"] is not None for mine in first)
    assert [row["loss"] for row in first] != [row["loss"] for row in other]
    assert [row["grad_norm"] for row in first] != [row["grad_norm"] for row in other]


def test_evaluations_do_not_change_what_is_learned(learner):
    often, never = learner(max_staleness=1), learner(max_staleness=1)
    rows = trained(never, 4)
    often.evaluate(0, 64)
    for row in rows:
        assert numbers(often.learner_step(row.step)) == numbers(row)
        often.evaluate(row.step + 1, 32)


def test_measuring_the_bias_does_not_change_what_is_learned(learner):
    plain, measured = (
        trained(learner(max_staleness=3, learning_rate=1e-3, bias_every=every), 8)
        for every in (0, 1)
    )
    assert [numbers(row) for row in plain] == [numbers(row) for row in measured]


# -- one GRPO step against a reference written differently ------------------------------------

SIGNS = ("<pad>", "<s>", "</s>", "<unk>", *"0123456789+=")


def recorded(run):
    """Let a learner note every batch that it is rewarded for."""
    batches = []
    rewards = run.task.rewards

    def noting(prompts, completions):
        found = rewards(prompts, completions)
        batches.append(list(zip(prompts, completions, found, strict=True)))
        return found

    run.task = replace(run.task, rewards=noting)
    return batches


def answer_log_probs(model, prompt, completion):
    """Return log π of each answer token of one sequence, with the end token if it was reached."""
    assert set(completion) <= set(SIGNS[4:]), "the policy wrote a special token: take another seed"
    answer = [SIGNS.index(sign) for sign in completion] + [SIGNS.index("</s>")]
    answer = answer[:3]
    question = [SIGNS.index(sign) for sign in prompt]
    logits = model(torch.tensor([question + answer], device=model.device)).logits[0].double()
    return [
        torch.log_softmax(logits[len(question) + i - 1], dim=0)[token]
        for i, token in enumerate(answer)
    ]


def reference_loss(policy, behavior_policy, batch, group_size, epsilon_low, epsilon_high):
    """Compute GRPO's loss one sequence and one token at a time."""
    total = torch.zeros((), dtype=torch.float64, device=policy.device)
    for i, (prompt, completion, reward) in enumerate(batch):
        first = i - i % group_size
        group = [r for _, _, r in batch[first : first + group_size]]
        mean = sum(group) / group_size
        deviation = math.sqrt(sum((r - mean) ** 2 for r in group) / group_size)
        if deviation == 0:
            continue
        advantage = (reward - mean) / deviation
        with torch.no_grad():
            sampled = answer_log_probs(behavior_policy, prompt, completion)
        now = answer_log_probs(policy, prompt, completion)
        gain = 0.0
        for new, old in zip(now, sampled, strict=True):
            ratio = torch.exp(new - old)
            if advantage > 0:
                gain = gain + advantage * torch.minimum(ratio, ratio.new_tensor(1 + epsilon_high))
            else:
                gain = gain + advantage * torch.maximum(ratio, ratio.new_tensor(1 - epsilon_low))
        total = total + gain / len(now)
    return -total / len(batch)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["cyclic", "constant"])
def test_grpo_steps_agree_with_a_plain_loop_over_sequences(learner, device, schedule, optimizer):
    rate = 1e-3 if optimizer == "adamw" else 0.05
    decay = 0.1 if optimizer == "adamw" else 0.0
    run = learner(
        device=device,
        schedule=schedule,
        optimizer=optimizer,
        learning_rate=rate,
        weight_decay=decay,
        max_staleness=2,
        prompts=8,
        group_size=4,
        clip_epsilon=0.15,
        clip_epsilon_high=0.3,
        warmup_steps=1,
        seed=1,
    )
    folder = run.policy.config.name_or_path
    policy = AutoModelForCausalLM.from_pretrained(folder).eval()
    versions = [AutoModelForCausalLM.from_pretrained(folder).eval() for _ in range(5)]
    if optimizer == "adamw":
        updater = torch.optim.AdamW(
            policy.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=decay
        )
    else:
        updater = torch.optim.SGD(policy.parameters(), lr=1.0, momentum=0.9)
    batches = recorded(run)
    run.evaluate(0, 8)
    start = run.weights.snapshot().cpu()
    clipped = 0.0
    for step in range(5):
        versions[step].load_state_dict(policy.state_dict())
        row = run.learner_step(step)
        clipped += row.clip_fraction
        behavior_policy = versions[step - step % 3 if schedule == "cyclic" else max(0, step - 2)]
        updater.zero_grad()
        loss = reference_loss(policy, behavior_policy, batches[-1], 4, 0.15, 0.3)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        updater.param_groups[0]["lr"] = rate * (0.5 if step == 0 else 1.0)  # warm-up: (t+1)/2
        updater.step()
        assert row.learning_rate == pytest.approx(updater.param_groups[0]["lr"])
        assert row.loss == pytest.approx(float(loss.detach()), abs=1e-5)
        assert row.grad_norm == pytest.approx(float(norm), rel=1e-3)
        expected = torch.cat([p.detach().reshape(-1) for p in policy.parameters()])
        moved = torch.linalg.vector_norm(expected - start)
        apart = torch.linalg.vector_norm(run.weights.vector.cpu() - expected)
        assert apart < 5e-4 * moved
    assert clipped > 0.02  # the clip took part in it


# -- a whole run ------------------------------------------------------------------------------


def test_a_run_really_learns(archive_with_two_runs):
    store = Store.open(archive_with_two_runs.url)
    try:
        evaluations = store.evaluations(archive_with_two_runs.finished_id)
    finally:
        store.close()
    first, last = evaluations[0], evaluations[-1]
    assert (first.step, first.rollouts) == (0, 512)
    assert (last.step, last.rollouts) == (300, 1024)
    noise = math.hypot(
        first.reward_std / math.sqrt(first.rollouts), last.reward_std / math.sqrt(last.rollouts)
    )
    assert last.reward - first.reward > 4 * noise


def test_a_run_ends_with_an_evaluation_of_its_last_policy_and_not_before_its_time(learner):
    run = learner(steps=3, evaluate_every=2)
    rows, evaluations = [], []
    run.train(hooks(on_step=rows.append, on_evaluation=evaluations.append))
    assert [row.step for row in rows] == [0, 1, 2]
    assert [(e.step, e.rollouts) for e in evaluations] == [(0, 512), (2, 256), (3, 1024)]


def test_a_run_that_is_asked_to_stop_ends_after_its_present_step(learner):
    run = learner(steps=100)
    rows, evaluations = [], []
    outcome = run.train(
        hooks(
            on_step=rows.append,
            on_evaluation=evaluations.append,
            stop_requested=lambda: len(rows) == 2,
        )
    )
    assert [row.step for row in rows] == [0, 1]
    assert evaluations[-1].step == 2
    assert outcome.verdict != "collapsed"


def test_a_reward_that_is_no_number_ends_the_run_as_diverged_at_that_step(learner):
    run = learner(steps=50)
    batches = 0

    def rewards(prompts, completions):
        nonlocal batches
        batches += 1
        return [math.nan if batches == 4 else 1.0] * len(prompts)

    run.task = replace(run.task, rewards=rewards)
    rows = []
    outcome = run.train(hooks(on_step=rows.append))
    assert outcome.verdict == "diverged"
    assert [row.step for row in rows] == [0, 1, 2]  # batch 1 of the four was the evaluation
    assert math.isnan(rows[-1].reward_mean)


def test_weights_that_are_no_number_end_the_run_as_diverged(learner):
    run = learner(steps=50, max_staleness=1)
    rows = []

    def poison(row):
        rows.append(row)
        if row.step == 2:
            run.weights.vector[0] = math.nan

    outcome = run.train(hooks(on_step=poison))
    assert outcome.verdict == "diverged"
    assert [row.step for row in rows] == [0, 1, 2, 3]
    assert math.isnan(rows[-1].loss)


@pytest.mark.slow  # about 80 learner steps, until the collapse that was not yet certain is
def test_a_run_whose_collapse_is_not_yet_certain_at_its_end_is_extended(
    learner, archive_with_two_runs
):
    store = Store.open(archive_with_two_runs.url)
    try:
        run_id = archive_with_two_runs.collapsed_id
        rewards = store.series(run_id, ["reward_mean"])["reward_mean"]
        start = store.evaluations(run_id)[0].reward
        run = store.run(run_id)
    finally:
        store.close()
    onset = onset_batch(series(rewards, start, run.chance_reward))
    for planned, taken in ((onset + 1, onset + 20), (onset + 20, onset + 20), (onset, onset)):
        again = learner(learning_rate=4e-3, steps=planned)
        rows = []
        outcome = again.train(hooks(on_step=rows.append))
        assert len(rows) == taken
        assert outcome.onset == (run.collapse_step if taken > onset else None)
