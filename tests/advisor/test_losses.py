"""Advice goes by the clip criterion of the loss, and never carries over from one to another."""

import math

import pytest
from factories import RADII, a_config, a_run, a_step, some_facts
from probed import LEVELS, a_calibration, a_hold, linear_holds

from advisor.advice import Question
from advisor.answer import ask
from advisor.calibrated import advise
from advisor.calibration import batch_radius, clip_criterion
from advisor.constants import constants_of
from advisor.diagnosis import diagnose
from advisor.experiments.probe import check_budget
from advisor.experiments.study import SERIES as LIFETIME_SERIES
from advisor.experiments.study import lifetime
from advisor.limits import RateLimit
from advisor.measured import measured, refusal
from advisor.overview import tiles
from advisor.recommendation import recommend
from advisor.run_facts import SERIES, run_facts
from advisor.segments import summarise
from advisor.staleness_radius import no_clipping_radius, staleness_radius, weight_radius
from advisor.transfers import RefusedTransfer, transfer
from storage.commandline import BadInput
from storage.importers.snippets import settings

WEIGHTS = {"m2": 0.2, "sequence_ess": 0.8}


def probed(loss, fresh_gain=0.1):
    """Return a probe whose holds stop gaining at 2e-3, and one with fresh rollouts above that."""
    fresh = a_hold(2.8e-3, fresh_gain, max_staleness=0)
    holds = linear_holds([1.6e-3, 2.5e-3], 2e-3)
    return measured(a_calibration([*holds, fresh], a_config(loss=loss)))


def asked(found, **changes):
    setting = a_config(**{**found.setting.model_dump(), **changes})
    return advise(Question(setting=setting, risk=0.05), found, LEVELS)


# -- the criterion of the loss ----------------------------------------------------------------


def test_how_much_clipping_of_answers_is_borne_only_survivors_tell():
    low, high, source = clip_criterion([], 134_000, "gspo")
    assert math.isnan(low)
    assert high == math.inf
    assert "published nowhere" in source
    assert batch_radius(RADII, (low, high, source)).low is None
    runs = [some_facts(clip_p95=p, config=a_config(loss="gspo")) for p in (0.01, 0.04)]
    criterion = clip_criterion(runs, 134_000, "gspo")
    assert criterion[:2] == (0.04, math.inf)
    found = batch_radius(RADII, criterion)
    assert (found.value, found.low, found.high) == (None, RADII["0.03"], None)
    assert "too few" not in found.reason
    assert clip_criterion([], 134_000, "dr_grpo") == clip_criterion([], 134_000)


@pytest.mark.parametrize("loss", ["cispo", "tis", "decoupled"])
def test_without_a_clipping_radius_the_importance_weights_bound_the_drift(loss):
    run = some_facts(config=a_config(loss=loss), weight_radii=WEIGHTS)
    found = staleness_radius(run, (0.0005, 0.1, "the clip"))
    assert (found.low, found.high) == (0.2, 0.8)
    assert found.value == pytest.approx(0.4)
    assert f"{loss} has no clipping radius" in found.reason
    assert "M2 = 0.04 first" in found.reason
    assert constants_of([run]).r_batch == found


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo"])
def test_where_tokens_are_clipped_away_their_radius_is_taken(loss):
    run = some_facts(config=a_config(loss=loss), weight_radii=WEIGHTS)
    found = staleness_radius(run, (0.0005, 0.1, "the clip"))
    assert (found.low, found.high) == (RADII["0.0005"], RADII["0.1"])


def test_a_weight_radius_is_unknown_until_both_criteria_are_and_unbounded_if_one_is_never_met():
    for radii in ({}, {"m2": 0.2, "sequence_ess": None}):
        found = weight_radius(radii, "tis")
        assert (found.value, found.low, found.high) == (None, None, None)
        assert "too few sequences" in found.reason
    found = weight_radius({"m2": math.inf, "sequence_ess": 0.5}, "tis")
    assert (found.value, found.low, found.high, found.is_bound) == (None, 0.5, math.inf, True)
    assert "ESS of one half first" in found.reason


@pytest.mark.parametrize(("loss", "expected"), [("grpo", None), ("tis", 0.25)])
def test_a_lower_end_that_does_not_exist_leaves_the_clip_fraction_known(loss, expected):
    config, rows = a_config(loss=loss), 30
    series = {name: [0.1] * rows for name in {*SERIES, *LIFETIME_SERIES}}
    series |= {"step": list(range(rows)), "clip_fraction_low": [None] * rows}
    series["clip_fraction_high"] = [0.25] * rows
    facts = run_facts(
        run_id="a run",
        name="a run",
        config=config,
        verdict="healthy",
        onset=None,
        slide=None,
        reward_start=0.5,
        reward_final=0.6,
        series=series,
        radii={},
        ended=True,
    )
    assert facts.clip_p95 == expected
    run = a_run(config)
    assert lifetime(run, series).clip_fraction == expected
    steps = [a_step(run.id, t, clip_fraction_high=0.25, reward_mean=0.5) for t in range(rows)]
    assert summarise(run, config, steps, [], []).clip_fraction == expected
    shown = {tile.label: tile.value for tile in tiles(run, steps)}["clipped, highest"]
    assert (shown == "25.0%") == (loss == "tis")


