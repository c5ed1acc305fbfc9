import math
from dataclasses import replace

import pytest
from factories import NOON, a_config, a_run, a_step

from advisor.overview import (
    cycle_of,
    planned_steps,
    recent_steps,
    share_done,
    table_row,
    tiles,
    worth_judging_again,
)


def without_config(**config):
    return replace(a_run(), config=config)


def tile(rows, label, run=None):
    return next(each for each in tiles(run or a_run(), rows) if each.label.startswith(label))


@pytest.mark.parametrize(("steps", "share"), [(0, 0.0), (75, 0.25), (300, 1.0), (301, 1.0)])
def test_the_share_that_is_done_is_of_the_plan_and_never_beyond_it(steps, share):
    assert share_done(a_run(a_config(steps=300)), steps) == share


@pytest.mark.parametrize("planned", [None, 0, "300"])
def test_without_a_readable_plan_nothing_is_said_to_be_done(planned):
    run = without_config(steps=planned)
    assert planned_steps(run) is None
    assert share_done(run, 40) is None


def test_tiles_look_at_twenty_steps_or_at_one_whole_cycle():
    assert recent_steps(a_run(a_config(max_staleness=19))) == 20
    assert recent_steps(a_run(a_config(max_staleness=20))) == 21
    assert (cycle_of(without_config()), recent_steps(without_config())) == (1, 20)


def test_a_tile_takes_the_worst_of_what_was_measured_and_leaves_gaps_out():
    rows = [
        a_step("x", 0, approx_kl=0.001, sequence_ess_fraction=0.9, reward_mean=0.5),
        a_step("x", 1, approx_kl=0.02, sequence_ess_fraction=0.25, reward_mean=0.7),
        a_step("x", 2),
    ]
    assert tile(rows, "sampling KL").value == "0.02"
    assert tile(rows, "sequence ESS").value == "25%"
    assert tile(rows, "batch reward").value == "0.600"  # (0.5 + 0.7) / 2, not / 3
    assert "Over the last 3 learner steps" in tile(rows, "sampling KL").help


def test_clipping_counts_both_sides_of_the_same_step():
    rows = [
        a_step("x", 0, clip_fraction_low=0.03, clip_fraction_high=0.0),
        a_step("x", 1, clip_fraction_low=0.01, clip_fraction_high=0.025),
    ]
    assert tile(rows, "clipped").value == "3.5%"  # 1 % + 2.5 %, not 3 % + 2.5 %
    one_side = [a_step("x", 0, clip_fraction_low=0.03)]
    assert tile(one_side, "clipped").value == "–"


def test_one_value_that_is_not_finite_is_not_averaged_away():
    rows = [a_step("x", 7, reward_mean=math.inf), a_step("x", 8, reward_mean=0.5)]
    found = tile(rows, "batch reward")
    assert (found.value, found.help) == ("not finite", "computed inf at step 7")


def test_a_missing_value_gives_the_reason_of_its_row_before_that_of_its_run():
    run = a_run(unmeasured={"approx_kl": "of the run"})
    assert tile([a_step("x", 0)], "sampling KL", run).help == "of the run"
    row = a_step("x", 0, reasons={"approx_kl": "of the row"})
    assert tile([row], "sampling KL", run).help == "of the row"


def test_without_a_single_step_every_tile_is_a_dash():
    assert {each.value for each in tiles(a_run(), [])} == {"–"}


def test_a_row_of_the_table_keeps_zero_and_leaves_out_what_is_unknown_or_not_finite():
    run = a_run(reward_first=0.0, reward_last=math.nan, archived=True)
    row = table_row(run, "✔ finished", 150)
    assert (row["reward first"], row["reward last"], row["collapse step"]) == (0.0, None, None)
    assert (row["status"], row["done"]) == ("✔ finished (archived)", 50.0)
    assert row["created (UTC)"] == "2023-11-14 22:13"  # NOON is 1 700 000 000 s
    assert NOON == 1_700_000_000


@pytest.mark.parametrize(
    ("steps", "judged"),
    [(0, 0), (19, 19), (99, 99), (104, 100), (996, 1000), (1949, 1900), (1951, 2000)],
)
def test_a_long_run_is_judged_again_when_its_first_two_digits_change(steps, judged):
    assert worth_judging_again(steps) == judged
