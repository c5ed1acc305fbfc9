"""Asynchronous-style GRPO in one deterministic process: staleness is what the schedule says.

The behavior policy is a stored snapshot of the learner, and generating and learning take turns.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .config import TrainerConfig
from .decoding import Decoded, decode
from .graphs import Captured, cuda_graphs
from .learner import Learner, Sampled
from .randomness import generator
from .rollout import Task, sample_rollouts
from .schedule import BehaviorSchedule

NOT_LOADED = -1
LONGEST_CAPTURED = 256
"""Most tokens of completions that are drawn by replaying one recording of all of them."""


class Lockstep(Learner):
    """A learner that samples its own rollouts before each learner step."""

    def __init__(self, run_id: str, config: TrainerConfig, task: Task, start: Path) -> None:
        """Load the policy from ``start`` and draw every random choice from ``config.seed``."""
        super().__init__(run_id, config, task, start)
        self.schedule = BehaviorSchedule(
            config.schedule, config.max_staleness, config.updates_per_batch
        )
        self.generator = generator(self.device, config.seed, 0)
        self._behavior_version = NOT_LOADED
        self.captured: Captured | None = None
        if self.device.type == "cuda" and task.max_new_tokens <= LONGEST_CAPTURED:
            self.captured = Captured(self._continued, cuda_graphs(self.generator))

    def _sample(self, step: int) -> Sampled:
        started = time.perf_counter()
        version, behavior = self.schedule.behavior(step, self.weights.vector)
        if version != self._behavior_version:
            self.behavior_weights.load(behavior)
            self._behavior_version = version
        prompts = self.task.sample_prompts(self.config.prompts, self.generator)
        batch = sample_rollouts(
            self.behavior_policy,
            self.tokenizer,
            self.task,
            prompts,
            self.config.group_size,
            self.generator,
            unpadded=self.captured,
        )
        extra = {}
        if self.captured is not None:
            extra["decoding_replayed"] = float(self.captured.replayed)
        return Sampled(
            version=version,
            behavior=behavior,
            batch=batch,
            mean_version=float(version),
            seconds_generate=time.perf_counter() - started,
            extra=extra,
        )

    def _continued(self, ids_P_L: Tensor) -> Decoded:
        """Continue prompts without padding to the full length, and look at nothing."""
        return decode(
            self.behavior_policy,
            ids_P_L,
            None,
            group_size=self.config.group_size,
            max_new_tokens=self.task.max_new_tokens,
            pad=self.tokenizer.pad_token_id,
            end=self.tokenizer.eos_token_id,
            generator=self.generator,
            look_every=None,
        )

    def _sample_no_more(self, step: int) -> None:
        self.schedule.behavior(step, self.weights.vector)  # which keeps weights for later batches

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the learner with the snapshots that are still to sample from.

        These are one vector the size of the weights, with the constant schedule up to S+1.
        """
        return super().state_dict() | {
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another one of the same run; it takes over the tensors."""
        super().load_state_dict(state)
        if state["step"] > 0:
            self.schedule.load_state_dict(state["schedule"])
            self.generator.set_state(state["generator"])
            self._behavior_version = NOT_LOADED
