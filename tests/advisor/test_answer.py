"""Store to evidence to answer to store, on a real archive."""

import json
import math
from dataclasses import replace

import pytest
from factories import RADII, a_config, a_run, a_step, an_evaluation, fill

from advisor.answer import answer, ask, consider, gather, learned_edge
from advisor.diagnosis import diagnose
from advisor.regime import Regime
from storage.commandline import BadInput
from storage.errors import RunNotFound
from storage.records import RunStatus
from storage.store import Store

FINISHED, COLLAPSED = "20231114-221320-000001", "20231114-221320-000002"
HERE = {"max_staleness": 3, "steps": 300}


def question(evidence=(), risk=0.05, **settings):
    return ask(settings=HERE | settings, evidence=evidence, risk=risk)


# -- the question -----------------------------------------------------------------------------


def test_what_is_not_said_comes_from_the_newest_run_of_the_evidence(store):
    for clip, day in ((0.1, 1), (0.3, 2)):
        run = a_run(a_config(clip_epsilon=clip, prompts=8), id=f"2026010{day}-120000-000000")
        fill(store, run, steps=1)
    asked = question(gather(store), group_size=4, clip_epsilon=None)
    assert (asked.setting.clip_epsilon, asked.setting.prompts, asked.setting.group_size) == (
        0.3,
        8,
        4,
    )
    assert question().setting.clip_epsilon == 0.2


def test_a_rate_is_judged_only_when_it_is_given(seeded):
    evidence = gather(seeded)
    assert question(evidence).learning_rate is None
    assert question(evidence, learning_rate=None).learning_rate is None
    assert question(evidence, learning_rate="3e-4").learning_rate == 3e-4


@pytest.mark.parametrize("risk", [0, 1, -0.1, 1.5, math.nan, math.inf])
def test_a_risk_outside_zero_to_one_is_refused(risk):
    with pytest.raises(BadInput, match=f"risk: {risk} is not allowed; allowed: 0 < risk < 1"):
        question(risk=risk)


def test_a_setting_that_is_not_allowed_is_refused_with_its_range():
    with pytest.raises(
        BadInput, match="max_staleness: -1 is not allowed; allowed: whole number, 0 <="
    ):
        question(max_staleness=-1)


# -- the evidence -----------------------------------------------------------------------------


def test_the_evidence_is_every_run_of_the_trainer_or_one_group_or_one_run(store):
    for day, group in ((1, "a"), (2, None), (3, "a")):
        fill(store, a_run(id=f"2026010{day}-120000-000000", group=group), steps=1)
    store.create_run(a_run(kind="imported"))
    assert [facts.run_id[7:8] for facts in gather(store)] == ["3", "2", "1"]
    assert [facts.run_id[7:8] for facts in gather(store, group="a")] == ["3", "1"]
    assert gather(store, group="nosuch") == []
    [one] = gather(store, run_id="20260102-120000-000000")
    assert one.steps == 1
    with pytest.raises(RunNotFound, match="nosuch"):
        gather(store, run_id="nosuch")


def test_what_was_put_away_is_evidence_only_where_it_is_named(seeded):
    seeded.update_run(COLLAPSED, archived=True)
    assert [facts.run_id for facts in gather(seeded)] == [FINISHED]
    assert [facts.run_id for facts in gather(seeded, run_id=COLLAPSED)] == [COLLAPSED]
    assert checked(seeded, FINISHED).evidence == ()
    assert checked(seeded, COLLAPSED).regime == Regime.COLLAPSED


def test_a_configuration_of_another_version_is_no_evidence_and_no_error(store):
    strange = replace(a_run(), config={"learning_rate": 1e-4, "a_field_of_tomorrow": 1})
    fill(store, replace(strange, config=strange.config | {"max_staleness": 3}), steps=30)
    assert gather(store) == []
    found = diagnose(store, strange.id)
    assert found.regime == Regime.INSUFFICIENT_DATA
    assert "not one that this version can read" in found.reason


def test_the_facts_of_a_run_are_those_of_its_rows(seeded):
    facts = {each.run_id: each for each in gather(seeded)}[FINISHED]
    assert facts.steps == 40
    assert facts.unsafe is False
    assert facts.reward_start == 0.78
    assert facts.reward_final is None
    assert dict(facts.radii) == RADII
    assert facts.displacement == pytest.approx(2e-4 * 300 * 40**0.5)
    assert facts.largest_step == pytest.approx(2e-4 * 80)
    # 0.05·age/3 for ages 0…3 in turn over 40 steps: a quarter of them at 0.05, so the 95th
    # percentile is 0.05; 0.015 of the tokens are clipped per step of age, so 0.045 at most.
    assert facts.drift_p95 == pytest.approx(0.05)
    assert facts.clip_p95 == pytest.approx(0.045)
    assert facts.drift_law is None  # 40 steps are 10 beyond warm-up and momentum


