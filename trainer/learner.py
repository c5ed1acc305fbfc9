"""The learner: one GRPO update after the other on rollouts of a behavior policy, and measured.

The loop reads as the algorithm: take rollouts of φ, compare them within groups, score them under θ,
step, measure. Where the rollouts come from is not decided here.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from storage.commandline import BadInput
from storage.records import Evaluation, StepMetrics

from .backward import Backward
from .beginning import Beginning
from .bias_study import study
from .config import TrainerConfig
from .gradients import Checkpoint
from .hooks import Hooks
from .laps import moment, seconds_between
from .lora import WithoutAdapters, twin
from .meter import Meter
from .objective import Objective
from .outcome import HELD_BATCHES, Outcome, OutcomeTracker
from .policy import FlatWeights, choose_device, load_policy, make_optimizer, parameter_count
from .randomness import generator
from .rollout import NonFinitePolicy, Rollouts, Task, sample_rollouts
from .samples import Learned, samples_of

START_ROLLOUTS = 512
FINAL_ROLLOUTS = 1024


def _ungoverned(row: StepMetrics | None) -> float:
    return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The rollouts of one learner step, and where they come from.

    ``version`` is the learner step whose weights φ = ``behavior`` sampled their oldest token, and
    ``mean_version`` the mean over the rollouts of that of the oldest token of each.
    ``seconds_wait`` is how long the learner stood still for them, None where nothing waits;
    ``seconds_generate`` how long they took to sample, on whatever processor that was. ``extra``
    goes into the row.
    """

    version: int
    behavior: Tensor
    batch: Rollouts
    mean_version: float
    seconds_generate: float
    seconds_wait: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Learner(ABC):
    """One run: a policy that learns, and everything that is measured on the way."""

    def __init__(self, run_id: str, config: TrainerConfig, task: Task, start: Path) -> None:
        """Load the policy from ``start`` and draw every random choice from ``config.seed``."""
        self.run_id, self.config, self.task = run_id, config, task
        self.device = choose_device(config.device)
        self._start = start
        self.policy, self.tokenizer = load_policy(start, self.device, config)
        self.reference = self._reference() if config.kl_coefficient > 0 else None
        self.weights = FlatWeights(self.policy)
        self.optimizer = make_optimizer(self.weights, config)
        self.objective = Objective.of(config, task.max_new_tokens)
        self.backward = Backward(
            self.policy,
            self.weights,
            self.objective,
            self.reference,
            config.kl_coefficient,
            config.micro_batch_size,
        )
        self.meter = Meter(run_id, config, self.objective, self.policy, self.weights)
        self.evaluator = generator(self.device, config.seed, 1)
        self.outcome: OutcomeTracker | None = None
        self._beginning: Beginning | None = None
        self._versions: dict[int, Tensor] = {}
        self._keep_for_study(0)
        self._learned: Learned | None = None
        self._sampled: Sampled | None = None
        self._proximal_B_T: Tensor | None = None
        self._step = 0
        self._rate_factor = 1.0
        self.govern: Callable[[StepMetrics | None], float] = _ungoverned
        """Told every row, and None before the first step of this process; returns the factor in
        (0, 1] by which the learning rate of the next step is scaled."""

    @abstractmethod
    def _sample(self, step: int) -> Sampled:
        """Return the rollouts that learner step ``step`` is the first to learn from."""

    def _sample_no_more(self, step: int) -> None:  # noqa: B027 – most have nothing to do
        """Do what is due before a learner step that learns once more from the batch it has."""

    def _notices(self) -> list[str]:
        """Return in words, once, what went wrong since the last call and was put right."""
        return []

    @cached_property
    def behavior_policy(self) -> nn.Module:
        """A second copy of the model, for weights that are not the policy's own."""
        if self.config.lora_rank is not None:
            return twin(self.policy)
        return load_policy(self._start, self.device, self.config)[0]

    def _reference(self) -> nn.Module:
        if self.config.lora_rank is not None:
            return WithoutAdapters(self.policy)
        return load_policy(self._start, self.device, self.config)[0]

    @cached_property
    def behavior_weights(self) -> FlatWeights:
        """The weights of ``behavior_policy``."""
        return FlatWeights(self.behavior_policy)

    # -- the run ------------------------------------------------------------------------------

    def train(self, hooks: Hooks) -> Outcome:
        """Run to the end of the horizon, a collapse, a divergence, or a request to stop.

        A reward that is down but has not been so for 20 batches extends the run until it is clear.
        After ``load_state_dict`` it goes on from there.
        """
        outcome = self.outcome or self._evaluated_start(hooks)
        self._rate_factor = self.govern(None)
        while not self._over(self._step):
            new_batch = self._is_new_batch(self._step)
            if new_batch:  # a batch is finished before the run rests
                stopping = hooks.stop_requested()
                hooks.on_rest(self._step, stopping)
                if stopping:
                    break
            if self._step > 0 and self._step % self.config.evaluation_interval == 0:
                rollouts = self.config.evaluation_rollouts
                hooks.on_evaluation(self.evaluate(self._step, rollouts))
            try:
                row = self.learner_step(self._step)
            except NonFinitePolicy as error:
                outcome.diverge(f"{error} at batch {self._step}")
                break
            hooks.on_step(row)
            self._rate_factor = self.govern(row)
            self._tell(hooks)
            self._keep_for_study(self._step + 1)
            onset = outcome.onset
            if new_batch or not _finite(row):  # each batch is judged once
                outcome.observe(_decisive(row), _version(row), finite=_finite(row))
            self._tell_samples(hooks, alarm=onset is None and outcome.onset is not None)
            self._step += 1
        self._tell_samples(hooks, alarm=True)
        if not outcome.diverged and self._step > 0:
            rollouts = max(FINAL_ROLLOUTS, self.config.evaluation_rollouts)
            hooks.on_evaluation(self.evaluate(self._step, rollouts))
        if self._step == self.config.steps and not outcome.diverged:
            self._study(hooks)
        return outcome.conclude()

    def _evaluated_start(self, hooks: Hooks) -> OutcomeTracker:
        hooks.on_evaluation(self.evaluate(0, max(START_ROLLOUTS, self.config.evaluation_rollouts)))
        self.outcome = OutcomeTracker(self._begun().reward, self.task.chance_reward)
        return self.outcome

    def _tell_samples(self, hooks: Hooks, *, alarm: bool) -> None:
        """Show the last batch when its step is due, or when there is a reason to look at it."""
        every, learned = self.config.sample_interval, self._learned
        if every is None or learned is None:
            return
        if alarm or learned.step % every == 0:
            hooks.on_samples(samples_of(self.run_id, learned, self.config.samples_kept))
            self._learned = None  # each batch once

    def _tell(self, hooks: Hooks) -> None:
        for drift in self.meter.drifts:
            hooks.on_drift(drift)
        if self.meter.bias is not None:
            hooks.on_bias(self.meter.bias)
        for words in self._notices():
            hooks.on_notice(words, self._step)

    def _keep_for_study(self, version: int) -> None:
        lag = self.config.steps - version
        if self.config.study_lags and (lag == 0 or lag in self.config.study_lags):
            self._versions[version] = self.weights.snapshot()

    def _study(self, hooks: Hooks) -> None:
        """Measure the gradient bias at the last policy, if the configuration asks for it."""
        if not self.config.study_lags:
            return
        checkpoint = Checkpoint(
            policy=self.policy,
            weights=self.weights,
            behavior_policy=self.behavior_policy,
            behavior_weights=self.behavior_weights,
            tokenizer=self.tokenizer,
            task=self.task,
            objective=self.objective,
            at_once=self.config.micro_batch_size,
        )
        for probe in study(
            self.run_id, self.config, checkpoint, self._versions, hooks.stop_requested
        ):
            hooks.on_bias(probe)

    def _over(self, step: int) -> bool:
        outcome = self.outcome
        if outcome is None or outcome.diverged:
            return outcome is not None
        if outcome.may_stop and self.config.stop_on_collapse:
            return True
        if step < self.config.steps:
            return False
        extends = outcome.undetermined and self.config.stop_on_collapse
        longest = self.config.steps + HELD_BATCHES * self.config.updates_per_batch
        return not extends or step >= longest

    def _is_new_batch(self, step: int) -> bool:
        return step % self.config.updates_per_batch == 0

    # -- one learner step ---------------------------------------------------------------------

    def learner_step(self, step: int) -> StepMetrics:
        """Take rollouts of φ, compare within groups, update θ_t to θ_{t+1}, and measure it all.

        With several updates per batch only the first of them takes new rollouts.
        """
        sampled = self._sampled_for(step)
        version, batch = sampled.version, sampled.batch
        begun, started = time.perf_counter(), moment(self.device)

        scored, losses = self.backward(batch, self._proximal_B_T)
        if self._proximal_B_T is None:
            self._proximal_B_T = scored.log_prob_B_T
        self._learned = Learned(
            step=step,
            staleness=step - version,
            batch=batch,
            advantage_B=scored.advantage_B,
            log_ratio_B_T=scored.log_ratio_B_T,
        )
        learned = moment(self.device)

        learning_rate = self.config.learning_rate_at(step) * self._rate_factor
        grad_norm = self.meter.before_update(step, version, sampled.behavior, scored, learning_rate)
        measured = moment(self.device)
        self._update(step, grad_norm, learning_rate)
        updated = moment(self.device)

        unread, unmeasured = dict(losses), {}
        if (step + 1) % self.config.kl_to_start_every == 0 or step == 0:
            at_once = self.config.micro_batch_size
            unread["kl_to_start"] = self._begun().kl_to(self.policy, at_once)
        else:
            unmeasured["kl_to_start"] = f"measured every {self.config.kl_to_start_every} steps"
        numbers, reasons = self.meter.after_update(step, learning_rate, scored, unread)
        extra = dict(sampled.extra)
        if "kl_penalty" in numbers:
            extra["kl_penalty"] = numbers.pop("kl_penalty")
        if self.backward.captured is not None:
            extra["learning_replayed"] = float(self.backward.captured.replayed)
        seconds = time.perf_counter() - begun
        seconds_learn = seconds_between(started, learned) + seconds_between(measured, updated)
        return StepMetrics(
            run_id=self.run_id,
            step=step,
            time=time.time(),
            learning_rate=learning_rate,
            staleness_mean=step - sampled.mean_version,
            staleness_max=float(step - version),
            sampled_at_step=version,
            dropped_groups=0,
            **numbers,
            reasons=reasons | unmeasured,
            extra=extra,
            seconds_generate=sampled.seconds_generate,
            seconds_learn=seconds_learn,
            seconds_measure=seconds - seconds_learn,
            seconds_wait=sampled.seconds_wait,
        )

    def _sampled_for(self, step: int) -> Sampled:
        if self._sampled is None or self._is_new_batch(step):
            self._sampled, self._proximal_B_T = self._sample(step), None
        else:
            self._sample_no_more(step)
            waited = None if self._sampled.seconds_wait is None else 0.0
            self._sampled = replace(
                self._sampled, seconds_generate=0.0, seconds_wait=waited, extra={}
            )
        return self._sampled

    def _update(self, step: int, grad_norm: Tensor, learning_rate: float) -> None:
        """Scale the gradient down to the largest norm, set the learning rate, and step."""
        scale = (self.config.max_grad_norm / (grad_norm + 1e-6)).clamp_max(1.0)
        self.weights.gradient.mul_(scale)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()

    # -- going on later -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest of the run depends on, besides its configuration and start.

        It holds the tensors themselves, about 3 + log2(T) vectors the size of the weights, and is
        to be written away before the next learner step.
        """
        if self.outcome is None:
            raise RuntimeError("a run has a state once its start is evaluated")
        return {
            "step": self._step,
            "device": self.device.type,
            "weights": self.weights.vector,
            "optimizer": self.optimizer.state_dict()["state"],
            "meter": self.meter.state_dict(),
            "evaluator": self.evaluator.get_state(),
            "outcome": self.outcome.state_dict(),
            "beginning": self._begun().state_dict(),
            "versions": self._versions,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another learner of the same run; it takes over the tensors.

        Raises:
            BadInput: the state comes from another kind of device, whose random numbers differ.
        """
        if state["device"] != self.device.type:
            raise BadInput(
                f"device: the run was trained on {state['device']} and this would be "
                f"{self.device.type}, whose random numbers differ; allowed: {state['device']}"
            )
        if state["step"] == 0:
            return  # nothing was learned, and a learner at its start evaluates that itself
        self.weights.load(state["weights"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.meter.load_state_dict(state["meter"])
        self.evaluator.set_state(state["evaluator"])
        self._beginning = Beginning.from_state_dict(state["beginning"])
        self.outcome = OutcomeTracker(self._beginning.reward, self.task.chance_reward)
        self.outcome.load_state_dict(state["outcome"])
        self._versions = state["versions"]
        self._step = state["step"]

    # -- evaluations --------------------------------------------------------------------------

    def _begun(self) -> Beginning:
        if self._beginning is None:
            raise RuntimeError("the start is sampled by evaluate(0, …) before the first step")
        return self._beginning

    @torch.no_grad()
    def evaluate(self, step: int, rollouts: int) -> Evaluation:
        """Reward the *current* policy θ_step on fresh prompts, one completion each."""
        prompts = self.task.sample_prompts(rollouts, self.evaluator)
        batch = sample_rollouts(self.policy, self.tokenizer, self.task, prompts, 1, self.evaluator)
        if step == 0:
            parameters = parameter_count(self.policy)
            at_once = self.config.micro_batch_size
            self._beginning = Beginning.of(self.policy, parameters, batch, at_once)
        return Evaluation(
            run_id=self.run_id,
            step=step,
            time=time.time(),
            rollouts=rollouts,
            reward=float(batch.rewards_P_G.mean()),
            reward_std=float(batch.rewards_P_G.std()),
            gold=None if batch.gold_P_G is None else float(batch.gold_P_G.mean()),
        )


def _finite(row: StepMetrics) -> bool:
    watched = (row.loss, row.grad_norm, row.displacement)
    return all(value is not None and math.isfinite(value) for value in watched)


def _decisive(row: StepMetrics) -> float:
    """Return the reward that matters: gold where there is one (theory.md §6)."""
    value = row.reward_mean if row.gold_reward_mean is None else row.gold_reward_mean
    return math.nan if value is None else value


def _version(row: StepMetrics) -> int:
    return row.step if row.sampled_at_step is None else row.sampled_at_step
