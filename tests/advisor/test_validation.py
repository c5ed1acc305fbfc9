"""The cells of a validation: what a file of them may hold, and those that are bundled."""

import json

import pytest
from probed import LEVELS, a_calibration, a_ramp, linear_holds

from advisor.experiments.cell_runs import first_index, true_rate
from advisor.experiments.cells import Cell, read_cells
from advisor.experiments.edges import rounded
from advisor.experiments.validation import advice_for, first_advice
from advisor.measured import measured
from advisor.truth import RateOutcome
from storage.commandline import BadInput

GOOD = {"max_staleness": 3, "steps": 200}


@pytest.fixture
def cells_file(tmp_path):
    """Write what a test says into a file of cells and return its path."""

    def write(content):
        path = tmp_path / "cells.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def faults(path):
    with pytest.raises(BadInput) as found:
        read_cells(path)
    return str(found.value).splitlines()


# -- reading a file ----------------------------------------------------------------------------


def test_a_cell_needs_only_its_setting(cells_file):
    [first, second] = read_cells(cells_file([GOOD, {**GOOD, "name": "b", "split": "tuning"}]))
    assert first == Cell(name="cell-1", split="held out", setting=GOOD, seeds=(0, 1, 2))
    assert (second.name, second.split) == ("b", "tuning")


@pytest.mark.parametrize(
    ("given", "seeds"), [(1, (0,)), (4, (0, 1, 2, 3)), ([7], (7,)), ([5, 2], (5, 2))]
)
def test_seeds_are_a_count_or_a_list(cells_file, given, seeds):
    assert read_cells(cells_file([{**GOOD, "seeds": given}]))[0].seeds == seeds


def test_a_cell_is_a_run_at_every_rate_and_seed(cells_file):
    [cell] = read_cells(cells_file([{**GOOD, "optimizer": "sgd"}]))
    config = cell.config(3e-3, 12)
    assert (config.learning_rate, config.seed, config.optimizer) == (3e-3, 12, "sgd")
    assert (config.max_staleness, config.steps) == (3, 200)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[{'steps': 3}]", "cannot be read"),
        ("{}", "holds no list of settings"),
        ("[]", "holds no list of settings"),
        ("3", "holds no list of settings"),
        ("null", "holds no list of settings"),
        ('["a"]', "holds no list of settings"),
        ('[{"steps": 3}, 4]', "holds no list of settings"),
    ],
)
def test_what_is_no_json_list_of_settings_is_refused_in_one_line(cells_file, content, told):
    path = cells_file(content)
    [line] = faults(path)
    assert line.startswith(f"cells: {path} {told}")
    assert "a JSON list" in line


def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path):
    (tmp_path / "latin").write_bytes(b'[{"name": "\xe9"}]')
    for path in (tmp_path / "nosuch.json", tmp_path, tmp_path / "latin"):
        [line] = faults(path)
        assert line.startswith(f"cells: {path} cannot be read: ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_stalenes": 3}, "max_stalenes: not a setting; did you mean max_staleness?"),
        ({"steps": 0}, "steps: 0 is not allowed; allowed: whole number, 1 <= steps"),
        ({"steps": None}, "steps: not given"),
        ({"split": "test"}, "split: 'test' is not allowed; allowed: tuning | held out"),
        ({"split": None}, "split: None is not allowed"),
        ({"split": ["tuning"]}, "split: ['tuning'] is not allowed"),
        ({"seeds": 0}, "seeds: 0 is not allowed; allowed: 1…100, or a list of seeds"),
        ({"seeds": 101}, "seeds: 101 is not allowed"),
        ({"seeds": -1}, "seeds: -1 is not allowed"),
        ({"seeds": []}, "seeds: [] is not allowed"),
        ({"seeds": True}, "seeds: True is not allowed"),
        ({"seeds": 2.5}, "seeds: 2.5 is not allowed"),
        ({"seeds": "0,1"}, "seeds: '0,1' is not allowed"),
        ({"seeds": [0, "1"]}, "seeds: [0, '1'] is not allowed"),
        ({"seeds": None}, "seeds: None is not allowed"),
        ({"learning_rate": 1e-4}, "learning_rate: 0.0001 is not allowed; it is what is searched"),
        ({"learning_rate": None}, "learning_rate: None is not allowed"),
        ({"seed": 3}, "seed: 3 is not allowed"),
        ({"clip_epsilon_high": 0.1}, "clip_epsilon_high: 0.1 is below clip_epsilon"),
    ],
)
def test_a_cell_that_is_not_allowed_is_refused_in_one_line_with_its_name(cells_file, change, told):
    [line] = faults(cells_file([{"name": "good", **GOOD}, {"name": "mine", **GOOD, **change}]))
    assert line.startswith(f"cells: mine: {told}")


