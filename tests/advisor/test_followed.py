"""Safe levels of learned rewards, fitted to runs and probes whose laws are known."""

import json
import math
from contextlib import closing
from typing import Any

import pytest
from factories import NOON, a_config, a_run, a_step, an_evaluation
from probed import KL_SCALE, a_calibration, a_hold, linear_holds, travelled

from advisor.__main__ import main
from advisor.experiments.cell_probes import PROBE_SEEDS
from advisor.experiments.cells import TUNING, UNUSED_RATE, Cell
from advisor.experiments.fitting import fit
from advisor.experiments.followed import Evidence, evidence, joined, learned_levels, reward_curves
from advisor.experiments.validation import truth_group
from advisor.safe_levels import safe_levels
from advisor.truth import grid_rate
from storage.commandline import BadInput
from storage.errors import ArchiveUnavailable
from storage.store import Store

LEVEL, BEST, COLLAPSE = 0.6, 0.15, 1.3
"""√KL where gold is back at its start, the share of the edge that ends best, √KL at a collapse."""
STEPS = 200
SETTING = {
    "workload": "preference",
    "max_staleness": 3,
    "schedule": "constant",
    "warmup_steps": 0,
    "steps": STEPS,
}
GROUP = truth_group(TUNING)
CROSSING, CHECKED_EDGE = 4e-4, 8e-4
"""On checkable rewards: where holds stop gaining, and the lowest rate at which runs are lost."""


def sqrt_kl(rate: float, steps: int) -> float:
    return KL_SCALE * (rate * steps) ** 0.65 * rate**0.1


EDGE = (LEVEL / (KL_SCALE * STEPS**0.65)) ** (1 / 0.75)


def finished(store: Store, rate: float, outcome: str | None = None, **changes: Any) -> None:
    """Add a run at a rate that ended as the laws say."""
    config = a_config(**{**SETTING, "learning_rate": rate, **changes})
    onset = next((t for t in range(STEPS) if sqrt_kl(rate, t) > COLLAPSE), None)
    unsafe = "collapsed" if onset is not None else "damaged"
    run = a_run(
        config,
        status="finished",
        ended_at=NOON,
        collapse_step=onset,
        group=config.group,
        kind="sweep",
        outcome=outcome or (unsafe if sqrt_kl(rate, STEPS) > LEVEL else "healthy"),
        gold_reward_first=0.68,
        gold_reward_final=0.75 - 0.02 * math.log(rate / (BEST * EDGE)) ** 2,
    )
    store.create_run(run)
    store.append_evaluation(an_evaluation(run.id, 0, 0.9, gold=0.68))
    store.append_steps(
        [a_step(run.id, t, kl_to_start=sqrt_kl(rate, t) ** 2) for t in range(5, STEPS + 1, 5)]
    )


def probed(store: Store, **changes: Any) -> None:
    """Add a probe whose holds travel as the laws say."""
    setting = a_config(**{**SETTING, **changes})
    holds = [a_hold(share * EDGE, travel=travelled(share * EDGE, 60)) for share in (0.5, 1.5)]
    store.save_calibration(
        a_calibration(holds, setting, id=f"20260101-{setting.annotator_seed:06}-{setting.seed:06}")
    )


def an_archive(store: Store, shares=(0.1, 0.15, 0.25, 0.5, 0.7, 0.95, 1.05, 1.4, 2, 3, 4)) -> None:
    for annotator in (1, 2):
        for share in shares:
            finished(store, share * EDGE, annotator_seed=annotator)
        probed(store, annotator_seed=annotator)


def test_levels_come_out_as_the_laws_that_made_runs_and_probes(store):
    an_archive(store)
    found = learned_levels(evidence(store))
    assert found["sqrt_kl"]["value"] == pytest.approx(LEVEL, rel=0.03)
    assert found["edge_over_horizon"]["value"] == pytest.approx(1, rel=0.05)
    assert found["edge_over_horizon"]["log_sd"] == 0.15  # two settings alike: the scatter of seeds
    assert found["best_over_edge"] == pytest.approx(BEST, rel=0.1)
    assert found["collapse_over_damage"] == pytest.approx(COLLAPSE / LEVEL, rel=0.1)


def test_what_stands_in_two_archives_counts_once(store):
    an_archive(store)
    once = evidence(store)
    twice = joined([once, once])
    assert (len(twice.runs), len(twice.probes)) == (len(once.runs), len(once.probes)) == (22, 2)


def test_what_was_put_away_was_stopped_is_running_or_of_a_checkable_reward_is_no_evidence(store):
    finished(store, 2 * EDGE)
    store.update_run(store.runs()[0].id, archived=True)
    finished(store, 3 * EDGE)
    store.update_run(store.runs()[0].id, status="stopped", outcome="healthy")
    finished(store, EDGE)
    store.create_run(a_run(a_config(**SETTING)))
    store.create_run(a_run(a_config(), outcome="healthy"))
    assert [each.config.learning_rate for each in evidence(store).runs] == [EDGE]


def test_a_setting_of_few_rates_or_none_below_its_best_tells_nothing_of_the_best(store):
    an_archive(store, shares=(0.5, 0.7, 0.95, 1.05, 1.4, 2))
    assert reward_curves(evidence(store).runs) == []