def test_a_diagnosis_holds_drift_against_the_weights_where_no_clip_takes_over(store):
    for loss, high in (("tis", 0.05 / 0.2), ("grpo", 0.05 / RADII["0.0005"])):
        run = a_run(a_config(loss=loss))
        store.create_run(run)
        for step in range(30):
            row = a_step(
                run.id,
                step,
                cycle_drift=0.05,
                displacement=1.0,
                clipping_radii=RADII,
                weight_radii=WEIGHTS,
            )
            store.append_step(row)
        found = diagnose(store, run.id).kappa_staleness
        assert found.high == pytest.approx(high)
        assert ("no clipping radius" in found.reason) == (loss == "tis")


# -- what a calibration answers ---------------------------------------------------------------


@pytest.mark.parametrize("loss", ["dr_grpo", "gspo", "cispo", "tis", "decoupled"])
def test_a_calibration_of_one_loss_refuses_another(loss):
    for one, other in ((loss, "grpo"), ("grpo", loss)):
        assert refusal(probed(one), a_config(loss=other)) == (
            f"it was measured on another setting: loss {one} ≠ {other}"
        )


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "gspo"])
@pytest.mark.parametrize("risk", [0.02, 0.3])
def test_a_wider_clip_never_lowers_the_rate_where_the_clip_has_a_radius(loss, risk):
    found = probed(loss)
    low, high = found.setting.epsilon_low, found.setting.epsilon_high
    rates = []
    for factor in (0.5, 1.0, 2.0, 4.0):
        wide = {"clip_epsilon": factor * low, "clip_epsilon_high": factor * high}
        setting = a_config(**{**found.setting.model_dump(), **wide})
        question = Question(setting=setting, risk=risk)
        rates.append(advise(question, found, LEVELS).max_learning_rate)
    assert rates == sorted(rates)
    assert rates[0] < rates[1]


@pytest.mark.parametrize("loss", ["cispo", "tis", "decoupled"])
def test_where_the_clip_has_no_radius_no_rule_carries_the_limit_to_another_range(loss):
    found = probed(loss)
    wider = {**found.setting.model_dump(), "clip_epsilon_high": 6}
    assert f"the loss {loss} has no clipping radius" in refusal(found, a_config(**wider))
    answer = asked(found)
    assert answer.what_if["double_clip"] is None
    assert answer.what_if["half_max_staleness"] is not None
    assert f"no clipping radius under the loss {loss}" in answer.reason


def test_where_fresh_rollouts_fail_alike_the_range_of_a_truncated_weight_does_not_matter():
    found = probed("tis", fresh_gain=-0.1)
    assert asked(found).binding == "local_step"
    same = asked(found).max_learning_rate
    assert asked(found, clip_epsilon_high=6).max_learning_rate == pytest.approx(same)


def test_the_refused_transfer_names_both_ranges():
    found = probed("tis")
    limit = RateLimit(binding="staleness", median=1e-3, log_sd=0.4, reason="a test")
    asked_for = a_config(loss="tis", clip_epsilon_high=3)
    with pytest.raises(RefusedTransfer, match="from clip_epsilon_high 1 to 3"):
        transfer(limit, found.setting, asked_for, found.segments)


def test_only_a_loss_without_a_radius_is_said_to_have_none():
    assert no_clipping_radius(a_config()) == ""
    assert no_clipping_radius(a_config(loss="gspo")) == ""
    assert no_clipping_radius(a_config(loss="tis", max_staleness=0)) == ""
    told = no_clipping_radius(a_config(loss="tis"))
    assert told == "Staleness has no clipping radius under the loss tis."
    question = Question(setting=a_config(loss="tis"), risk=0.05)
    runs = [some_facts(config=question.setting)]
    assert recommend(question, runs, ()).reason.endswith(told)
    plain = recommend(Question(setting=a_config(), risk=0.05), [some_facts()], ())
    assert "no clipping radius under" not in plain.reason


# -- questions --------------------------------------------------------------------------------


def test_asking_about_another_loss_than_the_evidence_takes_that_losss_own_range():
    evidence = [some_facts(config=a_config(clip_epsilon=0.1, clip_epsilon_high=0.3))]
    question = ask(settings={"loss": "gspo"}, evidence=evidence, risk=0.05)
    assert (question.setting.epsilon_low, question.setting.epsilon_high) == (3e-4, 4e-4)
    same = ask(settings={"loss": "grpo"}, evidence=evidence, risk=0.05)
    assert (same.setting.epsilon_low, same.setting.epsilon_high) == (0.1, 0.3)


def test_a_probe_of_several_updates_per_batch_is_refused_before_it_trains():
    check_budget(a_config(), 300)
    with pytest.raises(BadInput, match="updates_per_batch: 2 is not allowed in a probe"):
        check_budget(a_config(updates_per_batch=2), 300)


def test_a_snippet_leaves_the_range_of_another_loss_to_the_reader():
    setting = {"learning_rate": 1e-6, "max_staleness": 3, "steps": 100}
    plain = settings("trl_async", **setting)
    assert "epsilon=0.2," in plain
    for loss, low, high, words in (
        ("tis", None, 1.0, "set the loss tis by hand, with its clip range 1\n"),
        ("gspo", 3e-4, 4e-4, "set the loss gspo by hand, with its clip range 0.0003 and 0.0004\n"),
    ):
        text = settings("trl_async", **setting, loss=loss, clip_epsilon=low, clip_epsilon_high=high)
        assert words in text
        assert "epsilon=" not in text
        assert "epsilon_high=" not in text
