"""What an answer must hold to, whatever the evidence: properties, degenerate cases, reasons."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from factories import a_config, some_facts

from advisor.advice import Question
from advisor.literature import published_runs
from advisor.recommendation import recommend
from advisor.regime import Regime

PUBLISHED = published_runs()
STALENESSES = (0, 1, 3, 7, 15, 63, 255, 1023, 4096)
HORIZONS = (1, 10, 100, 300, 1200, 30_000, 1_000_000, 100_000_000)
RISKS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.9)


def survived(rate, *, staleness=3, steps=300, **changes):
    config = a_config(learning_rate=rate, max_staleness=staleness, steps=steps)
    values = {"displacement": rate * 5000, "drift_p95": rate * 250, "largest_step": rate * 80}
    return some_facts(config, **(values | {"steps": steps} | changes))


def collapsed(rate, *, onset=100, **changes):
    lost = {"verdict": "collapsed", "unsafe": True, "onset": onset, "reward_final": None}
    return survived(rate, **(lost | {"displacement_at_onset": rate * 3000} | changes))


SAFE = [survived(rate) for rate in (1e-4, 2e-4, 4e-4)]
LOST = [collapsed(rate) for rate in (1.6e-3, 3.2e-3)]
FRESH = [survived(1e-3, staleness=0), collapsed(4e-3, staleness=0)]
LONG = [survived(1e-4, steps=3000), collapsed(8e-4, steps=3000, onset=2000)]
EVIDENCE = {
    "none": [],
    "one survivor": SAFE[:1],
    "one collapse": LOST[:1],
    "all survived": SAFE,
    "all collapsed": LOST,
    "both": SAFE + LOST,
    "over S and T": SAFE + LOST + FRESH + LONG,
    "contradicting": [survived(2e-3), collapsed(1e-4)],
    "undecided": [survived(2e-4, verdict=None, unsafe=None)],
    "nothing measured": [
        survived(2e-4, drift_p95=None, displacement=None, largest_step=None, drift_law=None)
    ],
    "another setting": [replace(SAFE[0], config=a_config(clip_epsilon=0.3))],
}
DECIDED = ("none", "one survivor", "all survived", "both", "over S and T", "contradicting")
DECIDED_EVIDENCE = pytest.mark.parametrize("runs", [EVIDENCE[n] for n in DECIDED], ids=DECIDED)
ANY_EVIDENCE = pytest.mark.parametrize("runs", EVIDENCE.values(), ids=list(EVIDENCE))


def asked(runs, *, risk=0.05, learning_rate=None, **setting):
    question = Question(setting=a_config(**setting), risk=risk, learning_rate=learning_rate)
    return recommend(question, runs, PUBLISHED)


def falls(answers):
    """Whether the rates fall or stay; no rate at all is less than any."""
    rates = [-math.inf if a.max_learning_rate is None else a.max_learning_rate for a in answers]
    return all(before >= after * (1 - 1e-9) for before, after in pairwise(rates))


# -- properties -------------------------------------------------------------------------------


@DECIDED_EVIDENCE
def test_more_staleness_never_allows_more(runs):
    assert falls([asked(runs, max_staleness=s) for s in STALENESSES])
    assert falls([asked(runs, max_staleness=s, risk=0.3) for s in STALENESSES])


@DECIDED_EVIDENCE
def test_a_longer_run_never_allows_more(runs):
    assert falls([asked(runs, steps=t) for t in HORIZONS])


@DECIDED_EVIDENCE
def test_a_smaller_risk_never_allows_more(runs):
    assert falls([asked(runs, risk=risk) for risk in reversed(RISKS)])


def test_far_from_the_evidence_the_answer_keeps_to_the_form_of_the_law():
    # All trials at S = 3: slopes of 0 … 1 in S+1 are equally likely, so at a risk of 5 % the answer
    # must follow the steepest for the most part: at 1024 times the S+1, at least 200 times less.
    near, far = (asked(SAFE + LOST, max_staleness=s).max_learning_rate for s in (3, 4095))
    assert 200 < near / far < 1100
    near, far = (asked(SAFE + LOST, steps=t).max_learning_rate for t in (300, 300_000))
    assert 200 < near / far < 1100


@ANY_EVIDENCE
def test_every_null_has_its_reason(runs):
    for rate in (None, 5e-324, 2e-4, 10.0):
        for staleness in (0, 4096):
            answer = asked(runs, learning_rate=rate, max_staleness=staleness).as_json()
            assert unexplained(answer) == []
            assert answer["reason"].strip()
            assert answer["regime_reason"].strip()


def unexplained(answer):
    """Name the nulls of an answer that have no reason, those inside its estimates too."""
    names = [
        n for n, value in answer.items() if value is None and not answer[f"{n}_reason"].strip()
    ]
    for name, part in answer.items():
        if (
            isinstance(part, dict)
            and "value" in part
            and None in (part["value"], part["low"], part["high"])
        ):
            names += [] if (part["reason"] or "").strip() else [name]
    return names


@ANY_EVIDENCE
def test_no_rate_is_advised_beyond_twice_what_was_tried_nor_suggested_beyond_what_is_safe(runs):
    answer = asked(runs, max_staleness=0, steps=1, risk=0.9)
    if answer.max_learning_rate is not None and answer.calibrated:
        assert answer.max_learning_rate <= 2 * max(r.config.learning_rate for r in runs) * (
            1 + 1e-9
        )
        if answer.suggested_learning_rate is not None:
            assert answer.suggested_learning_rate <= answer.max_learning_rate


@ANY_EVIDENCE
def test_a_regime_is_named_only_where_its_kappa_was_measured(runs):
    for rate in (1e-5, 2e-4, 2e-3, 10.0):
        answer = asked(runs, learning_rate=rate)
        limits = {
            Regime.STALENESS_LIMITED: answer.kappa_staleness,
            Regime.HORIZON_LIMITED: answer.kappa_horizon,
            Regime.STEP_LIMITED: answer.kappa_local,
        }
        if answer.regime in limits:
            assert limits[answer.regime].low >= 1
        elif answer.regime == Regime.STABLE:
            assert all(kappa.high < 1 for kappa in limits.values())
        else:
            assert answer.regime == Regime.INSUFFICIENT_DATA


def test_the_probability_of_a_given_rate_rises_with_it_and_agrees_with_the_rates():
    runs = SAFE + LOST
    answer = asked(runs)
    given = [1e-6, answer.max_learning_rate, answer.edge, 1.0]
    found = [asked(runs, learning_rate=rate).unsafe_probability for rate in given]
    assert found == sorted(found)
    assert found[1] == pytest.approx(0.05, abs=1e-3)
    assert found[2] == pytest.approx(0.5, abs=1e-3)
    assert answer.unsafe_probability is None


# -- which evidence ---------------------------------------------------------------------------


def test_without_a_run_the_published_settings_answer_marked_as_uncalibrated():
    answer = asked([])
    assert not answer.calibrated
    assert "38 published settings, uncalibrated" in answer.reason
    assert "a run of your own setting replaces it" in answer.reason
    sources = {run.source for run in PUBLISHED}
    assert len(answer.evidence) == 3
    assert all(any(label.startswith(source) for source in sources) for label in answer.evidence)
    assert answer.high / answer.low > 10  # wide


def test_runs_of_the_setting_replace_the_published_ones():
    answer = asked(SAFE + LOST)
    assert answer.calibrated
    assert "5 archived runs of this setting, 3 of them survived" in answer.reason
    assert [label.split(":")[0] for label in answer.evidence] == [
        f"run {run.run_id}" for run in SAFE + LOST
    ]


def test_runs_of_another_setting_are_left_out_and_the_answer_says_so():
    others = [replace(run, config=a_config(clip_epsilon=0.3)) for run in LOST]
    alone, beside = asked(SAFE), asked(SAFE + others)
    assert beside.max_learning_rate == alone.max_learning_rate
    assert beside.evidence == alone.evidence
    said = " Archived runs of another setting (clip_epsilon 0.3 ≠ 0.2), left out: 2."
    assert beside.reason == alone.reason + said
    assert asked(others).reason == asked([]).reason + said
    assert not asked(others).calibrated


@pytest.mark.parametrize("verdict", [None, "healthy", "damaged", "undetermined"])
def test_a_run_that_was_stopped_or_lives_is_no_outcome_and_the_answer_says_so(verdict):
    stopped = survived(5e-3, verdict=verdict, unsafe=None)
    alone, beside = asked(SAFE + LOST), asked([*SAFE, *LOST, stopped])
    for name in ("max_learning_rate", "edge", "low", "high", "suggested_learning_rate", "evidence"):
        assert getattr(beside, name) == getattr(alone, name)
    said = "Archived runs of this setting without an outcome, not counted: 1."
    assert said in beside.reason
    assert not asked([stopped]).calibrated
    assert said in asked([stopped]).reason


def test_a_risk_that_the_published_settings_do_not_reach_is_refused_with_the_reason():
    # At S = 15 a risk of 5 % would lie near 1e-8, more than four times below the gentlest of 1e-7.
    assert asked([], max_staleness=0).max_learning_rate > 1e-7 / 4
    far = asked([], max_staleness=15)
    assert far.max_learning_rate is None
    assert "does not reach a risk of 5%: at 1.0e-7" in far.reasons["max_learning_rate"]
    assert far.edge is not None
    assert far.suggested_learning_rate is None  # what is refused is not suggested either
    assert "accepted risk" in far.reasons["suggested_learning_rate"]
    assert "The gentlest published rate that was stable at this staleness is " in far.reason
    assert asked([], max_staleness=15, risk=0.3).max_learning_rate is not None


# -- few runs, one kind of outcome ------------------------------------------------------------


def test_one_survivor_allows_at_most_twice_its_rate_and_claims_no_edge():
    answer = asked([survived(2e-4)], risk=0.9)
    assert answer.max_learning_rate == pytest.approx(4e-4)
    assert asked([survived(2e-4)]).max_learning_rate < 4e-4
    for name in ("edge", "high"):
        assert getattr(answer, name) is None
        assert "every run of the evidence survived" in answer.reasons[name]
    assert "no edge was seen" in answer.reason


def test_when_none_collapsed_the_answer_says_how_far_was_tried():
    answer = asked(SAFE)
    assert answer.edge is None
    assert answer.max_learning_rate <= 2 * 4e-4 * (1 + 1e-9)
    assert "4.0e-4; the edge lies somewhere above" in answer.reasons["edge"]


@pytest.mark.parametrize("runs", [LOST[:1], LOST], ids=["one", "all"])
def test_when_every_run_collapsed_no_rate_is_advised_and_a_gentler_run_is(runs):
    answer = asked(runs, risk=0.9)
    for name in ("max_learning_rate", "suggested_learning_rate", "edge", "low"):
        assert getattr(answer, name) is None
    assert "make one at 4.0e-4" in answer.reasons["max_learning_rate"]
    assert "No rate can be advised" in answer.reason
    assert 1.6e-3 / 100 <= answer.high <= 1.6e-3 * 10


@pytest.mark.parametrize("verdict", ["diverged", "damaged"])
def test_a_diverged_and_a_damaged_run_count_as_unsafe(verdict):
    runs = [survived(2e-3, verdict=verdict, unsafe=True)]
    assert asked(runs).max_learning_rate is None
    assert verdict in asked(runs).evidence[0]


# -- the suggested rate -----------------------------------------------------------------------


def test_the_rate_that_ended_best_is_suggested():
    runs = [survived(r, reward_final=f) for r, f in ((1e-4, 0.85), (2e-4, 0.95), (4e-4, 0.9))]
    assert asked([*runs, *LOST]).suggested_learning_rate == 2e-4


def test_it_is_held_to_the_largest_safe_rate():
    answer = asked([survived(1e-3), collapsed(1.1e-3)] * 3, risk=0.05)
    assert answer.suggested_learning_rate == answer.max_learning_rate < 1e-3


@pytest.mark.parametrize("unknown", [math.nan, math.inf, None])
def test_a_final_reward_that_is_no_number_is_never_the_best(unknown):
    known = survived(1e-4, reward_final=0.8)
    for start in (0.78, None):
        odd = survived(2e-4, reward_final=unknown, reward_start=start)
        assert asked([known, odd]).suggested_learning_rate == 1e-4
        assert asked([odd, known]).suggested_learning_rate == 1e-4
        assert asked([odd]).suggested_learning_rate is None
        assert "none has an evaluation" in asked([odd]).reasons["suggested_learning_rate"]


@pytest.mark.parametrize("start", [0.9, 0.95, math.nan])
def test_when_no_run_ended_above_its_start_no_rate_is_suggested(start):
    answer = asked([survived(1e-4, reward_start=start, reward_final=0.9)])
    assert answer.max_learning_rate is not None
    assert answer.suggested_learning_rate is None
    assert "start is the best policy" in answer.reasons["suggested_learning_rate"]


# -- limits and forecast ----------------------------------------------------------------------

HORIZON = collapsed(2e-3, drift_p95=0.004, displacement_at_onset=2.0)
"""Its drift lies below every clipping radius, so the horizon took it, at displacement 2."""


def test_the_collapse_of_a_given_rate_is_forecast_from_the_drift_law():
    # D(t) = 300·η·√t reaches 2 at t = (2/(300·η))²: 278 at η = 4e-4, 494 at 3e-4.
    runs = [survived(2e-4), HORIZON]
    answer = asked(runs, learning_rate=4e-4)
    assert answer.forecast_collapse_step == pytest.approx((2 / (300 * 4e-4)) ** 2)
    later = asked(runs, learning_rate=3e-4)
    assert later.forecast_collapse_step is None
    assert later.reasons["forecast_collapse_step"] == "none within 300 steps"
    assert asked(runs, learning_rate=3e-4, steps=500).forecast_collapse_step is not None


@pytest.mark.parametrize(
    ("runs", "rate", "words"),
    [
        ([survived(2e-4), HORIZON], None, "no learning rate was given"),
        (SAFE, 2e-4, "no horizon collapse of this setting is archived"),
        ([replace(HORIZON, drift_law=None)], 2e-4, "long enough to fit its drift"),
        ([survived(2e-4), HORIZON], 5e-324, "none within 300 steps"),
    ],
)
def test_a_collapse_that_cannot_be_forecast_has_its_reason(runs, rate, words):
    answer = asked(runs, learning_rate=rate)
    assert answer.forecast_collapse_step is None
    assert words in answer.reasons["forecast_collapse_step"]


def test_the_binding_limit_is_the_largest_that_was_measured():
    # At η = 4e-4 and T = 300: κ_horizon = 300·4e-4·√300/2 = 1.04; the early step is only bounded.
    runs = [survived(2e-4), HORIZON]
    answer = asked(runs, learning_rate=4e-4, max_staleness=0)
    assert answer.binding == "horizon"
    assert "The binding limit is horizon (κ ≈ 1" in answer.reason
    assert "local step not measured" in answer.reason.replace("_", " ")
    # The drift of 0.05 at η = 2e-4 and S = 3 is 0.1 at 4e-4: κ_staleness = 0.1/√(0.008·0.7) = 1.34,
    # and at S = 1 it is 1.34/√3 = 0.77.
    assert asked(runs, learning_rate=4e-4, max_staleness=3).binding == "staleness"
    assert asked(runs, learning_rate=4e-4, max_staleness=1).binding == "horizon"


def test_which_limit_binds_is_not_claimed_where_none_is_measured():
    answer = asked([])
    assert answer.binding == "none"
    assert "Which limit binds is not measured" in answer.reason
    assert answer.regime == Regime.INSUFFICIENT_DATA


def test_the_crossover_is_where_both_limits_are_known():
    # R_batch = √(0.008·0.7) = 0.07483, R_crit = 2, α = 1/2: S* = 300·(0.07483/2)² = 0.42.
    answer = asked([survived(2e-4), HORIZON])
    assert answer.crossover_staleness == pytest.approx(300 * 0.008 * 0.7 / 4)
    assert asked(SAFE).crossover_staleness is None


@pytest.mark.parametrize(("risk", "said"), [(0.05, "5%"), (0.025, "2.5%"), (0.001, "0.1%")])
def test_the_risk_is_said_as_it_was_asked(risk, said):
    answer = asked(SAFE + LOST, risk=risk)
    assert f"stays within {said};" in answer.reason
