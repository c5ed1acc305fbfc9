"""Advice from logged batches: the limit of made-up laws, what outcomes add, and what stays open."""

import math
from dataclasses import replace

import pytest
from factories import a_config, some_facts
from logged_drifts import RATE_AT_1, S, a_log

from advisor.advice import Question
from advisor.passive import advise_from_logs

NOTHING = {
    "displacement": None,
    "largest_step": None,
    "drift_law": None,
    "radii": {},
    "clip_p95": None,
    "parameters": 7_000_000_000,
}


def logged(factor, *, steps=96, unsafe=None, staleness=S, **changes):
    """Return a run at this multiple of the rate at which 1 % is clipped at the oldest age."""
    rate = factor * RATE_AT_1
    config = a_config(learning_rate=rate, max_staleness=staleness, steps=steps)
    verdict = {None: None, True: "collapsed", False: "healthy"}[unsafe]
    log = a_log(rate, staleness=staleness, **changes)
    given = {"steps": steps, "verdict": verdict, "unsafe": unsafe, "logged": log, "drift_p95": 0.1}
    return some_facts(config, **(NOTHING | given))


def asked(runs, *, staleness=S, steps=96, learning_rate=None):
    setting = a_config(learning_rate=1e-4, max_staleness=staleness, steps=steps)
    return advise_from_logs(Question(setting=setting, risk=0.05, learning_rate=learning_rate), runs)


TWO = [logged(0.4), logged(1.0)]


def test_the_edge_lies_between_where_healthy_and_where_degraded_clipping_is_reached():
    # From 0.05 % to 1 % in a law of clip ∝ σ² ∝ η²: from √(1/20) = 0.22 to 1 times the rate at 1 %.
    advice = asked(TWO)
    assert advice.low < 0.3 * RATE_AT_1
    assert 0.3 * RATE_AT_1 < advice.edge < 0.8 * RATE_AT_1
    assert advice.high > 0.9 * RATE_AT_1
    assert advice.binding == "staleness"
    assert "not measured" in advice.reason
    assert advice.kappa_horizon.value is None
    assert advice.reasons["forecast_collapse_step"]


def test_survivors_raise_the_edge_and_collapses_lower_it():
    alone = asked(TWO)
    safe = asked([replace(run, unsafe=False, verdict="healthy") for run in TWO])
    lost = asked([replace(run, unsafe=True, verdict="collapsed") for run in TWO])
    assert lost.edge < alone.edge < safe.edge
    assert safe.high / safe.low < alone.high / alone.low


def test_a_far_longer_horizon_widens_and_more_staleness_lowers():
    here, longer, staler = asked(TWO), asked(TWO, steps=9600), asked(TWO, staleness=2 * S)
    assert longer.max_learning_rate < here.max_learning_rate
    assert longer.edge == pytest.approx(here.edge)
    assert staler.edge == pytest.approx(here.edge / 2**0.7, rel=0.1)


def test_a_rate_is_judged_by_its_distance_from_the_edge():
    edge = asked(TWO).edge
    at_edge, above = asked(TWO, learning_rate=edge), asked(TWO, learning_rate=4 * edge)
    assert at_edge.unsafe_probability == pytest.approx(0.5, abs=0.01)
    assert above.unsafe_probability > 0.9
    assert "a factor of 4 above" in above.reason
    assert above.kappa_staleness.value == pytest.approx(4)


def test_without_a_clip_fraction_the_edge_is_only_bounded_and_no_probability_is_stated():
    advice = asked([logged(0.4, clip=False)], learning_rate=1e-5)
    assert (advice.edge, advice.high, advice.unsafe_probability) == (None, None, None)
    assert advice.max_learning_rate <= 2 * 0.4 * RATE_AT_1 * (1 + 1e-9)
    assert "M2" in advice.reasons["edge"]
    assert "only a lower bound" in advice.reasons["unsafe_probability"]


@pytest.mark.parametrize(
    ("outcomes", "told"), [([True], False), ([False], False), ([False, True], True)]
)
def test_of_a_bound_only_outcomes_on_both_sides_make_an_edge(outcomes, told):
    rates = {False: 0.4, True: 8.0}
    advice = asked([logged(rates[unsafe], clip=False, unsafe=unsafe) for unsafe in outcomes])
    assert (advice.edge is not None) == (advice.high is not None) == told
    assert ("tell the edge" in advice.reasons["edge"]) == told


def test_where_every_batch_is_heavily_clipped_the_edge_lies_below_and_no_rate_is_advised():
    # At 8 times the rate the youngest batches clip 4 %: 0.05 % lies 9 times below in drift.
    advice = asked([logged(8.0, sigma=False)], learning_rate=1e-3)
    assert (advice.max_learning_rate, advice.low, advice.edge) == (None, None, None)
    assert advice.high > RATE_AT_1
    assert "log a run at a lower learning rate" in advice.reasons["max_learning_rate"]
    assert "only an upper bound is" in advice.reason
    assert advice.regime == "staleness_limited"


@pytest.mark.parametrize(
    ("runs", "staleness", "said"),
    [
        ([logged(1.0, sigma=False, clip=False)], S, "log something"),
        ([logged(1.0)], 0, "every rollout is fresh"),
        ([logged(1.0, staleness=0)], S, "log something"),
    ],
)
def test_what_the_logs_do_not_say_is_a_reason_and_no_number(runs, staleness, said):
    found = asked(runs, staleness=staleness)
    assert isinstance(found, str)
    assert said in found


def test_advice_never_goes_beyond_twice_what_was_tried():
    gentle = asked([logged(0.01), logged(0.02)])
    assert gentle.max_learning_rate <= 2 * 0.02 * RATE_AT_1 * (1 + 1e-9)
    assert math.isfinite(gentle.max_learning_rate)


@pytest.mark.parametrize("loss", ["gspo", "tis", "decoupled"])
def test_a_log_of_clipped_tokens_says_nothing_of_a_loss_that_clips_none(loss):
    setting = a_config(learning_rate=1e-4, max_staleness=S, steps=96, loss=loss)
    refusal = advise_from_logs(Question(setting=setting, risk=0.05), TWO)
    assert f"the loss {loss} clips no single tokens" in refusal