def test_the_newest_radii_count(store):
    run = a_run()
    fill(store, run, steps=3)
    store.append_step(a_step(run.id, 3, clipping_radii={"0.1": 0.5}))
    assert gather(store)[0].radii == {"0.1": 0.5}
    store.append_step(a_step(run.id, 4, clipping_radii=None))
    assert gather(store)[0].radii == {}


def test_a_live_run_is_read_anew_and_an_ended_one_when_its_record_changes(store):
    run = a_run(status=RunStatus.RUNNING)
    fill(store, run, steps=2)
    assert gather(store)[0].steps == 2
    store.append_step(a_step(run.id, 2))
    assert gather(store)[0].steps == 3
    store.update_run(run.id, status=RunStatus.FINISHED, outcome="healthy", ended_at=1.0)
    assert gather(store)[0].unsafe is False
    store.update_run(run.id, outcome="damaged")
    assert gather(store)[0].unsafe is True


def test_two_archives_with_the_same_run_do_not_share_its_facts(tmp_path):
    counts = []
    for name, steps in (("a.db", 2), ("b.db", 3)):
        opened = Store.open(str(tmp_path / name))
        fill(opened, a_run(id=FINISHED, status=RunStatus.FINISHED), steps=steps)
        counts += [facts.steps for facts in gather(opened)]
        opened.close()
    assert counts == [2, 3]


# -- the answer -------------------------------------------------------------------------------


def test_an_answer_is_kept_with_its_question_and_its_evidence(seeded):
    evidence = gather(seeded)
    asked = question(evidence, risk=0.1, learning_rate=3e-4)
    advice = answer(seeded, asked, evidence)
    [kept] = seeded.recommendations()
    assert kept.question == {
        "setting": asked.setting.model_dump(mode="json"),
        "risk": 0.1,
        "learning_rate": 3e-4,
    }
    assert kept.question["setting"]["max_staleness"] == 3
    assert json.loads(json.dumps(kept.answer)) == json.loads(json.dumps(advice.as_json()))
    assert kept.answer["max_learning_rate"] == advice.max_learning_rate
    assert kept.evidence == advice.evidence
    assert [label.split(":")[0] for label in kept.evidence] == [
        f"run {COLLAPSED}",
        f"run {FINISHED}",
    ]


def test_the_answer_from_literature_is_kept_with_its_sources(store):
    advice = answer(store, question(), [])
    [kept] = store.recommendations()
    assert kept.answer["calibrated"] is False
    assert kept.evidence == advice.evidence != ()


def test_considering_keeps_nothing(seeded):
    evidence = gather(seeded)
    assert consider(question(evidence), evidence) == answer(seeded, question(evidence), evidence)
    assert len(seeded.recommendations()) == 1


def test_the_edge_that_is_drawn_is_the_edge_of_the_answer(seeded):
    evidence = gather(seeded)
    for runs, count in ((evidence, 2), ([], 38)):
        edge, trials = learned_edge(question(runs), runs)
        advice = consider(question(runs), runs)
        assert len(trials) == count
        assert edge.rate_at(0.5) == pytest.approx(advice.edge)


# -- the diagnosis ----------------------------------------------------------------------------

KAPPAS = {
    Regime.STALENESS_LIMITED: "kappa_staleness",
    Regime.HORIZON_LIMITED: "kappa_horizon",
    Regime.STEP_LIMITED: "kappa_local",
}


def checked(store, run_id):
    """Diagnose a run, and hold the regime to what was measured."""
    found = diagnose(store, run_id)
    run = store.run(run_id)
    ended = run.status in (RunStatus.FINISHED, RunStatus.COLLAPSED, RunStatus.DIVERGED)
    kappas = [getattr(found, name) for name in KAPPAS.values()]
    if found.regime in KAPPAS:
        assert getattr(found, KAPPAS[found.regime]).low >= 1
    elif found.regime == Regime.STABLE:
        below = all(kappa.high is not None and kappa.high < 1 for kappa in kappas)
        assert below or (ended and run.outcome in ("healthy", "finished"))
    elif found.regime in (Regime.COLLAPSED, Regime.DIVERGED):
        assert run.outcome == found.regime
    for each in (*kappas, found.kappa_used, found.horizon_step):
        assert None not in (each.value, each.low, each.high) or each.reason
    assert found.reason
    return found


def test_what_has_happened_to_a_run_is_its_regime(seeded):
    assert checked(seeded, COLLAPSED).regime == Regime.COLLAPSED
    assert checked(seeded, FINISHED).regime == Regime.STABLE
    with pytest.raises(RunNotFound, match="nosuch"):
        diagnose(seeded, "nosuch")


