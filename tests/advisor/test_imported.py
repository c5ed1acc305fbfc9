"""Logs of other trainers as evidence: a real run under four stacks' keys, and what they lack."""

import math
from dataclasses import replace

import pytest
from factories import a_run, fill
from stack_logs import write_log

from advisor.answer import ask, consider, gather
from advisor.calibration import staleness_kappa
from advisor.diagnosis import diagnose
from advisor.imported import config_of_log
from advisor.staleness_radius import staleness_radius
from advisor.stored_facts import facts_of
from storage.commandline import BadInput
from storage.importers.importing import import_file
from storage.records import RunStatus
from storage.store import Store
from trainer.config import TrainerConfig

TOLD = {"learning_rate": 2e-4, "max_staleness": 3, "steps": 300, "parameters": 134_000}
BESIDE = {
    "trl": {},
    "trl_async": {},
    "verl": {"trainer.v1.separate_async.parameter_sync_step": 1, "bypass_mode": True},
    "prime_rl": {},
}
TOLD_QUESTION = {"max_staleness": 3, "steps": 300}
AT_1 = (0.01, 0.01, "a test")


@pytest.fixture(scope="module")
def real(archive_with_two_runs):
    """The steps of two real runs, and the facts of the one that finished."""
    opened = Store.open(archive_with_two_runs.url, create=False)
    ids = archive_with_two_runs.finished_id, archive_with_two_runs.collapsed_id
    run = opened.run(ids[0])
    facts = facts_of(opened, run, TrainerConfig.model_validate(run.config))
    yield facts, *(opened.steps(each) for each in ids)
    opened.close()


def imported(store, tmp_path, rows, stack, **told):
    log = write_log(tmp_path / f"{stack}.log", rows, stack)
    settings = {**TOLD, **BESIDE[stack], **told}
    settings = {name: value for name, value in settings.items() if value is not None}
    return import_file(store, log, stack=stack, group="logs", settings=settings).run_id


def kappa_at_1(facts):
    return staleness_kappa(facts, staleness_radius(facts, AT_1))


@pytest.mark.parametrize("stack", ["trl", "trl_async", "verl"])
def test_kappa_from_a_log_agrees_with_that_of_the_run_it_is_of(store, tmp_path, real, stack):
    full, rows, _ = real
    [facts] = gather(store, run_id=imported(store, tmp_path, rows, stack))
    found, truth = kappa_at_1(facts), kappa_at_1(full)
    assert found.value == pytest.approx(truth.value, rel=0.5)
    assert found.low < truth.value < found.high


def test_a_log_without_a_clip_fraction_bounds_by_m2_and_says_so(store, tmp_path, real):
    [facts] = gather(store, run_id=imported(store, tmp_path, real[1], "prime_rl"))
    found = kappa_at_1(facts)
    assert (found.value, found.low) == (None, None)
    # p95 of σ over M2's σ = 0.2
    assert found.high == pytest.approx(facts.drift_p95 / 0.2)
    advice = consider(ask(settings=TOLD_QUESTION, evidence=[facts], risk=0.05), [facts])
    assert advice.edge is None
    assert advice.max_learning_rate is not None
    assert "M2" in advice.reasons["edge"]


def test_verl_against_the_proximal_policy_is_no_evidence_and_the_answer_says_what_is(
    store, tmp_path, real
):
    run_id = imported(store, tmp_path, real[1][:200], "verl", bypass_mode=None)
    [facts] = gather(store, run_id=run_id)
    assert facts.drift_p95 is None
    kappa = diagnose(store, run_id).kappa_staleness
    assert kappa.value is None
    assert "algorithm.rollout_correction.bypass_mode" in kappa.reason
    advice = consider(ask(settings=TOLD_QUESTION, evidence=[facts], risk=0.05), [facts])
    assert "algorithm.rollout_correction.bypass_mode" in advice.reason


