"""What a guarded run is held to, and how it is kept in the archive."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from storage.commandline import BadInput
from storage.errors import RunNotFound
from storage.records import RunInfo
from storage.store import Store
from trainer.config import TrainerConfig
from trainer.governing import GOVERNED
from trainer.launch import create_run

from ..advice import Advice
from ..answer import ask, calibration_of, consider, fitting_calibration, gather, keep
from ..governed_bounds import as_json, bounds_of, from_json
from ..governor import Bounds
from ..measured import Measured
from ..run_facts import RunFacts
from ..safe_levels import safe_levels

WEIGHTS_PER_LAYER = 12
"""Of a transformer, per hidden_size²: attention 4, feed-forward 8. Enough to tell a tiny model."""


def found_bounds(
    store: Store,
    config: TrainerConfig,
    risk: float,
    calibration_id: str | None = None,
    *,
    alone: bool = False,
) -> tuple[Bounds, Advice]:
    """Return what the archive knows of the limits of a run, and the advice it comes from.

    Args:
        store: the archive.
        config: the run; its learning rate does not matter.
        risk: accepted P(unsafe within T).
        calibration_id: the probe to ask; None for what ``recommend`` would take.
        alone: take nothing from the archive, but what the run itself will show.

    Raises:
        CalibrationNotFound: the named probe is not in the archive.
        BadInput: it says nothing about this setting, or no rate is safe by what is known.
    """
    found = None if calibration_id is None else calibration_of(store, calibration_id)
    evidence = gather(store) if found is None and not alone else []
    settings = config.model_dump()
    question = ask(settings=settings, evidence=[], risk=risk)
    if found is None and not alone:
        found = fitting_calibration(store, question.setting)
    advice = consider(question, evidence, found)
    if advice.calibrated and advice.max_learning_rate is None:
        raise BadInput(f"learning_rate: no rate is safe for a governor to hold: {advice.reason}")
    parameters = _parameters(store, config, evidence, found)
    return bounds_of(question, advice, evidence, found, safe_levels(), parameters), advice


def _parameters(
    store: Store, config: TrainerConfig, evidence: Sequence[RunFacts], found: Measured | None
) -> int | None:
    """Return the size of the model, about; None where only loading it would tell."""
    if found is not None:
        with contextlib.suppress(RunNotFound):  # its segments may be deleted
            return store.run(found.calibration.run_ids[0]).parameters
    known = next((run.parameters for run in evidence if run.parameters is not None), None)
    if known is None and config.model is None:
        return config.layers * WEIGHTS_PER_LAYER * config.hidden_size**2
    return known


def create_guarded(
    store: Store, config: TrainerConfig, bounds: Bounds, risk: float, advice: Advice
) -> RunInfo:
    """Add a guarded run that this process is about to carry out, with what it is held to."""
    question = ask(settings=config.model_dump(), evidence=[], risk=risk)
    return create_run(
        store,
        config,
        kind=GOVERNED,
        source={"governor": {"risk": risk, "bounds": as_json(bounds)}},
        recommendation_id=keep(store, question, advice),
    )


def kept_bounds(source: Mapping[str, Any]) -> Bounds:
    """Return the bounds that a guarded run keeps in its ``source``.

    Raises:
        BadInput: another version wrote them.
    """
    try:
        return from_json(source["governor"]["bounds"])
    except (KeyError, TypeError, ValueError):
        raise BadInput("resume: another version wrote what the run is held to") from None
