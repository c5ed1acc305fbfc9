"""Looking over the shoulder of a trainer of TRL: what its own functions are given and return."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

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
    ``mask``, [B, T] each, and ``advantage``, [B]; ``heard`` how many learner steps old each
    micro-batch or each rollout was, None where that is unknown; ``rewards`` those of all processes,
    where a trainer logs those of another batch. ``grad_norm`` is that before clipping,
    ``generating`` in seconds; ``by_engine`` says that another program sampled, and that the clip is
    around a recomputation of the trainer's.
    """

    batches: list[dict[str, Tensor]] = field(default_factory=list)
    heard: list[int | None] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    grad_norm: Any = None
    by_engine: bool = False
    generating: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @property
    def ages(self) -> list[int]:
        """Every age that was heard; none where one is unknown."""
        known = [each for each in self.heard if each is not None]
        return known if len(known) == len(self.heard) else []


class Shoulder:
    """Wraps functions of one trainer, those that it has; each still does what it did."""

    wrapped: tuple[str, ...] = (
        *("_generate_and_score_completions", "_get_per_token_logps_and_entropies"),
        *("_compute_loss", "compute_liger_loss", "_clip_grad_norm"),
    )
    needed: tuple[str, ...] = ("_get_per_token_logps_and_entropies", "_compute_loss")
    """Without these nothing is seen of the policy."""

    def __init__(self, trainer: Any, guard: Guard, published: Callable[[int], None]) -> None:
        """Look on; ``published`` is called with the learner step whose weights sample from now."""
        self.seen = Seen()
        self.looks = False
        """Whether anything is noted: only while a training is recorded by this process."""
        self._trainer, self._guard, self._published = trainer, guard, published
        self._generated_at: int | None = None
        self._scored: Tensor | None = None
        self._in_loss = False
        self.sees_policy = all(hasattr(trainer, name) for name in self.needed)
        around = {
            "_generate_and_score_completions": self._around_generating,
            "_get_per_token_logps_and_entropies": self._around_scoring,
            **dict.fromkeys(
                ("_compute_loss", "compute_liger_loss", "compute_loss"), self._around_loss
            ),
            "_clip_grad_norm": self._around_clipping,
        }
        for name in self.wrapped:
            if callable(done := getattr(trainer, name, None)):
                setattr(trainer, name, around[name](done))

    def begin(self, model: nn.Module, loader: Any) -> None:
        """Begin to note, and forget an earlier training: what it generated may be used again."""
        self.looks, self._generated_at, self.seen = True, None, Seen()
        if not self.sees_policy:
            lacks = [name for name in self.needed if not hasattr(self._trainer, name)]
            self._unknown(f"the trainer has no {', '.join(lacks)}")

    def end(self) -> None:
        """Note nothing more, and hold nothing of what was."""
        self.looks, self.seen, self._scored = False, Seen(), None

    def end_step(self) -> None:
        """Hear that an update is over."""

    def _unknown(self, what: str) -> None:
        """Say that TRL is laid out in another way than is known here."""
        logger.warning(
            "TRL %s is laid out in a way not known here, so drift and clipping stay empty, or as "
            "TRL logs them; the training goes on: %s",
            version("trl"),
            what,
        )

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
            trains = self.looks and bool(model.training)
            self._scored, self._in_loss = None, trains
            try:
                found = done(model, inputs, *given, **named)
            finally:
                self._in_loss = False
            if trains:
                self._guard(self._try, "the loss of a batch", self._note_loss, inputs)
            return found

        return loss

    def _around_clipping(self, done: Callable[..., Any]) -> Callable[..., Any]:
        def clip(*given: Any, **named: Any) -> Any:
            found = done(*given, **named)
            if self.looks and type(found) in (Tensor, float):  # of shards it asks all processes
                self.seen.grad_norm = found
            return found

        return clip

    def _note_generation(self, seconds: float) -> None:
        self._generated_at = int(self._trainer.state.global_step)
        self.seen.generating += seconds
        self._published(self._generated_at)

    def _try(self, where: str, note: Callable[[Any], None], given: Any) -> None:
        """Note a batch; the first that looks otherwise than those of known versions is the last."""
        if not self.sees_policy:
            return
        try:
            note(given)
        except Exception as error:  # whatever another layout raises
            self.sees_policy = False
            self._unknown(f"{where}: {type(error).__name__}: {error}")
            self.seen = Seen(heard=[None], generating=self.seen.generating, began=self.seen.began)

    def _note_loss(self, inputs: Mapping[str, Any]) -> None:
        born, now = self._generated_at, int(self._trainer.state.global_step)
        self.seen.heard.append(None if born is None else now - born)
        if self._scored is not None:
            self._note_batch(inputs, self._scored)

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
