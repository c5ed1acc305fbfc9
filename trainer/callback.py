"""Records a training of TRL's GRPOTrainer or AsyncGRPOTrainer while it goes on.

``record(trainer)`` adds a callback and looks over the trainer's shoulder. Without another forward
pass it measures what TRL does not log: the drift of the current policy from the one that sampled,
what the clip took, the realised staleness in learner steps, the raw gradient norm and the update.
Nothing of the training is changed: no random number is drawn, no weight is written, and an error
here is logged once and ends the recording, not the training. With a governor its learning rate is.
"""

import atexit
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

from storage.commandline import BadInput
from storage.engine import without_password
from storage.importers.columns import Plan, plan_of, step_rows
from storage.importers.logs import Log
from storage.records import METRIC_NAMES, Event, LagDrift, RunInfo, RunStatus, StepMetrics
from storage.store import Store, new_run_id

from .attached.archivist import Archivist, Look
from .attached.meters import OF_THE_WEIGHTS, PolicyMeter, WeightMeter
from .attached.queue_shoulder import QueueShoulder
from .attached.reasons import reasons_of
from .attached.setting import (
    clip_of,
    config_of,
    schedule_of,
    stack_of,
    updates_per_version,
    versions_of,
)
from .attached.shoulder import Guard, Shoulder, logger
from .attached.throttle import MakeGovernor, Throttle
from .launch import process_columns
from .meter import CLIP_METRICS

OF_ALL_PROCESSES = ("clip_fraction_low", "clip_fraction_high", "approx_kl")
"""What TRL logs over the rollouts of all processes, of which the recording one sees its own."""


def record(
    trainer: Any,
    *,
    db: str | None = None,
    name: str | None = None,
    group: str | None = None,
    look: Look | None = None,
    govern: MakeGovernor | None = None,
) -> "Recorder":
    """Record every training that this trainer begins from now on, and return what does.

    Args:
        trainer: a ``GRPOTrainer`` or ``AsyncGRPOTrainer`` of TRL.
        db: the archive; None for ``ETALON_DB`` or ``etalon.db`` in ``ETALON_HOME``.
        name: name of the run; None for the last part of the trainer's ``output_dir``.
        group: group of the run; runs of one setting in one group are evidence for each other.
        look: called with the open store and the run's id about every ten seconds, in a thread.
        govern: makes the governor of a training that begins, of its configuration, its number of
            parameters and its schedule; it then scales the learning rate. None leaves that alone.
    """
    recorder = Recorder(trainer, db=db, name=name, group=group, look=look, govern=govern)
    trainer.add_callback(recorder)
    return recorder


