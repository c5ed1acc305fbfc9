"""When a rule holds for a run, when it does not, and when nobody knows."""

import math
from dataclasses import replace

import pytest
from factories import NOON
from sights import NOT_YET, a_diagnosis, a_sight

from advisor.alerts.conditions import concerns, findings
from advisor.alerts.rules import CONDITIONS, Rule
from advisor.red_flags import FLAGS, RedFlag
from advisor.regime import Estimate, Regime
from storage.records import RunStatus


def held(rule, sight):
    """Return, by subject, whether the rule holds."""
    return {found.subject: found.holds for found in findings(Rule(**rule), sight)}


def span(low, value=None, high=None):
    return Estimate(value=value, low=low, high=high)


def test_every_condition_can_be_read():
    given = {
        "regime": ("collapsed",),
        "kappa_above": 1,
        "horizon_left": 1,
        "collapse_within": 1,
        "silent_seconds": 60,
        "ended": ("failed",),
        "red_flags": ("any",),
    }
    for condition in CONDITIONS:
        found = list(findings(Rule(**{condition: given[condition]}), a_sight()))
        assert found
        assert {each.holds for each in found} <= {False, None}, "nothing is wrong with this run"


def test_a_regime_holds_while_it_is_the_regime():
    rule = {"regime": ("staleness_limited", "collapsed")}
    limited = a_sight(a_diagnosis(Regime.STALENESS_LIMITED, change="a rate of 1e-4"))
    assert held(rule, limited) == {"staleness_limited": True, "collapsed": False}
    first = next(findings(Rule(**rule), limited))
    assert first.message == "staleness_limited: why; to change: a rate of 1e-4"
    stable = {"staleness_limited": False, "collapsed": False}
    assert held(rule, a_sight(a_diagnosis())) == stable
    nothing = {"staleness_limited": None, "collapsed": None}
    assert held(rule, a_sight(a_diagnosis(Regime.INSUFFICIENT_DATA))) == nothing
    ended = a_sight(status=RunStatus.COLLAPSED, outcome="collapsed")
    assert held(rule, ended) == {"staleness_limited": None, "collapsed": True}


@pytest.mark.parametrize(
    ("kappa", "holds"),
    [
        (span(0.81), True),
        (span(0.8), False),
        (span(math.inf), True),
        (span(None, high=3.0), None),
        (span(0.5, value=0.9, high=2.0), False),
        (NOT_YET, None),
    ],
)
def test_kappa_counts_by_its_low_end(kappa, holds):
    sight = a_sight(a_diagnosis(kappa_slide=kappa))
    assert held({"kappa_above": 0.8, "kappa": ("slide",)}, sight) == {"slide": holds}


def test_every_kappa_is_looked_at_unless_some_are_named():
    names = {"staleness", "horizon", "slide", "local_step"}
    one = a_diagnosis(kappa_local=span(2.0))
    assert held({"kappa_above": 1}, a_sight(one)) == dict.fromkeys(names) | {"local_step": True}


@pytest.mark.parametrize(
    ("low", "value", "left", "within"),
    [  # the run has taken 100 of 1000 steps
        (119, 200, True, False),
        (120, 151, False, False),
        (50, 149, True, True),
        (None, 149, None, True),
        (119, None, None, None),
        (None, None, None, None),
        (1001, 1100, False, False),
    ],
)
def test_what_is_ahead_counts_in_steps_from_now(low, value, left, within):
    found = a_diagnosis(horizon_step=span(low, value=value))
    assert held({"horizon_left": 20}, a_sight(found)) == {"horizon": left}
    assert held({"collapse_within": 50}, a_sight(found)) == {"collapse": within}


def test_what_comes_after_the_planned_end_is_not_ahead():
    near = a_diagnosis(horizon_step=span(1001, value=1002))
    at_the_end = a_sight(near, step=998)
    assert held({"horizon_left": 20}, at_the_end) == {"horizon": False}
    assert held({"collapse_within": 20}, at_the_end) == {"collapse": False}
    unplanned = replace(at_the_end, run=replace(at_the_end.run, config={}))
    assert held({"collapse_within": 20}, unplanned) == {"collapse": True}


