"""Carries out one run: warm start, training, and every row of it into the archive.

The one place that catches everything: a failure is recorded in the run with its traceback, then
raised again.
"""

import contextlib
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from storage.commandline import BadInput
from storage.engine import checkpoint_folder, home, policy_folder
from storage.errors import RunTakenOver
from storage.journal import RunChange
from storage.patience import patiently
from storage.records import Evaluation, Event, RunInfo, RunStatus, Sample, StepMetrics
from storage.store import Store
from storage.words import counted

from .asynchronous import Asynchronous
from .checkpoint import Checkpoints, Pace
from .config import TrainerConfig
from .governing import GOVERNED, Governor, checked_factor, kept_by_governor, told, worth_telling
from .hooks import Hooks
from .launch import own_process, process_columns
from .learner import Learner
from .lockstep import Lockstep
from .memory import out_of_memory
from .meter import unmeasured
from .outcome import Outcome
from .policy import parameter_count, save_policy
from .preflight import check
from .run_rewards import RunRewards
from .workloads.choice import task_and_start
from .writer import Writer

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
LAST_WAIT_SECONDS, HURRIED_SECONDS = 600.0, 5.0
"""How long a run that has ended waits for an archive that is away; the latter when told to stop."""


class StopRequestedError(Exception):
    """Somebody asked the run to stop before its first learner step."""