def test_every_fault_of_every_cell_is_told_at_once(cells_file):
    lines = faults(cells_file([{"steps": 0, "max_staleness": -1}, GOOD, {**GOOD, "split": "x"}]))
    assert [line.split(":")[1:3] for line in lines] == [
        [" cell-1", " max_staleness"],
        [" cell-1", " steps"],
        [" cell-3", " split"],
    ]


def test_a_name_is_given_once(cells_file):
    [line] = faults(
        cells_file([{"name": "a", **GOOD}, {"name": "b", **GOOD}, {"name": "a", **GOOD}])
    )
    assert line == "cells: a: this name is there twice"
    [line] = faults(cells_file([{"name": "cell-2", **GOOD}, GOOD]))
    assert line == "cells: cell-2: this name is there twice"


@pytest.mark.parametrize("seeds", [[-1], [2**31], [0, 0], [True]])
def test_seeds_that_no_run_may_have_or_that_are_there_twice_are_refused(cells_file, seeds):
    [line] = faults(cells_file([{"name": "mine", **GOOD, "seeds": seeds}]))
    assert line.startswith("cells: mine: seed")


# -- the bundled cells -------------------------------------------------------------------------


def test_the_bundled_cells_are_half_for_tuning_and_of_both_workloads():
    cells = read_cells()
    assert len(cells) >= 24
    tuning = [cell for cell in cells if cell.split == "tuning"]
    assert 2 * len(tuning) == len(cells)
    for part in (tuning, [cell for cell in cells if cell.split == "held out"]):
        workloads = {cell.config(1e-4, 0).workload for cell in part}
        assert workloads == {"arithmetic", "preference"}
        assert {cell.config(1e-4, 0).optimizer for cell in part} == {"adamw", "sgd"}


def test_no_setting_is_there_twice_so_what_judges_was_never_tuned_on():
    settings = [cell.config(1e-4, 0).model_dump_json() for cell in read_cells()]
    assert len({*settings}) == len(settings)


@pytest.mark.parametrize("cell", read_cells(), ids=lambda cell: cell.name)
def test_a_bundled_cell_can_be_run_from_where_its_search_begins(cell):
    assert len(cell.seeds) >= 3
    assert -10 <= first_index(cell) <= 24
    assert cell.config(1e-4, cell.seeds[0]).stop_on_collapse


# -- the pure parts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "expected"), [(1.23456e-4, 1.23e-4), (0.5, 0.5), (9.999e-5, 1e-4), (10.0, 10.0)]
)
def test_a_rate_is_rounded_to_three_digits(rate, expected):
    assert rounded(rate) == expected


def test_the_true_rate_is_read_off_the_grid():
    safe = RateOutcome(runs=3, collapsed=0, diverged=0, damaged=0, reward=0.8)
    failed = RateOutcome(runs=3, collapsed=0, diverged=0, damaged=1, reward=0.3)
    assert true_rate({3: safe, 4: safe, 5: failed}) == 4e-4
    assert true_rate({3: failed}) is None


def test_a_probe_is_asked_about_its_cell_at_every_risk(cells_file):
    [cell] = read_cells(cells_file([GOOD]))
    holds = linear_holds([1.6e-3, 2.5e-3], 2e-3)
    probe = measured(a_calibration([a_ramp(), *holds], cell.config(1e-4, 100)))
    found = advice_for(cell, 100, probe, LEVELS, (0.3, 0.02, 0.1))
    rates = [found.advice[risk].max_learning_rate for risk in (0.02, 0.1, 0.3)]
    assert rates == sorted(set(rates))
    assert first_advice(found).max_learning_rate == rates[0]