@pytest.mark.parametrize(
    ("status", "silent", "is_gone", "holds"),
    [
        (RunStatus.RUNNING, 59.9, False, False),
        (RunStatus.RUNNING, 60.0, False, True),
        (RunStatus.LOST, 31.0, True, True),
        (RunStatus.LOST, 59.9, False, False),
        (RunStatus.LOST, 60.0, False, True),
        (RunStatus.QUEUED, 999.0, False, None),
        (RunStatus.FINISHED, 999.0, True, None),
    ],
)
def test_a_run_without_a_sign_of_life(status, silent, is_gone, holds):
    [found] = findings(
        Rule(silent_seconds=60), a_sight(status=status, silent=silent, is_gone=is_gone)
    )
    assert found.holds is holds
    assert ("its process is gone" in found.message) is (status is RunStatus.LOST and is_gone)


@pytest.mark.parametrize(
    ("status", "outcome", "how"),
    [
        (RunStatus.RUNNING, None, None),
        (RunStatus.RUNNING, "damaged", None),
        (RunStatus.FINISHED, "healthy", "finished"),
        (RunStatus.FINISHED, "damaged", "damaged"),
        (RunStatus.FAILED, None, "failed"),
        (RunStatus.STOPPED, None, "stopped"),
        (RunStatus.COLLAPSED, "collapsed", "collapsed"),
    ],
)
def test_a_run_ends_in_one_way(status, outcome, how):
    ways = ("collapsed", "diverged", "damaged", "failed", "stopped", "finished")
    found = held({"ended": ways}, a_sight(status=status, outcome=outcome, ended_at=NOON))
    assert found == dict.fromkeys(ways, False) | ({how: True} if how else {})


def test_a_lost_run_has_not_ended_and_a_failed_one_says_why():
    assert held({"ended": ("failed",)}, a_sight(status=RunStatus.LOST)) == {"failed": None}
    failed = a_sight(status=RunStatus.FAILED, error="Traceback\n  x\nMemoryError: no memory\n")
    [found] = findings(Rule(ended=("failed",)), failed)
    assert found.message == "the run ended failed: MemoryError: no memory"


def test_a_flag_is_up_or_not_and_any_are_all():
    flag = RedFlag(name="entropy gone", evidence="it is 0", advice="lower it")
    sight = a_sight(a_diagnosis(red_flags=(flag,)))
    assert held({"red_flags": ("any",)}, sight) == {n: n == flag.name for n in FLAGS}
    assert held({"red_flags": ("engine mismatch",)}, sight) == {"engine mismatch": False}
    assert set(held({"red_flags": ("any",)}, a_sight()).values()) == {None}


@pytest.mark.parametrize(
    ("filters", "concerned"),
    [
        ({}, True),
        ({"groups": ("night*",)}, True),
        ({"groups": ("day*", "night-[0-9]")}, True),
        ({"groups": ("Night*",)}, False),
        ({"names": ("*large*",)}, True),
        ({"names": ("large",)}, False),
        ({"tags": ("watched", "other")}, True),
        ({"tags": ("watch",)}, False),
        ({"groups": ("night*",), "tags": ("other",)}, False),
        ({"kinds": ("probe",)}, False),
    ],
)
def test_a_rule_is_about_the_runs_that_every_filter_takes(filters, concerned):
    sight = a_sight(name="a large one", group="night-1", tags=("watched",))
    assert concerns(Rule(ended=("failed",), **filters), sight) is concerned


@pytest.mark.parametrize(
    ("kind", "concerned"), [("train", True), ("attached", True), ("sweep", False), ("probe", False)]
)
def test_runs_that_look_for_the_edge_are_left_out_unless_asked_for(kind, concerned):
    assert concerns(Rule(ended=("failed",)), a_sight(kind=kind)) is concerned
