"""Advice and alarms inside somebody else's training: two lines in a script of TRL.

    from advisor.attach import attach
    attach(trainer)

before ``trainer.train()``. The training is recorded (``trainer/callback.py``) and shows in the
dashboard; what ``python -m advisor watch`` would say of it stands in the log as well, logger
``etalon``. Streamlit is not loaded.
"""

import logging
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from storage.commandline import BadInput
from storage.errors import StorageError
from storage.store import Store
from trainer.config import TrainerConfig
from trainer.governing import Schedule

from .advice import checked_risk
from .answer import ask, consider, gather
from .experiments.watch import Watcher
from .governed_bounds import bounds_of, words
from .governor import Governor
from .run_facts import RunFacts
from .safe_levels import safe_levels

if TYPE_CHECKING:
    from trainer.callback import Recorder

logger = logging.getLogger("etalon")

RISK = 0.05
LEAST_STEPS = 30
NEWS = 1.25
"""Advice is said again when the advised rate has changed by this factor."""


def attach(
    trainer: Any,
    *,
    db: str | None = None,
    name: str | None = None,
    group: str | None = None,
    govern: bool = False,
    risk: float = RISK,
) -> "Recorder":
    """Record the trainings of this trainer, and say alarms and advice in their log.

    Args:
        trainer: a ``GRPOTrainer`` or ``AsyncGRPOTrainer`` of TRL.
        db: the archive; None for ``ETALON_DB`` or ``etalon.db`` in ``ETALON_HOME``.
        name: name of the runs; None for the last part of the trainer's ``output_dir``.
        group: group of the runs; runs of one setting in one group are evidence for each other.
        govern: keep the training within what is known to be safe by scaling its learning rate down
            (``governor.py``), from earlier runs of the group and from what it measures itself.
        risk: accepted P(unsafe) of the advice and of the governor, in 0…1 exclusive.

    Returns:
        What records; its ``run_id`` is that of the newest training.

    Raises:
        BadInput: the risk is not allowed.
    """
    risk = checked_risk(risk)
    from trainer.callback import record  # torch and transformers take seconds to import

    rule = partial(governor_of, db, group, risk) if govern else None
    return record(trainer, db=db, name=name, group=group, look=Adviser(risk), govern=rule)


def governor_of(
    db: str | None,
    group: str | None,
    risk: float,
    config: Mapping[str, Any],
    parameters: int | None,
    schedule: Schedule,
) -> Governor:
    """Return the governor of a training that begins, and say in the log what it holds it to.

    Raises:
        BadInput: nothing can be asked about its setting.
    """
    settings = {name: config[name] for name in TrainerConfig.model_fields if name in config}
    evidence: list[RunFacts] = []
    if group is not None:
        try:
            with closing(Store.open(db)) as store:
                evidence = gather(store, group=group)
        except (BadInput, StorageError) as fault:
            logger.warning("governor: nothing is known of earlier runs: %s", fault)
    question = ask(settings=settings, evidence=[], risk=risk)
    advice = consider(question, evidence)
    bounds = bounds_of(question, advice, evidence, None, safe_levels(), parameters)
    logger.warning("governor: %s", words(bounds, question.setting))
    return Governor(question.setting, bounds, schedule)


class Adviser:
    """Looks at a run from time to time and says in the log what is new."""

    def __init__(self, risk: float = RISK) -> None:
        """Begin with nothing said; ``risk`` is the accepted P(unsafe) of the advice."""
        self._risk = risk
        self._watcher: Watcher | None = None
        self._said: tuple[str, float | None] | None = None

    def __call__(self, store: Store, run_id: str) -> None:
        """Judge the run; say new events, and the advice when it has changed."""
        if self._watcher is None or self._watcher.store is not store:
            self._watcher = Watcher(store)
        for event in self._watcher.judge(store.run(run_id)):
            level = logging.WARNING if event.level == "warning" else logging.INFO
            logger.log(level, "step %s: %s", event.step, event.message)
        if (store.last_step(run_id) or 0) + 1 >= LEAST_STEPS:
            self._advise(store, run_id)

    def _advise(self, store: Store, run_id: str) -> None:
        try:
            evidence = gather(store, run_id=run_id)
            advice = consider(ask(settings={}, evidence=evidence, risk=self._risk), evidence)
        except BadInput as error:
            logger.debug("no advice: %s", error)
            return
        rate = advice.max_learning_rate
        if self._said is not None and self._said[0] == run_id:
            before = self._said[1]
            if before == rate or (before and rate and 1 / NEWS < rate / before < NEWS):
                return
        self._said = run_id, rate
        logger.warning("advice: %s", advice.reason)