def test_a_setting_that_never_gains_tells_nothing_of_the_best(store):
    for share in (0.1, 0.15, 0.25, 0.5, 0.95, 1.4, 3):
        finished(store, share * EDGE)
    for run in store.runs():
        store.update_run(run.id, gold_reward_first=0.8)
    assert reward_curves(evidence(store).runs) == []


@pytest.mark.parametrize(
    ("shares", "what"),
    [
        ((0.1, 0.5), "none on a learned reward collapsed; add runs at larger rates"),
        ((5, 6), "probes: 0 of a setting on a learned reward with safe and unsafe runs"),
        ((0.5, 2, 6), "no setting on a learned reward that gains was run at 5 rates, from"),
    ],
)
def test_too_little_evidence_is_refused_with_what_is_missing(store, shares, what):
    an_archive(store, shares)
    with pytest.raises(BadInput, match=what):
        learned_levels(evidence(store))


def of_tuning(store: Store, cell: Cell, start: float) -> None:
    """Add the probes of a checkable cell, and a grid of its runs."""
    for seed in PROBE_SEEDS:
        holds = linear_holds((1e-4, 2e-4, 4e-4, 6e-4), edge=CROSSING)
        setting, name = cell.config(UNUSED_RATE, seed), f"20260101-{seed:06}-{cell.name:0>6}"
        store.save_calibration(a_calibration(holds, setting, id=name))
    for index in range(-8, 12):
        rate = grid_rate(index)
        run = a_run(
            cell.config(rate, 0).model_copy(update={"group": GROUP}),
            group=GROUP,
            kind="sweep",
            status="finished",
            ended_at=NOON,
            outcome="healthy" if rate < CHECKED_EDGE else "damaged",
            reward_final=0.8 - 0.02 * math.log(rate / (0.25 * CHECKED_EDGE)) ** 2,
        )
        store.create_run(run)
        store.append_evaluation(an_evaluation(run.id, 0, start))


def fitted(store: Store, learned: list[Cell], others: list[Evidence]) -> dict[str, Any]:
    """Fit to two checkable cells, one that never gains, and these; all runs are in the archive."""
    setting = {"workload": "arithmetic", "max_staleness": 3, "steps": 100}
    cells = [
        Cell(name=name, split=TUNING, setting={**setting, "prompts": size}, seeds=(0,))
        for name, size in {"a1": 8, "a2": 16, "a3": 24}.items()
    ]
    for cell, start in zip(cells, (0.5, 0.5, 0.95), strict=True):
        of_tuning(store, cell, start)
    return fit(store, [*cells, *learned], others, jobs=1, progress=lambda *_: None)


def test_fit_takes_the_checkable_cells_and_the_learned_rewards_of_other_archives(store, tmp_path):
    with closing(Store.open(str(tmp_path / "other.db"))) as other:
        an_archive(other)
        learned = evidence(other)
    never_run = Cell(name="p", split=TUNING, setting=SETTING)
    found = fitted(store, [never_run], [learned])
    step = math.sqrt(grid_rate(1) / grid_rate(0))
    over_crossing = CHECKED_EDGE / CROSSING / step
    assert found["edge_over_crossing"]["value"] == pytest.approx(over_crossing, rel=0.05)
    assert found["best_over_edge"]["survival"] == pytest.approx(0.25 * step, rel=0.1)
    assert found["sqrt_kl"] == learned_levels(learned)["sqrt_kl"]
    file = tmp_path / "levels.json"
    file.write_text(json.dumps(found))
    assert safe_levels(file).best_over_edge == found["best_over_edge"]


def test_without_other_archives_it_takes_the_cells_on_a_learned_reward_and_no_other_run(store):
    cell = Cell(name="p1", split=TUNING, setting=SETTING, seeds=(0,))
    for index in range(-8, 14):
        finished(store, grid_rate(index), group=GROUP, seed=0)
    for seed in PROBE_SEEDS:
        probed(store, seed=seed, learning_rate=UNUSED_RATE)
    for _ in range(30):  # of a cell that judges
        finished(store, EDGE / 3, outcome="damaged", annotator_seed=9)
    found = fitted(store, [cell], [])
    grid = sorted(sqrt_kl(grid_rate(index), STEPS) for index in range(-8, 14))
    above = next(i for i, kl in enumerate(grid) if kl > LEVEL)
    assert grid[above - 1] < found["sqrt_kl"]["value"] < grid[above]
    assert found["edge_over_horizon"]["value"] == pytest.approx(1, rel=0.2)
    assert found["best_over_edge"]["horizon"] == pytest.approx(BEST, rel=0.25)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--fit", "f"], "fit: not allowed on cells that judge"),
        (["--learned-rewards", "a.db"], "learned-rewards: not allowed without --fit"),
        (["--split", "tuning", "--fit", "f", "--learned-rewards", "none.db"], "none.db"),
    ],
)
def test_a_fit_to_what_judges_or_to_an_archive_that_is_not_there_is_refused(
    words, what, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((BadInput, ArchiveUnavailable), match=what):
        main(["validate", "--db", "own.db", *words])
    assert list(tmp_path.iterdir()) == []
