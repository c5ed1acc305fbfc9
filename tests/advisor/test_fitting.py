"""Safe levels fitted to cells: against grids whose edge and best share are known."""

import math

import numpy as np
import pytest

from advisor.experiments.edges import Curve, best_share, edge_of, probit
from advisor.experiments.fitting import _between
from advisor.truth import RateOutcome, grid_rate


def rate(unsafe=0, reward=0.8, runs=3):
    return RateOutcome(runs=runs, collapsed=unsafe, diverged=0, damaged=0, reward=reward)


def grid(*unsafe, first=0):
    return {first + i: rate(each) for i, each in enumerate(unsafe)}


def curve(outcomes, edge):
    return Curve({grid_rate(i): o.reward for i, o in outcomes.items()}, edge, 0.5)


def test_between_the_last_safe_and_the_first_unsafe_rate_the_edge_is_their_middle():
    edge = edge_of(grid(0, 0, 0, 3, 3))
    assert edge == pytest.approx(math.sqrt(grid_rate(2) * grid_rate(3)), rel=0.01)


def test_a_share_of_unsafe_runs_moves_the_edge_by_that_share_of_a_step():
    """Two of three survive at index 2: the edge lies 2/3 of a step above the middle of 1 and 2."""
    edge = edge_of(grid(0, 0, 1, 3, 3))
    assert edge == pytest.approx(1e-4 * 2 ** ((1 + 2 / 3 + 0.5) / 2), rel=0.01)


@pytest.mark.parametrize("unsafe", [(), (0, 0, 0), (3, 3), (1, 3, 3), (0, 0, 2)])
def test_a_grid_that_does_not_span_the_edge_has_none(unsafe):
    assert edge_of(grid(*unsafe)) is None


def test_the_share_that_gains_most_is_found_in_a_hill():
    """The reward falls by the square of ln η from a best at a fifth of the edge."""
    edge = 2e-3
    hill = {
        i: rate(reward=0.8 - 0.02 * math.log(grid_rate(i) / (0.2 * edge)) ** 2)
        for i in range(-8, 10)
    }
    assert best_share([curve(hill, edge)]) == pytest.approx(0.2, rel=0.2)


def test_a_grid_that_rises_towards_its_lowest_rate_draws_no_share_below_it():
    """What was never run is not taken to be as good as the lowest rate that was."""
    falling = {i: rate(reward=0.9 - 0.05 * i) for i in range(6)}
    edge = 8e-4
    assert best_share([curve(falling, edge)]) == pytest.approx(grid_rate(0) / edge, rel=0.1)


def test_a_cell_counts_by_the_share_of_its_own_gain():
    """A cell that can gain 0.5 does not drown one that can gain 0.05."""
    edge = 1.6e-3

    def peak(index, size):
        found = {i: rate(reward=0.5 + size * max(0.0, 1 - abs(i - index) / 3)) for i in range(9)}
        return curve(found, edge)

    loud, soft = peak(2, 0.5), peak(2, 0.05)
    assert best_share([loud]) == best_share([soft, loud])


def test_the_scatter_between_cells_is_what_the_errors_of_the_crossings_leave():
    rng = np.random.default_rng(0)
    truth, error = 0.3, 0.2
    ratios = rng.normal(0, math.hypot(truth, error), 4000)
    assert _between(ratios.tolist(), [error] * 4000) == pytest.approx(truth, rel=0.05)
    assert _between([0.0, 0.01, -0.01], [error] * 3) == 0.1  # never less than this


def test_the_probit_finds_the_level_and_the_scatter_that_made_the_outcomes():
    rng = np.random.default_rng(1)
    x = np.exp(rng.uniform(-1.5, 1.5, 4000))
    bad = np.log(x) + 0.4 * rng.normal(size=4000) > math.log(0.7)
    found = probit(list(zip(x.tolist(), bad.tolist(), strict=True)))
    assert found["value"] == pytest.approx(0.7, rel=0.05)
    assert found["log_sd"] == pytest.approx(0.4, rel=0.1)


def test_outcomes_that_separate_keep_a_least_scatter():
    found = probit([(0.5, False), (0.6, False), (0.8, True), (0.9, True)])
    assert 0.6 <= found["value"] <= 0.8
    assert found["log_sd"] >= 0.1