def test_the_evidence_of_a_diagnosis_is_every_other_ended_run_of_the_setting(seeded):
    fill(seeded, a_run(a_config(clip_epsilon=0.3), status=RunStatus.FINISHED), steps=2)
    fill(seeded, a_run(status=RunStatus.RUNNING), steps=2)
    assert checked(seeded, FINISHED).evidence == (f"run {COLLAPSED}: collapsed",)
    assert checked(seeded, COLLAPSED).evidence == (f"run {FINISHED}: healthy",)


def test_a_diagnosis_reads_the_forty_ended_runs_that_are_nearest_in_rate(store):
    this = a_run(status=RunStatus.RUNNING)
    fill(store, this, steps=20)
    ended = {"status": RunStatus.FINISHED, "outcome": "healthy", "ended_at": 1.0}
    rates = [2e-4 * 1.1 ** (i - 25) for i in range(51)]
    for i, rate in enumerate(rates):
        store.create_run(a_run(a_config(learning_rate=rate), id=f"run-{i:02}", **ended))
    nearest = sorted(range(51), key=lambda i: abs(i - 25))[:39]  # the 40th is one of two as near
    found = {line.split(":")[0] for line in checked(store, this.id).evidence}
    assert len(found) == 40
    assert found >= {f"run run-{i:02}" for i in nearest}


@pytest.mark.parametrize("steps", [0, 1, 19])
def test_too_few_steps_are_insufficient_data(seeded, steps):
    run = a_run(status=RunStatus.RUNNING)
    fill(seeded, run, steps=steps)
    found = checked(seeded, run.id)
    assert found.regime == Regime.INSUFFICIENT_DATA
    assert found.reason == f"{steps} learner steps are too few; 20 are needed"


def test_twenty_steps_are_enough_to_be_judged(seeded):
    run = a_run(status=RunStatus.RUNNING)
    fill(seeded, run, steps=20)
    assert "too few; 20" not in checked(seeded, run.id).reason


@pytest.mark.parametrize("verdict", ["collapsed", "diverged"])
def test_a_run_that_was_lost_at_once_is_lost_however_few_its_steps(store, verdict):
    run = a_run(status=RunStatus(verdict), outcome=verdict, ended_at=1.0)
    fill(store, run, steps=3)
    assert checked(store, run.id).regime == verdict


def test_a_first_live_run_has_no_regime_because_nothing_else_has_ended(store):
    run = a_run(status=RunStatus.RUNNING)
    fill(store, run, steps=80, drift=1e-4)
    found = checked(store, run.id)
    assert found.regime == Regime.INSUFFICIENT_DATA
    assert found.kappa_staleness.high < 1
    assert found.kappa_horizon.value is None
    assert "no run of this setting has survived" in found.reason


def test_a_run_that_has_survived_is_one_of_those_that_did(store):
    ended = {"status": RunStatus.FINISHED, "outcome": "healthy", "ended_at": 1.0}
    run = a_run(a_config(steps=80), **ended)
    fill(store, run, steps=80, drift=1e-4)
    found = checked(store, run.id)
    assert found.regime == Regime.STABLE
    assert found.kappa_horizon.high == pytest.approx(1)  # it bore the displacement it came to
    assert "1 run survived displacements up to" in found.kappa_horizon.reason
    assert found.horizon_step.low == pytest.approx(80)
    assert found.evidence == ()


def test_a_live_run_that_drifts_beyond_every_radius_is_staleness_limited(store):
    run = a_run(status=RunStatus.RUNNING)
    fill(store, run, steps=80, drift=0.71)  # the largest radius is 0.7, at 10 % of active clipping
    assert checked(store, run.id).regime == Regime.STALENESS_LIMITED
    below = a_run(status=RunStatus.RUNNING)
    fill(store, below, steps=80, drift=0.69)
    assert checked(store, below.id).regime == Regime.INSUFFICIENT_DATA


def test_a_run_that_was_stopped_is_not_stable_by_what_it_had_not_come_to(store):
    kept = {"ended_at": 1.0, "outcome": "healthy"}
    stopped = a_run(status=RunStatus.STOPPED, **kept)
    fill(store, stopped, steps=40)
    assert checked(store, stopped.id).regime == Regime.INSUFFICIENT_DATA
    finished = a_run(status=RunStatus.FINISHED, **kept)
    fill(store, finished, steps=40)
    assert checked(store, finished.id).regime == Regime.STABLE


