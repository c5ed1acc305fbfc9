"""The report of a validation, from outcomes written out by hand."""

import math

import pytest
from factories import a_config
from probed import LEVELS, a_calibration, a_hold, a_ramp, linear_holds

from advisor.experiments.cells import Cell
from advisor.experiments.validation import RISKS, Judged, Truth, Validation, advice_for
from advisor.experiments.validation_document import baselines, document, false_safe, regrets
from advisor.measured import measured
from advisor.scores import closeness
from advisor.truth import RateOutcome


def outcome(unsafe=0, reward=0.8):
    return RateOutcome(runs=3, collapsed=unsafe, diverged=0, damaged=0, reward=reward)


def a_validation(*, unsafe=0, suggested=0.85):
    """Two cells whose edge a probe bracketed at 2e-3 and 4e-3; their truth is 1.6e-3, 3.2e-3."""
    truths, judged = [], []
    for name, crossing, top in (("one", 2e-3, 8), ("two", 4e-3, 10)):
        cell = Cell(
            name=name,
            split="held out",
            setting={"workload": "arithmetic", "max_staleness": 3, "steps": 300},
        )
        fresh = a_hold(1.4 * crossing, max_staleness=0)
        holds = linear_holds([0.8 * crossing, 1.25 * crossing], crossing)
        probe = measured(a_calibration([a_ramp(crossing * 10), *holds, fresh], a_config()))
        tried = advice_for(cell, 100, probe, LEVELS, RISKS)
        grid = {i: outcome(reward=0.9 - 0.02 * i) for i in range(top + 1)}
        grid |= {top + 1: outcome(3, 0.1), top + 2: outcome(3, 0.0)}
        truths.append(Truth(cell=cell, outcomes=grid, start=0.5, best=outcome(reward=0.9)))
        at_risk = {risk: outcome(unsafe if risk == RISKS[0] else 0) for risk in RISKS}
        judged.append(Judged(tried=tried, at_risk=at_risk, at_suggested=outcome(0, suggested)))
    return Validation(split="held out", truths=truths, judged=judged)


def test_unsafe_runs_are_counted_over_all_probes_with_their_exact_interval():
    found = false_safe(a_validation(unsafe=1), RISKS[0])
    assert (found.k, found.n) == (2, 6)
    assert found.low < 2 / 6 < found.high
    assert false_safe(a_validation(), RISKS[0]).k == 0


def test_regret_is_held_against_the_best_and_the_start():
    # (0.9 − 0.85)/(0.9 − 0.5) = 12.5 %
    assert [value for _, value in regrets(a_validation())] == pytest.approx([0.125, 0.125])


def test_a_suggestion_that_was_not_given_leaves_the_start():
    found = a_validation()
    each = found.judged[0]
    silent = Judged(tried=each.tried, at_risk=each.at_risk, at_suggested=None)
    kept = Validation(split="held out", truths=found.truths, judged=[silent])
    assert [value for _, value in regrets(kept)] == [1.0]


def test_every_rule_is_scored_on_the_same_cells():
    rules = baselines(a_validation())
    assert len(rules) == 6
    for advised in rules.values():
        assert {a.cell for a in advised} == {"one", "two"}
    constant = rules["best constant per workload in hindsight"]
    assert [a.rate for a in constant] == pytest.approx([math.sqrt(1.6e-3 * 3.2e-3)] * 2)
    ramp = rules["learning-rate ramp × best factor in hindsight"]
    assert closeness(ramp).mean_log2 == pytest.approx(0.0, abs=1e-9)  # it scales as the truth does
    paper = rules["the paper's constants as they are"]
    assert {a.rate for a in paper} == {min(1.6e-6 / 3, 3.2e-5 / 300)}


def test_a_rule_that_answers_with_a_constant_ranks_nothing():
    score = closeness(baselines(a_validation())["best constant per workload in hindsight"])
    assert score.spearman is None
    assert score.above.k == 1


def test_the_report_holds_every_figure_every_cell_and_every_probe():
    text = document(a_validation(unsafe=1, suggested=0.86))
    for words in (
        "# Is the advice true?",
        "| 2% | 2 of 6 | 33.3%",
        "| Etalon, risk 2 % | 0 of 2 |",
        "best constant per workload in hindsight",
        "median 10%, worst 10% of 2",
        "What was tried and did not work",
        "| one | arithmetic: max_staleness 3, steps 300 | 0.500 | 0.0016 |",
        "| two | 100 | staleness |",
    ):
        assert words in text, words


def test_the_raw_facts_are_plain_json():
    found = a_validation().as_json()
    assert found["cells"][0]["true_max_learning_rate"] == pytest.approx(1.6e-3)
    assert found["probes"][0]["at_risk"]["0.02"]["runs"]["runs"] == 3