class Worker:
    """Runs one queued run of the archive in this process."""

    def __init__(
        self,
        store: Store,
        run: RunInfo,
        progress: Callable[[str, int, int], None],
        govern: Governor | None = None,
    ) -> None:
        """``progress(words, step, steps)`` is told about every learner step and warm-start test.

        Raises:
            BadInput: the run is kept by a governor, and none was given.
        """
        if run.kind == GOVERNED and govern is None:
            raise BadInput(f"run: {run.id} is {kept_by_governor(run.id)}")
        self._store, self._run, self._progress = store, run, progress
        self._govern, self._factor = govern, 1.0
        self._config = TrainerConfig.model_validate(run.config)
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._rewards = RunRewards()
        self._steps = 0
        self._checkpoints = Checkpoints(checkpoint_folder(run.id))
        self._pace = Pace(self._config.checkpoint_every)
        self._interrupted = False
        self._writer = Writer(store.url, run.id, self._stop.is_set, own_process())

    def run(self) -> RunInfo:
        """Carry the run out and return it as it ended.

        Raises:
            Exception: whatever broke it, after it was recorded as ``failed``.
            KeyboardInterrupt: it was interrupted; recorded as ``stopped``.
            ArchiveUnavailable: the archive lacks what the run wrote last; the message says where
                that is.
        """
        heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        try:
            self._begin()
            heart.start()
            self._conclude(self._train())
        except StopRequestedError:
            self._end(status=RunStatus.STOPPED, outcome_reason="stopped during the warm start")
        except KeyboardInterrupt:
            self._end(status=RunStatus.STOPPED, outcome_reason="interrupted", **self._summary())
            raise
        except RunTakenOver:
            raise  # the run is another process's, which tells how it ends
        except BaseException as error:
            what = out_of_memory(error) or f"{type(error).__name__}: {error}"
            trace = traceback.format_exc()
            self._end(status=RunStatus.FAILED, outcome_reason=what, error=trace, **self._summary())
            self._event("failure", what, level="error")
            traceback.clear_frames(error.__traceback__)  # lets go of the model and its reward
            raise
        finally:
            self._ended.set()
            if heart.ident is not None:  # it was started
                heart.join()
            self._writer.close(HURRIED_SECONDS if self._stop.is_set() else LAST_WAIT_SECONDS)
        return patiently(lambda: self._store.run(self._run.id), seconds=LAST_WAIT_SECONDS)

    def request_stop(self) -> None:
        """End the run after its present learner step."""
        self._stop.set()

    # -- life ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        torch.set_num_threads(self._config.threads)
        transformers_logging.disable_progress_bar()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self.request_stop())
        now = time.time()
        self._change(
            status=RunStatus.RUNNING,
            started_at=self._run.started_at or now,
            heartbeat_at=now,
            unmeasured=unmeasured(self._config),
            **process_columns(os.getpid()),
        )

    def _beat(self) -> None:
        """Count signs of life until the run has ended, and hear whether it shall stop."""
        while not self._ended.wait(HEARTBEAT_SECONDS):
            if self._writer.beat():
                self._stop.set()

    def _change(self, **changes: Any) -> None:
        self._writer.write(RunChange(run_id=self._run.id, changes=changes))

    def _end(self, *, status: RunStatus, **changes: Any) -> None:
        self._change(ended_at=time.time(), status=status, **changes)
        if self._writer.is_durable:
            self._checkpoints.keep(1 if status in (RunStatus.STOPPED, RunStatus.FAILED) else 0)

    def _event(
        self,
        kind: str,
        message: str,
        *,
        level: str = "info",
        step: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self._writer.write(
            Event(
                run_id=self._run.id,
                time=time.time(),
                kind=kind,
                message=message,
                level=level,
                step=step,
                data=data or {},
            )
        )

    # -- work ---------------------------------------------------------------------------------

    def _train(self) -> Outcome:
        check(self._config)
        task, start = task_and_start(self._config, home(), self._warming)
        kind = Asynchronous if self._config.schedule == "queue" else Lockstep
        learner: Learner = kind(self._run.id, self._config, task, start)
        learner.govern = self._governed
        parameters = parameter_count(learner.policy)
        self._change(
            device=str(learner.device),
            chance_reward=task.chance_reward,
            parameters=parameters,
        )
        if not self._taken_up(learner):
            words = f"{parameters} parameters, starting from {start.name}"
            if self._config.lora_rank is not None:
                words += f"; {learner.weights.vector.numel()} of them are trained, in adapters"
            self._event("start", words, data=task.facts)
        with self._interrupts_heard_at_rest():
            outcome = learner.train(
                Hooks(
                    on_step=self._keep_step,
                    on_evaluation=self._keep_evaluation,
                    stop_requested=lambda: self._stop.is_set() or self._interrupted,
                    on_drift=self._writer.write,
                    on_bias=self._writer.write,
                    on_samples=self._keep_samples,
                    on_rest=lambda step, stopping: self._rest(learner, step, stopping),
                    on_notice=self._keep_notice,
                )
            )
            if self._interrupted:
                raise KeyboardInterrupt
        if self._config.save_policy and outcome.verdict != "diverged":
            folder = save_policy(learner.policy, learner.tokenizer, policy_folder(self._run.id))
            self._event("policy", f"the last policy lies in {folder}", step=self._steps)
        return outcome

    # -- going on later -----------------------------------------------------------------------

    def _taken_up(self, learner: Learner) -> bool:
        """Go on from the newest checkpoint and forget what came after it; False at a new run.

        Raises:
            NoCheckpoint: the run has taken steps, and no checkpoint of it can be read.
        """
        run_id = self._run.id
        newest = self._writer.ask(lambda store: store.last_step(run_id))
        taken = 0 if newest is None else newest + 1
        if taken == 0 and not self._checkpoints.steps():
            return False
        found = self._checkpoints.load(learner.device, most=taken)
        for damage in found.damaged:
            self._event("checkpoint", damage, level="warning")
        learner.load_state_dict(found.state)
        self._steps = found.step
        self._writer.ask(lambda store: store.delete_steps_after(run_id, found.step - 1))
        rewards = ("reward_mean", "gold_reward_mean")
        series = self._writer.ask(lambda store: store.series(run_id, rewards))
        for reward, gold in zip(*series.values(), strict=True):
            self._rewards.add(reward, gold)
        if self._govern is not None:
            for row in self._writer.ask(lambda store: store.steps(run_id)):
                self._factor = self._govern(row)[0]
        words = f"goes on from the checkpoint after {counted(found.step, 'step')}"
        self._event("resumed", words, step=found.step, data={"steps_forgotten": taken - found.step})
        return True

    def _rest(self, learner: Learner, step: int, stopping: bool) -> None:
        """Write a checkpoint when one is due; one that cannot be written ends no run.

        None is written of steps whose rows would not outlive this process or a power cut.
        """
        due = self._pace.due(step) or (stopping and self._pace.ever)
        if due and self._writer.is_durable:
            self._writer.to_disk()
            started = time.monotonic()
            try:
                self._checkpoints.save(step, learner.state_dict())
            except (OSError, SafetensorError) as error:
                words = f"a checkpoint could not be written: {error}"
                self._event("checkpoint", words, level="warning", step=step)
            else:
                if stopping:
                    self._event("checkpoint", f"can go on after {counted(step, 'step')}", step=step)
            self._pace.saved(time.monotonic() - started)
        if self._interrupted:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _interrupts_heard_at_rest(self) -> Iterator[None]:
        """Let the first interrupt wait for the end of a learner step, so that it can go on."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hear(number: int, frame: FrameType | None) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        before = signal.signal(signal.SIGINT, hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # -- rows ---------------------------------------------------------------------------------

    def _warming(self, words: str) -> None:
        if self._stop.is_set():
            raise StopRequestedError
        self._event("warm_start", words)
        self._progress(words, 0, self._config.steps)

    def _keep_step(self, row: StepMetrics) -> None:
        self._writer.write(row)
        self._steps = row.step + 1
        self._rewards.add(row.reward_mean, row.gold_reward_mean)
        self._progress("learner steps", self._steps, self._config.steps)

    def _keep_evaluation(self, row: Evaluation) -> None:
        self._writer.write(row)
        self._rewards.final = row

    def _keep_samples(self, rows: Sequence[Sample]) -> None:
        for row in rows:
            self._writer.write(row)

    def _keep_notice(self, words: str, step: int) -> None:
        self._event("rollout_worker", words, level="warning", step=step)

    def _governed(self, row: StepMetrics | None) -> float:
        """Ask the governor for the next step's factor, and tell as an event what changes it.

        Raises:
            ValueError: the factor is not in (0, 1].
        """
        if self._govern is None:
            return 1.0
        factor, reason = self._govern(row)
        checked_factor(factor)
        ends = row is not None and row.step + 1 == self._config.steps
        if worth_telling(self._factor, factor) and not ends:
            self._factor = factor
            step = self._steps
            data = {"factor": factor, "learning_rate": factor * self._config.learning_rate_at(step)}
            self._event("governor", told(factor, reason), level="warning", step=step, data=data)
        return factor

    # -- end ----------------------------------------------------------------------------------

    def _conclude(self, outcome: Outcome) -> None:
        status = _status_of(outcome, self._stop.is_set() and self._steps < self._config.steps)
        collapsed = outcome.verdict == "collapsed"
        self._end(
            status=status,
            outcome=outcome.verdict,
            outcome_reason=outcome.reason,
            collapse_step=outcome.onset if collapsed else None,
            slide_step=outcome.slide,
            reward_best=outcome.reward_best,
            **self._summary(),
        )
        if status in (RunStatus.COLLAPSED, RunStatus.DIVERGED):
            self._event(outcome.verdict, outcome.reason, level="error", step=outcome.onset)

    def _summary(self) -> dict[str, float | None]:
        return self._rewards.summary(self._steps)


def _status_of(outcome: Outcome, stopped: bool) -> RunStatus:
    if outcome.verdict == "collapsed":
        return RunStatus.COLLAPSED
    if outcome.verdict == "diverged":
        return RunStatus.DIVERGED
    return RunStatus.STOPPED if stopped else RunStatus.FINISHED