def test_a_damaged_run_says_so_whatever_its_kappas_say(store):
    run = a_run(status=RunStatus.FINISHED, outcome="damaged", ended_at=1.0)
    fill(store, run, steps=80)
    found = checked(store, run.id)
    assert found.regime == Regime.INSUFFICIENT_DATA
    assert found.reason.startswith("the run ended damaged, below its start; ")


def test_at_s_0_staleness_limits_nothing_and_the_other_limits_stay_unknown(store):
    run = a_run(a_config(max_staleness=0), status=RunStatus.RUNNING)
    fill(store, run, steps=80)
    found = checked(store, run.id)
    assert found.kappa_staleness.value == 0.0
    assert found.regime == Regime.INSUFFICIENT_DATA


def test_a_run_without_radii_has_no_kappa_staleness(store):
    run = a_run(status=RunStatus.RUNNING)
    fill(store, run, steps=40)
    store.append_step(a_step(run.id, 40, clipping_radii=dict.fromkeys(RADII)))
    found = checked(store, run.id)
    assert found.kappa_staleness.value is None
    assert "no clipping radius" in found.kappa_staleness.reason


def test_rows_of_nan_name_no_regime(store):
    run = a_run(status=RunStatus.RUNNING)
    store.create_run(run)
    bad = dict.fromkeys(("learning_rate", "update_norm", "cycle_drift", "displacement"), math.nan)
    for step in range(40):
        store.append_step(a_step(run.id, step, clipping_radii=RADII, **bad))
    store.append_evaluation(an_evaluation(run.id, 0, math.nan))
    assert checked(store, run.id).regime == Regime.INSUFFICIENT_DATA


def test_a_run_that_will_fall_long_before_it_collapses_is_told_so(store):
    """Three runs fell at step 5 and collapsed at 60: at half their rate κ_slide decides."""
    lost = {"status": RunStatus.COLLAPSED, "outcome": "collapsed", "ended_at": 1.0}
    for _ in range(3):
        run = a_run(a_config(learning_rate=4e-3), collapse_step=60, slide_step=5, **lost)
        fill(store, run, steps=80, drift=1e-3)
    live = a_run(a_config(learning_rate=2e-3), status=RunStatus.RUNNING)
    fill(store, live, steps=80, drift=1e-3)
    found = diagnose(store, live.id)
    # They fell at 4e-3·300·√5 = 2.683; this run came to 2e-3·300·√80 = 5.367 and is projected.
    assert found.kappa_slide.value == pytest.approx(
        5.367 / 2.683 * (300 / 80) ** (55 / 90), rel=1e-3
    )
    assert found.kappa_horizon.low < 1 <= found.kappa_slide.low
    assert found.regime == Regime.HORIZON_LIMITED
    assert found.alarm
    assert "κ_slide" in found.reason
    rate = float(found.change.split("at most ")[1].split(",")[0])
    assert rate == pytest.approx(2e-3 / found.kappa_slide.low, rel=0.05)


def test_ended_runs_of_the_setting_turn_unknown_limits_into_measured_ones(store):
    """Two survivors and a horizon collapse beside a live run: every κ gets an interval."""
    for rate in (2e-4, 4e-4):
        ended = {"status": RunStatus.FINISHED, "outcome": "healthy", "ended_at": 1.0}
        fill(store, a_run(a_config(learning_rate=rate), **ended), steps=80, drift=1e-3)
    lost = {"status": RunStatus.COLLAPSED, "outcome": "collapsed", "collapse_step": 60}
    fill(store, a_run(a_config(learning_rate=4e-3), ended_at=1.0, **lost), steps=80, drift=1e-3)
    live = a_run(status=RunStatus.RUNNING)
    fill(store, live, steps=80, drift=1e-3)
    found = checked(store, live.id)
    # Displacement at onset: 4e-3·300·√60 = 9.30; so far 2e-4·300·√80 = 0.537. It is projected by
    # α = (0.5·50 + 0.75·40)/90 = 55/90: own steps after warm-up and momentum, the usual worth 40.
    assert found.kappa_used.value == pytest.approx(0.5367 / 9.295, rel=1e-3)
    assert found.kappa_horizon.value == pytest.approx(
        0.5367 / 9.295 * (300 / 80) ** (55 / 90), rel=1e-3
    )
    # 80·(9.295/0.5367)^(90/55) = 8 508.
    assert found.horizon_step.value == pytest.approx(8508, rel=2e-3)
    # The largest early step borne was 4e-4·80, twice this run's; none broke at its first steps.
    assert found.kappa_local.high == pytest.approx(0.5)
    # The survivors bore 4.5 % of active clipping; the kept criterion below it is 3 %, at 0.1.
    assert found.kappa_staleness.high == pytest.approx(1e-3 / 0.1)
    assert found.regime == Regime.STABLE
