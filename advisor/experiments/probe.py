"""Measure a setting: a few short runs from its starting weights, within a budget of learner steps.

Each segment is an ordinary run of the archive, of kind ``probe``; the starting weights are loaded
anew for each, so nothing that a segment does to them outlives it.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from storage.commandline import BadInput
from storage.models import SCHEMA_REVISION
from storage.records import Calibration
from storage.store import Store, new_run_id
from trainer.config import TrainerConfig
from trainer.launch import code_version, queued_run

from ..next_segment import RAMP_STEPS, hold_steps, next_segment
from ..segments import Segment, summarise

logger = logging.getLogger(__name__)

KIND = "probe"
DEFAULT_BUDGET = 300
BUDGET_PER_STEP = 2.2
"""Of a short horizon a tenth of nine rates on three seeds, 2.7 T, is left after evaluations."""


def probe(
    store: Store,
    setting: TrainerConfig,
    *,
    budget: int,
    progress: Callable[[str, int, int], None],
) -> Calibration:
    """Probe a setting and store what was found.

    Args:
        store: the archive.
        setting: what to probe; its ``learning_rate`` is ignored, ``steps`` is the horizon T.
        budget: learner steps that may be spent.
        progress: told (words, learner steps done, budget).

    Raises:
        BadInput: the budget does not suffice for a ramp and one hold.
        KeyboardInterrupt: it was interrupted; the segments so far are kept as runs.
        RuntimeError: a segment failed.
    """
    check_budget(setting, budget)
    began = time.time()
    name = new_run_id(began)
    done: list[Segment] = []
    while (config := next_segment(setting, done, budget - _spent(done))) is not None:
        done.append(_run(store, name, config, _spent(done), budget, progress))
    found = Calibration(
        id=name,
        time=time.time(),
        setting=setting.model_dump(mode="json"),
        segments=tuple(segment.as_json() for segment in done),
        run_ids=tuple(segment.run_id for segment in done),
        learner_steps=_spent(done),
        cost_steps=sum(segment.cost_steps for segment in done),
        seconds=time.time() - began,
    )
    store.save_calibration(found)
    return found


def default_budget(setting: TrainerConfig) -> int:
    """Return the learner steps of a probe that costs at most a tenth of a sweep of the setting."""
    return max(_least_budget(setting), min(DEFAULT_BUDGET, int(BUDGET_PER_STEP * setting.steps)))


def _least_budget(setting: TrainerConfig) -> int:
    return RAMP_STEPS + hold_steps(setting)


def check_budget(setting: TrainerConfig, budget: int) -> None:
    """Check that a budget suffices for a ramp and one hold, and that the setting can be probed.

    Raises:
        BadInput: it does not, or cannot.
    """
    if setting.updates_per_batch > 1:
        raise BadInput(
            f"updates_per_batch: {setting.updates_per_batch} is not allowed in a probe, which also "
            "trains on fresh rollouts only; allowed: 1, or give archived runs as evidence"
        )
    least = _least_budget(setting)
    if budget < least:
        raise BadInput(
            f"budget: {budget} is not allowed; allowed: at least {least}, one ramp and one hold at "
            f"max_staleness {setting.max_staleness}"
        )


def _spent(done: list[Segment]) -> int:
    return sum(segment.steps for segment in done)


def _run(
    store: Store,
    group: str,
    config: TrainerConfig,
    before: int,
    budget: int,
    progress: Callable[[str, int, int], None],
) -> Segment:
    from trainer.worker import Worker

    kind = "ramp" if config.ramp_from is not None else "hold"
    where = f"{kind} at η={config.learning_rate:.2g}, S={config.max_staleness}"
    queued = queued_run(config.model_copy(update={"group": group}), code_version(), kind=KIND)
    run = replace(queued, name=f"probe: {where}", schema_version=SCHEMA_REVISION)
    store.create_run(run)

    def told(words: str, step: int, _steps: int) -> None:
        progress(where if words == "learner steps" else words, before + step, budget)

    run = Worker(store, run, told).run()
    segment = summarise(
        run, config, store.steps(run.id), store.evaluations(run.id), store.drifts(run.id)
    )
    if segment.steps == 0 or (segment.steps < config.steps and not run.outcome):
        raise RuntimeError(f"the segment {where} ended as {run.status}: {run.outcome_reason}")
    return segment
