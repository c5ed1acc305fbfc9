"""Asynchronous-style GRPO in one deterministic process: staleness is what the schedule says.

The behavior policy is a stored snapshot of the learner. The loop reads as the algorithm: sample
from φ, reward, compare within groups, score under θ, step, measure.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from storage.records import BiasProbe, Evaluation, LagDrift, StepMetrics

from .bias_study import study
from .config import TrainerConfig
from .drift import MEASURED_WHOLE_UP_TO, kl_from
from .gradients import Checkpoint
from .meter import Meter, Scored
from .objective import clipped_surrogate, group_advantages, kl_penalty
from .outcome import HELD_BATCHES, Outcome, OutcomeTracker, Start
from .policy import FlatWeights, choose_device, load_policy, make_optimizer
from .randomness import generator
from .rollout import NonFinitePolicy, Rollouts, Task, sample_rollouts, score

logger = logging.getLogger(__name__)

START_ROLLOUTS = 512
FINAL_ROLLOUTS = 1024
KL_TO_START_ROLLOUTS = 256
KL_TO_START_ROLLOUTS_LARGE = 64  # a forward pass of more would show in the time of a step


class BehaviorSchedule:
    """Which past weights sample the rollouts of learner step t.

    ``cyclic``: θ of the newest multiple of S+1, so staleness runs 0…S and is S/2 on average.
    ``constant``: θ_{t−S}, and θ_0 while t < S (theory.md §2).
    """

    def __init__(self, schedule: str, max_staleness: int) -> None:
        """Begin with no snapshot."""
        self.max_staleness = max_staleness
        self._cyclic = schedule == "cyclic"
        self._snapshots: deque[tuple[int, Tensor]] = deque()

    def behavior(self, step: int, weights: Tensor) -> tuple[int, Tensor]:
        """Return the version and the weights of φ for learner step ``step`` with θ = weights."""
        if self._cyclic:
            if step % (self.max_staleness + 1) == 0:
                self._snapshots.clear()
                self._snapshots.append((step, weights.clone()))
        else:
            self._snapshots.append((step, weights.clone()))
            while len(self._snapshots) > self.max_staleness + 1:
                self._snapshots.popleft()
        return self._snapshots[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the loop tells and asks the world; it knows no database."""

    on_step: Callable[[StepMetrics], None]
    on_evaluation: Callable[[Evaluation], None]
    stop_requested: Callable[[], bool]
    on_drift: Callable[[LagDrift], None]
    on_bias: Callable[[BiasProbe], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What θ_0 earned of the reward that matters, and some of its rollouts as it scored them."""

    reward: Start
    batch: Rollouts
    log_prob_B_T: Tensor


class Lockstep:
    """One run: a learner, its behavior policy, and everything that is measured on the way."""

    def __init__(self, run_id: str, config: TrainerConfig, task: Task, start: Path) -> None:
        """Load the policy from ``start`` and draw every random choice from ``config.seed``."""
        self.run_id, self.config, self.task = run_id, config, task
        self.device = choose_device(config.device)
        self.policy, self.tokenizer = load_policy(start, self.device)
        self.behavior_policy, _ = load_policy(start, self.device)
        self.reference = load_policy(start, self.device)[0] if config.kl_coefficient > 0 else None
        self.weights = FlatWeights(self.policy)
        self.behavior_weights = FlatWeights(self.behavior_policy)
        self.optimizer = make_optimizer(self.weights, config)
        self.schedule = BehaviorSchedule(config.schedule, config.max_staleness)
        self.meter = Meter(run_id, config, self.policy, self.weights)
        self.generator = generator(self.device, config.seed, 0)
        self.evaluator = generator(self.device, config.seed, 1)
        self.outcome: OutcomeTracker | None = None
        self._beginning: Beginning | None = None
        self._behavior_version = 0
        self._versions: dict[int, Tensor] = {}
        self._keep_for_study(0)

    # -- the run ------------------------------------------------------------------------------

    def train(self, hooks: Hooks) -> Outcome:
        """Run to the end of the horizon, a collapse, a divergence, or a request to stop.

        A reward that is down but has not been so for 20 batches extends the run until it is clear.
        """
        hooks.on_evaluation(self.evaluate(0, max(START_ROLLOUTS, self.config.evaluation_rollouts)))
        self.outcome = OutcomeTracker(self._begun().reward, self.task.chance_reward)
        step = 0
        while not self._over(step) and not hooks.stop_requested():
            try:
                row = self.learner_step(step)
            except NonFinitePolicy as error:
                self.outcome.diverge(f"{error} at batch {step}")
                break
            hooks.on_step(row)
            self._tell(hooks)
            self._keep_for_study(step + 1)
            self.outcome.observe(_decisive(row), _version(row), finite=_finite(row))
            step += 1
            if step % self.config.evaluation_interval == 0 and not self._over(step):
                hooks.on_evaluation(self.evaluate(step, self.config.evaluation_rollouts))
        if not self.outcome.diverged and step > 0:
            rollouts = max(FINAL_ROLLOUTS, self.config.evaluation_rollouts)
            hooks.on_evaluation(self.evaluate(step, rollouts))
        if step == self.config.steps and not self.outcome.diverged:
            self._study(hooks)
        return self.outcome.conclude()

    def _tell(self, hooks: Hooks) -> None:
        for drift in self.meter.drifts:
            hooks.on_drift(drift)
        if self.meter.bias is not None:
            hooks.on_bias(self.meter.bias)

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
            epsilon_low=self.config.epsilon_low,
            epsilon_high=self.config.epsilon_high,
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
        return not extends or step >= self.config.steps + HELD_BATCHES

    # -- one learner step ---------------------------------------------------------------------

    def learner_step(self, step: int) -> StepMetrics:
        """Sample from φ, compare within groups, update θ_t to θ_{t+1}, and measure all of it."""
        started = time.perf_counter()
        version, behavior = self.schedule.behavior(step, self.weights.vector)
        batch = self._sample(version, behavior)
        generated = time.perf_counter()

        scored = self._score(batch)
        loss = clipped_surrogate(
            scored.log_ratio_B_T,
            scored.advantage_B,
            batch.mask_B_T,
            self.config.epsilon_low,
            self.config.epsilon_high,
        )
        penalty = self._kl_penalty(scored)
        if penalty is not None:
            loss = loss + self.config.kl_coefficient * penalty
        self.weights.gradient.zero_()
        torch.autograd.backward(loss)
        learned = time.perf_counter()

        grad_norm = self.meter.before_update(step, version, behavior, scored)
        measured = time.perf_counter()
        learning_rate = self._update(step, grad_norm)
        updated = time.perf_counter()

        numbers, reasons = self.meter.after_update(step, learning_rate, scored)
        numbers["loss"] = float(loss.detach())
        if (step + 1) % self.config.kl_to_start_every == 0 or step == 0:
            numbers["kl_to_start"] = float(self._kl_to_start())
        else:
            reasons["kl_to_start"] = f"measured every {self.config.kl_to_start_every} steps"
        return StepMetrics(
            run_id=self.run_id,
            step=step,
            time=time.time(),
            learning_rate=learning_rate,
            staleness_mean=float(step - version),
            staleness_max=float(step - version),
            sampled_at_step=version,
            dropped_groups=0,
            **numbers,
            reasons=reasons,
            extra={} if penalty is None else {"kl_penalty": float(penalty.detach())},
            seconds_generate=generated - started,
            seconds_learn=(learned - generated) + (updated - measured),
            seconds_measure=(measured - learned) + (time.perf_counter() - updated),
        )

    def _score(self, batch: Rollouts) -> Scored:
        log_prob_B_T, entropy_B_T = score(self.policy, batch)
        return Scored(
            batch=batch,
            advantage_B=group_advantages(batch.rewards_P_G).reshape(-1),
            log_prob_B_T=log_prob_B_T,
            log_ratio_B_T=log_prob_B_T - batch.behavior_log_probs_B_T,
            entropy_B_T=entropy_B_T,
        )

    def _kl_penalty(self, scored: Scored) -> Tensor | None:
        if self.reference is None:
            return None
        with torch.no_grad():
            reference_B_T, _ = score(self.reference, scored.batch)
        return kl_penalty(scored.log_prob_B_T, reference_B_T, scored.batch.mask_B_T)

    def _sample(self, version: int, behavior: Tensor) -> Rollouts:
        if version != self._behavior_version:
            self.behavior_weights.load(behavior)
            self._behavior_version = version
        prompts = self.task.sample_prompts(self.config.prompts, self.generator)
        return sample_rollouts(
            self.behavior_policy,
            self.tokenizer,
            self.task,
            prompts,
            self.config.group_size,
            self.generator,
        )

    def _update(self, step: int, grad_norm: Tensor) -> float:
        """Scale the gradient down to the largest norm, set the learning rate, and step."""
        scale = (self.config.max_grad_norm / (grad_norm + 1e-6)).clamp_max(1.0)
        self.weights.gradient.mul_(scale)
        learning_rate = self.config.learning_rate_at(step)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()
        return learning_rate

    # -- evaluations --------------------------------------------------------------------------

    @torch.no_grad()
    def _kl_to_start(self) -> Tensor:
        """Return KL(θ_0‖θ_{t+1}) on completions that θ_0 sampled before the run."""
        start = self._begun()
        log_prob, _ = score(self.policy, start.batch)
        return kl_from(start.log_prob_B_T, log_prob, start.batch.mask_B_T)

    def _begun(self) -> Beginning:
        if self._beginning is None:
            raise RuntimeError("the start is sampled by evaluate(0, …) before the first step")
        return self._beginning

    def _begin(self, batch: Rollouts) -> Beginning:
        rewards = batch.decisive_P_G
        large = self.weights.vector.numel() > MEASURED_WHOLE_UP_TO
        rollouts = KL_TO_START_ROLLOUTS_LARGE if large else KL_TO_START_ROLLOUTS
        kept = batch.first(min(rollouts, len(batch.prompts)))
        return Beginning(
            reward=Start(
                reward=float(rewards.mean()),
                reward_std=float(rewards.std()),
                rollouts=rewards.numel(),
            ),
            batch=kept,
            log_prob_B_T=score(self.policy, kept)[0],
        )

    @torch.no_grad()
    def evaluate(self, step: int, rollouts: int) -> Evaluation:
        """Reward the *current* policy θ_step on fresh prompts, one completion each."""
        prompts = self.task.sample_prompts(rollouts, self.evaluator)
        batch = sample_rollouts(self.policy, self.tokenizer, self.task, prompts, 1, self.evaluator)
        if step == 0:
            self._beginning = self._begin(batch)
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


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
