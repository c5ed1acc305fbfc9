"""Looking over the shoulder of a trainer of TRL: what its own functions are given and return."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger("etalon")


class Guard:
    """Lets recording fail without the training: once, with a line in the log; then never again."""

    def __init__(self) -> None:
        self.broken = False
        self.seconds = 0.0
        """Spent on recording, until somebody sets it back."""

    def __call__(self, work: Callable[..., None], *given: Any) -> None:
        """Carry out ``work`` unless something failed before."""
        if self.broken:
            return
        began = time.perf_counter()
        try:
            work(*given)
        except Exception:
            self.broken = True
            logger.exception("recording failed and ends here; the training goes on")
        self.seconds += time.perf_counter() - began


@dataclass(kw_only=True)
class Seen:
    """What was seen of one learner step.

    ``batches`` are its micro-batches: ``log_prob`` and ``log_ratio`` to the policy that sampled,
    ``mask``, [B, T] each, and ``advantage``, [B]; ``ages`` how many learner steps old the rollouts
    of each were. ``grad_norm`` is that before clipping, ``generating`` in seconds; ``by_engine``
    says that another program sampled, with log-probabilities of its own.
    """

    batches: list[dict[str, Tensor]] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)
    grad_norm: Any = None
    by_engine: bool = False
    generating: float = 0.0
    began: float = field(default_factory=time.perf_counter)


class Shoulder:
    """Wraps functions of one trainer, those that it has; each still does what it did."""

    def __init__(self, trainer: Any, guard: Guard, generated: Callable[[], None]) -> None:
        """Look on; ``generated`` is called when rollouts for training were sampled."""
        self.seen = Seen()
        self.looks = False
        """Whether anything is noted: only while a training is recorded by this process."""
        self.generated_at: int | None = None
        """The learner step whose weights sampled the newest rollouts."""
        self._trainer, self._guard, self._generated = trainer, guard, generated
        self._scored: Tensor | None = None
        self._in_loss = False
        scoring = "_get_per_token_logps_and_entropies"
        self.sees_policy = hasattr(trainer, scoring) and hasattr(trainer, "_compute_loss")
        for name, around in (
            ("_generate_and_score_completions", self._around_generating),
            (scoring, self._around_scoring),
            ("_compute_loss", self._around_loss),
            ("_clip_grad_norm", self._around_clipping),
        ):
            if callable(done := getattr(trainer, name, None)):
                setattr(trainer, name, around(done))

    def begin(self) -> None:
        """Begin to note, and forget an earlier training: what it generated may be used again."""
        self.looks, self.generated_at, self.seen = True, None, Seen()

    def end(self) -> None:
        """Note nothing more, and hold nothing of what was."""
        self.looks, self.seen, self._scored = False, Seen(), None

    def begin_step(self) -> None:
        """Forget the learner step before; what was generated for this one already stays."""
        self.seen = Seen(generating=0.0 if self.seen.batches else self.seen.generating)

    def _around_generating(self, done: Callable[..., Any]) -> Callable[..., Any]:
        def generate(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            found = done(*given, **named)
            if self.looks and self._trainer.model.training:
                self._guard(self._note_generation, time.perf_counter() - began)
            return found

        return generate

    def _around_scoring(self, done: Callable[..., Any]) -> Callable[..., Any]:
        def score(*given: Any, **named: Any) -> Any:
            found = done(*given, **named)
            if self._in_loss and self._scored is None:  # the first is of the policy itself
                first = found[0] if isinstance(found, tuple) else found
                self._scored = first.detach() if isinstance(first, Tensor) else None
            return found

        return score

    def _around_loss(self, done: Callable[..., Any]) -> Callable[..., Any]:
        def loss(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
            self._scored, self._in_loss = None, self.looks and bool(model.training)
            try:
                found = done(model, inputs, *given, **named)
            finally:
                self._in_loss = False
            if self._scored is not None:
                self._guard(self._note_batch, inputs, self._scored)
            return found

        return loss

    def _around_clipping(self, done: Callable[..., Any]) -> Callable[..., Any]:
        def clip(*given: Any, **named: Any) -> Any:
            found = done(*given, **named)
            if self.looks:
                self.seen.grad_norm = found
            return found

        return clip

    def _note_generation(self, seconds: float) -> None:
        self.generated_at = int(self._trainer.state.global_step)
        self.seen.generating += seconds
        self._generated()

    def _note_batch(self, inputs: Mapping[str, Any], scored: Tensor) -> None:
        mask = inputs["completion_mask"]
        if "tool_mask" in inputs:
            mask = mask * inputs["tool_mask"]
        new, advantage = scored.float(), inputs["advantages"]
        old = inputs.get("old_per_token_logps")
        if getattr(self._trainer, "use_vllm", False):
            old = inputs.get("sampling_per_token_logps")
            self.seen.by_engine = True
            if old is None:
                return  # what the engine sampled with was not kept
            mask = mask * old.isfinite()
            old = old.nan_to_num()
        log_ratio = torch.zeros_like(new) if old is None else new - old.float()
        self.seen.batches.append(
            {
                "log_prob": new * mask,
                "log_ratio": log_ratio * mask,
                "mask": mask.float(),
                "advantage": advantage if advantage.dim() == 1 else advantage[:, 0],
            }
        )
        if self.generated_at is not None:
            self.seen.ages.append(int(self._trainer.state.global_step) - self.generated_at)