def _harmless(method: Callable[..., None]) -> Callable[..., None]:
    """Let a method work under the recorder's guard, and only while a run is recorded."""

    @wraps(method)
    def called(self: "Recorder", args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.archivist is not None:
            self.guard(lambda: method(self, args, state, control, **kwargs))

    return called


class Recorder(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """The callback: of every training one run of the archive, written by the first process."""

    def __init__(
        self,
        trainer: Any,
        *,
        db: str | None,
        name: str | None,
        group: str | None,
        look: Look | None,
        govern: MakeGovernor | None,
    ) -> None:
        """See ``record``."""
        self.guard = Guard()
        self.run_id: str | None = None
        self.archivist: Archivist | None = None
        self._trainer, self._db, self._name, self._group = trainer, db, name, group
        self._look, self._govern = look, govern
        self._throttle: Throttle | None = None
        self._stack = stack_of(trainer)
        self._weights: WeightMeter | None = None
        self._row: StepMetrics | None = None
        self._told = False
        look_on = QueueShoulder if self._stack == "trl_async" else Shoulder
        self._shoulder: Shoulder = look_on(trainer, self.guard, self._published)

    def _published(self, step: int) -> None:
        if self._weights is not None:
            self._weights.published(step)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Create the run."""
        if self.archivist is not None:  # an earlier training ended by an error
            self.archivist.interrupted()
            self._forget()
        if state.is_world_process_zero:
            self.guard(self._begin, args, state, kwargs.get("train_dataloader"))

    def _begin(self, args: Any, state: Any, loader: Any) -> None:
        model, now = self._trainer.accelerator.unwrap_model(self._trainer.model), time.time()
        self._config = config_of(self._trainer, state.max_steps)
        self._unclipped = self._config.get("max_staleness") == 0
        window = max(1, int(state.logging_steps or args.logging_steps))
        unmeasured = reasons_of(
            self._stack,
            window,
            sees_policy=self._shoulder.sees_policy,
            unclipped=self._unclipped,
        )
        try:
            self._weights = WeightMeter(model, versions=versions_of(self._trainer))
        except ValueError as error:
            self._weights = None
            unmeasured |= dict.fromkeys(OF_THE_WEIGHTS, str(error))
        self._policy = PolicyMeter(clip_of(self._trainer), unclipped=self._unclipped)
        self._row = None
        parameters = sum(p.numel() for p in model.parameters())
        self._throttle = self._governed(int(args.world_size), parameters)
        self._source: dict[str, Any] = {
            "stack": self._stack,
            "format": "callback",
            "window": window,
            "processes": int(args.world_size),
            "governed": self._throttle is not None,
            **{name: {} for name in ("columns", "references")},
            "unknown_keys": [],
        }
        run = RunInfo(
            id=new_run_id(now),
            name=self._name or str(args.output_dir).rstrip("/").rpartition("/")[2] or "TRL",
            kind="attached",
            status=RunStatus.RUNNING,
            created_at=now,
            started_at=now,
            heartbeat_at=now,
            device=str(args.device),
            parameters=parameters,
            config=self._config,
            group=self._group,
            seed=args.seed,
            unmeasured=unmeasured,
            source=self._source,
            **process_columns(os.getpid()),
        )
        self.run_id = run.id
        self.archivist = Archivist(run, self._db, self._look)
        self._shoulder.begin(model, loader)
        atexit.register(self.archivist.interrupted)
        self._say_where(run.id)
        self._tell_throttle(0)

    def _say_where(self, run_id: str) -> None:
        db = without_password(self._db) if self._db else None
        logger.warning(
            "recorded as run %s in %s; how it stands: python -m %sadvisor diagnose %s%s, or on the "
            "dashboard (make run, in a clone of Etalon)",
            *(run_id, db or "the archive"),
            *(__name__.removesuffix("trainer.callback"), run_id, f" --db {db}" if db else ""),
        )
        if self._unclipped:
            logger.warning(
                "S = 0: each update learns from rollouts of its own weights, so the ratio is 1 and "
                "clipping is structurally inactive"
            )

    def _governed(self, processes: int, parameters: int) -> Throttle | None:
        """Return what applies the governor; None where there is none, or it could not act."""
        if self._govern is None:
            return None
        if processes > 1:
            logger.warning("no governor: it acts in one process only, and this is one of several")
            return None
        if getattr(self._trainer, "is_deepspeed_enabled", False):
            logger.warning("no governor: DeepSpeed takes its step before a callback is asked")
            return None
        try:
            return Throttle(self._govern(self._config, parameters, schedule_of(self._trainer)))
        except BadInput as fault:
            logger.warning("no governor: %s", fault)
            return None

    @_harmless
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send the step before, of which everything is known now."""
        self._send()
        if self.archivist is not None and self.archivist.stop_requested:
            self._heed_stop(args, control)
        self._shoulder.begin_step()
        self.guard.seconds = 0.0

    @_harmless
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what the update is made of."""
        optimizer = kwargs.get("optimizer") or self._trainer.optimizer
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        if self._throttle is not None:
            self._throttle.before_update(optimizer)
        self._rate = float(optimizer.param_groups[0]["lr"])
        if self._weights is not None:
            self._weights.before_update(optimizer)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the optimizer its learning rate back, whatever became of the recording."""
        if self._throttle is not None:
            self._throttle.after_update()

    @_harmless
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the update and the batch."""
        step, seen = int(state.global_step) - 1, self._shoulder.seen
        took = time.perf_counter() - seen.began - seen.generating - self.guard.seconds
        numbers: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        if self._weights is not None:
            skipped = bool(self._trainer.accelerator.optimizer_step_was_skipped)
            numbers, reasons, lags = self._weights.after_update(
                step, skipped=skipped, ages=set(seen.ages)
            )
            self._keep_lags(step, lags)
        of_policy, why = self._policy.measure(seen, numbers.get("cycle_drift"))
        self._row = StepMetrics(
            run_id=self.run_id or "",
            step=step,
            time=time.time(),
            learning_rate=self._rate,
            grad_norm=None if seen.grad_norm is None else float(seen.grad_norm),
            reward_mean=fmean(seen.rewards) if seen.rewards else None,
            sampled_at_step=step - seen.ages[0] if len(set(seen.ages)) == 1 else None,
            seconds_generate=seen.generating,
            seconds_learn=max(0.0, took),
            reasons=reasons | why,
            **numbers,
            **of_policy,
        )
        self._shoulder.end_step()
        if self.archivist is not None:
            self.archivist.draft(self._row)
        if self._throttle is not None and step + 1 < int(state.max_steps):
            self._throttle.heed(self._row)
            self._tell_throttle(step + 1)

    @_harmless
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add what TRL logs of the step that has just ended, where nothing was measured."""
        row, logs = self._row, dict(kwargs.get("logs") or {})
        if row is None or row.step != int(state.global_step) - 1 or "train_runtime" in logs:
            return
        logs = {key: value for key, value in logs.items() if not key.startswith("eval_")}
        log = Log(format="callback", first="", rows={row.step: logs}, keys=tuple(logs), times={})
        plan = plan_of(log, self._stack, updates_per_version(self._trainer))
        [logged] = step_rows(log, plan, row.run_id, row.time)
        known = {*row.reasons, *(CLIP_METRICS if self._unclipped else ())}
        better = OF_ALL_PROCESSES if self._source["window"] == 1 and args.world_size > 1 else ()
        added = {
            name: value
            for name in METRIC_NAMES
            if (getattr(row, name) is None or name in better)
            and name not in known
            and (value := logged.get(name)) is not None
        }
        self._row = replace(row, extra={**row.extra, **logged["extra"]}, **added)
        if self.archivist is not None:
            self.archivist.draft(self._row)
        self._note_keys(plan)

    @_harmless
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the end."""
        self._send()
        if self.archivist is None:
            return
        if self.archivist.stop_requested and int(state.global_step) < int(state.max_steps):
            self.archivist.end(RunStatus.STOPPED, "stopped from the archive")
        else:
            self.archivist.end(RunStatus.FINISHED)
        self._forget()

    def _forget(self) -> None:
        """Hold nothing of a training that has ended."""
        if self.archivist is not None:
            atexit.unregister(self.archivist.interrupted)
        if self._throttle is not None:
            self._throttle.after_update()
        self.archivist = self._weights = self._row = self._throttle = None
        self._shoulder.end()

    def _heed_stop(self, args: Any, control: Any) -> None:
        """End the training as asked in the archive, where one process can decide that."""
        if int(args.world_size) == 1:
            logger.warning("a stop was asked for in the archive; the training ends")
            control.should_training_stop = True
        elif not self._told:
            self._told = True
            logger.warning(
                "a stop was asked for in the archive; of several processes one cannot end the "
                "training, which goes on"
            )

    def _tell_throttle(self, step: int) -> None:
        """Say in the log and in the archive what the governor changed."""
        words = None if self._throttle is None else self._throttle.news()
        if self._throttle is None or words is None or self.archivist is None:
            return
        logger.warning("step %d: %s", step, words)
        event = Event(
            run_id=self.run_id or "",
            time=time.time(),
            kind="governor",
            message=words,
            level="warning",
            step=step,
            data={"factor": self._throttle.factor},
        )

        def append(store: Store) -> None:
            store.append_event(event)

        self.archivist.do(append)

    # -- sending --------------------------------------------------------------------------------

    def _send(self) -> None:
        if self.archivist is not None:
            self.archivist.send(self.guard.seconds)
        self._row = None

    def _keep_lags(self, step: int, lags: list[tuple[int, float, float]]) -> None:
        for lag, norm, rates in lags:
            row = LagDrift(run_id=self.run_id or "", step=step, lag=lag, norm=norm, rate_sum=rates)
            if self.archivist is not None:
                self.archivist.do(lambda store, row=row: store.append_drift(row))  # type: ignore[misc]

    def _note_keys(self, plan: Plan) -> None:
        """Tell the archive which key became which column, when there are new keys."""
        columns = {key: str(metric.column) for key, metric in plan.columns.items()}
        source = self._source | {
            "columns": {**self._source["columns"], **columns},
            "references": {**self._source["references"], **plan.references},
            "unknown_keys": list(dict.fromkeys([*self._source["unknown_keys"], *plan.unknown])),
        }
        if source == self._source or self.archivist is None:
            return
        self._source, run_id = source, self.run_id or ""
        self.archivist.do(lambda store: store.update_run(run_id, source=source))