@pytest.mark.parametrize("stack", ["trl", "trl_async", "verl", "prime_rl"])
def test_a_log_is_judged_by_its_rewards(store, tmp_path, real, stack):
    _, finished, collapsed = real
    [safe] = gather(store, run_id=imported(store, tmp_path, finished, stack))
    assert (safe.verdict, safe.unsafe) == ("healthy", False)
    name = tmp_path / "other"
    name.mkdir()
    [lost] = gather(store, run_id=imported(store, name, collapsed, stack, learning_rate=4e-3))
    assert (lost.verdict, lost.unsafe) == ("collapsed", True)


def test_a_reward_that_is_not_a_number_is_a_divergence_and_no_reward_no_outcome(
    store, tmp_path, real
):
    rows = list(real[1][:60])
    rows[40] = replace(rows[40], reward_mean=math.nan)
    [broken] = gather(store, run_id=imported(store, tmp_path, rows, "trl_async"))
    assert (broken.verdict, broken.unsafe) == ("diverged", True)
    bare = [replace(row, reward_mean=None) for row in real[1][:60]]
    [silent] = gather(store, run_id=imported(store, tmp_path, bare, "verl"))
    assert (silent.verdict, silent.unsafe, silent.reward_start) == (None, None, None)


def test_thirty_steps_of_a_log_say_how_far_it_is_from_the_edge(store, tmp_path, real):
    run_id = imported(store, tmp_path, real[1][:30], "trl_async")
    found = diagnose(store, run_id).kappa_staleness
    assert found.low < kappa_at_1(real[0]).value < found.high
    evidence = gather(store, run_id=run_id)
    asked = ask(settings=TOLD_QUESTION | {"learning_rate": 2e-4}, evidence=evidence, risk=0.05)
    advice = consider(asked, evidence)
    assert advice.binding == "staleness"
    assert advice.low < advice.edge < advice.high
    assert "2.0e-4 lies a factor of" in advice.reason
    assert run_id in advice.evidence[0]
    assert advice.kappa_horizon.value is None
    assert advice.kappa_horizon.reason


def test_a_live_run_of_the_trainer_says_it_too(store, real):
    full, rows, _ = real
    run = a_live_run(store, rows[:40])
    evidence = gather(store, run_id=run)
    assert evidence[0].unsafe is None
    advice = consider(ask(settings=TOLD_QUESTION, evidence=evidence, risk=0.05), evidence)
    assert advice.calibrated
    assert advice.binding == "staleness"
    assert full.config.learning_rate / 10 < advice.edge < full.config.learning_rate * 10


def a_live_run(store, rows):
    """Store the first steps of a run that goes on."""
    run = a_run(status=RunStatus.RUNNING)
    store.create_run(run)
    for row in rows:
        store.append_step(replace(row, run_id=run.id))
    return run.id


def test_what_must_be_told_is_asked_for_in_one_line(store, tmp_path):
    log = tmp_path / "bare.jsonl"
    log.write_text('{"step": 1, "reward": 0.5, "frac_reward_zero_std": 0}\n')
    run_id = import_file(store, log).run_id
    with pytest.raises(BadInput, match="learning_rate and max_staleness; import it again"):
        gather(store, run_id=run_id)
    found = diagnose(store, run_id)
    assert found.regime == "insufficient_data"
    assert "--set learning_rate=… max_staleness=…" in found.reason


def test_s_that_was_not_told_is_the_largest_age_that_was_logged(store, tmp_path, real):
    run_id = imported(store, tmp_path, real[1][:40], "prime_rl", max_staleness=None)
    assert config_of_log(store, store.run(run_id)).max_staleness == 3


def test_logs_are_no_evidence_where_they_are_not_named(store, tmp_path, real):
    imported(store, tmp_path, real[1][:40], "trl_async")
    assert gather(store) == []
    assert len(gather(store, group="logs")) == 1


def test_runs_of_the_trainer_are_no_neighbors_of_a_log(store, tmp_path, real):
    fill(store, a_run(status="finished", outcome="healthy"), steps=40)
    run_id = imported(store, tmp_path, real[1][:40], "trl_async")
    assert diagnose(store, run_id).evidence == ()
