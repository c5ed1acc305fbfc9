"""From a stored run of the trainer, its configuration and rows, to its facts. Reads the store."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import ValidationError

from storage.records import RunInfo, RunStatus
from storage.store import Store
from trainer.config import TrainerConfig

from .run_facts import SERIES, RunFacts, run_facts

FIRST_STEPS, LAST_STEPS = 2_000, 10_000
"""What is read of a very long run."""
ENDED = (RunStatus.FINISHED, RunStatus.COLLAPSED, RunStatus.DIVERGED)
"""How a run ends that was neither stopped nor broken off: what came of it is an outcome."""
LEAST_STEPS = 20
"""Of a run with fewer learner steps nothing is said."""
NEAREST = 40
"""Ended runs that are read, the nearest in learning rate: their constants are those of other rates
the less the farther, and a live page asks every other second."""
_ENDED: WeakKeyDictionary[Store, dict[str, tuple[RunInfo, RunFacts]]] = WeakKeyDictionary()
"""Facts of ended runs by open store: their steps change no more, and reading 200 of them takes a
second, which a page that looks every other second does not have."""


def config_of(run: RunInfo) -> TrainerConfig | None:
    """Return the configuration of a stored run; None when this trainer cannot read it."""
    try:
        return TrainerConfig.model_validate(run.config)
    except ValidationError:
        return None


def readable(runs: Sequence[RunInfo]) -> list[tuple[RunInfo, TrainerConfig]]:
    """Return the runs of the trainer whose configuration can be read, each with it."""
    configs = [(run, config_of(run)) for run in runs if run.kind in ("train", "sweep")]
    return [(run, config) for run, config in configs if config is not None]


def facts_of(store: Store, run: RunInfo, config: TrainerConfig) -> RunFacts:
    """Summarise a stored run of this configuration."""
    kept = _ENDED.setdefault(store, {})
    if run.id in kept and kept[run.id][0] == run:
        return kept[run.id][1]
    evaluations = store.evaluations(run.id)
    start = evaluations[0].reward if evaluations and evaluations[0].step == 0 else None
    newest = store.steps(run.id, last=1)
    series, steps = ends_of(store, run.id, SERIES)
    facts = run_facts(
        run_id=run.id,
        name=run.name,
        config=config,
        verdict=run.outcome,
        onset=run.collapse_step,
        slide=run.slide_step,
        reward_start=start,
        reward_final=run.reward_final,
        series=series,
        steps=steps,
        radii=(newest[0].clipping_radii if newest else None) or {},
        weight_radii=newest[0].weight_radii if newest else None,
        ended=run.status in ENDED,
        parameters=run.parameters,
    )
    if not run.status.alive:
        kept[run.id] = run, facts
    return facts


def ends_of(
    store: Store, run_id: str, names: Sequence[str]
) -> tuple[dict[str, list[Any]], int | None]:
    """Return columns of a run, of a very long one its first and last steps only.

    What a diagnosis reads lies there: the first updates, and how the run is now. The number is how
    many steps the run has, when the columns do not hold them all.
    """
    last = store.last_step(run_id)
    if last is None or last < FIRST_STEPS + LAST_STEPS:
        return store.series(run_id, names), None
    first = store.series(run_id, names, until=FIRST_STEPS - 1)
    newest = store.series(run_id, names, after=last - LAST_STEPS)
    return {name: first[name] + newest[name] for name in names}, last + 1
