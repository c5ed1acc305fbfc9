"""Looking over the shoulder of AsyncGRPOTrainer, whose rollouts come from a server, in a queue.

The trainer counts the age of a rollout, and means its reward, where it takes it from the queue:
one micro-batch before it is learned from. So the version of the weights that sampled is heard
there, carried along beside the rollout, and becomes an age in learner steps where the loss is
computed. Known as of TRL 1.16; another layout is said once.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .shoulder import Guard, Shoulder

VERSION = "etalon_model_version"
QUEUE, ROLLOUTS = "queue", "samples"
READ = ("token_index", "segment_id", "old_log_probs", "advantages")


class QueueShoulder(Shoulder):
    """Looks on at the loss of packed rollouts, at the queue and at the versions of the weights."""

    wrapped = ("compute_loss", "_clip_grad_norm")
    needed = ("compute_loss", "rollout_queue", "model_version")

    def __init__(self, trainer: Any, guard: Guard, published: Callable[[int], None]) -> None:
        """Look on; ``published`` is called with the learner step of each version that goes out."""
        super().__init__(trainer, guard, published)
        self._born: dict[int | None, int] = {}
        self._packed: deque[tuple[list[int | None], list[float]]] = deque()
        self._hook: Any = None

    def begin(self, model: nn.Module, loader: Any) -> None:
        """Begin to note; the first version is out already."""
        super().begin(model, loader)
        self._born, self._packed = {}, deque()
        if self.sees_policy:
            self._hook = model.register_forward_hook(self._after_forward)
            self._follow(loader)
        self._note_version()

    def end(self) -> None:
        """Note nothing more."""
        super().end()
        if self._hook is not None:
            self._hook.remove()
        self._hook = None

    def end_step(self) -> None:
        """Note whether the weights went out after this update, as they do before this is called."""
        self._note_version()

    def _note_version(self) -> None:
        version = getattr(self._trainer, "model_version", None)
        if version is not None and version not in self._born:
            self._born[version] = int(self._trainer.state.global_step)
            self._published(self._born[version])

    def _follow(self, loader: Any) -> None:
        """Carry the versions along from the queue to where rollouts are packed into a batch."""
        batcher: Any = getattr(loader, "dataset", None)
        collator: Any = getattr(loader, "collate_fn", None)
        rollouts = getattr(batcher, "dataset", None)
        if not hasattr(rollouts, QUEUE) or not hasattr(collator, "torch_call"):
            self._unknown("the loader of its rollouts")
            return
        queue = _HeardQueue(getattr(rollouts, QUEUE))
        setattr(rollouts, QUEUE, queue)
        batcher.dataset = _WithVersions(rollouts, queue)
        collator.torch_call = self._around_packing(collator.torch_call)

    def _around_packing(self, done: Callable[..., Any]) -> Callable[..., Any]:
        def pack(examples: Any) -> Any:
            self._guard(self._try, "a batch of its rollouts", self._note_rows, examples)
            return done(examples)

        return pack

    def _note_rows(self, examples: Any) -> None:
        """Note what a batch is made of, of which each process gets one row."""
        rank = int(self._trainer.accelerator.process_index)
        (rows,) = examples
        samples = [getattr(row, ROLLOUTS) for row in rows]
        rewards = [each["metrics"].get("reward", math.nan) for row in samples for each in row]
        versions = [each.get(VERSION) for each in samples[rank]]
        self._packed.append((versions, [each for each in rewards if math.isfinite(each)]))

    def _after_forward(self, model: nn.Module, given: Any, output: Any) -> None:
        if self._in_loss and self._scored is None:
            found = getattr(output, "log_probs", None)
            self._scored = found.detach() if isinstance(found, Tensor) else None

    def _note_loss(self, inputs: Mapping[str, Any]) -> None:
        versions, rewards = self._packed.popleft() if self._packed else ([], [])
        if self._scored is None:
            raise LookupError("the model gives no log_probs")
        selected = inputs["token_index"] >= 0
        index, answer, old, advantage = (inputs[name][selected] for name in READ)
        new = self._scored.flatten()[index].float()
        place = _place(answer)
        shape = int(answer.max()) + 1, int(place.max()) + 1

        def answers(values: Tensor) -> Tensor:
            return values.new_zeros(shape).index_put_((answer, place), values)

        self.seen.batches.append(
            {
                "log_prob": answers(new),
                "log_ratio": answers(new - old.float()),
                "mask": answers(torch.ones_like(new)),
                "advantage": advantage.new_zeros(shape[0]).index_put_((answer,), advantage),
            }
        )
        now = int(self._trainer.state.global_step)
        of_answers = versions[: shape[0]] if len(versions) >= shape[0] else [None]
        born = [self._born.get(each) for each in of_answers]
        self.seen.heard += [None if each is None else now - each for each in born]
        self.seen.rewards += rewards


def _place(answer: Tensor) -> Tensor:
    """Return the place of each token in its answer; tokens of an answer stand side by side."""
    counts = torch.bincount(answer)
    first = counts.cumsum(0) - counts
    return torch.arange(len(answer), device=answer.device) - first[answer]


class _HeardQueue:
    """A queue as it is; the version of what was taken last is heard."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.version: int | None = None

    def get(self, *given: Any, **named: Any) -> Any:
        found = self._queue.get(*given, **named)
        self.version = getattr(found, "model_version", None)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


class _WithVersions:
    """The rollouts of a trainer as they are, each with the version that the queue told last."""

    def __init__(self, rollouts: Any, queue: _HeardQueue) -> None:
        self._rollouts, self._queue = rollouts, queue

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for each in self._rollouts:
            yield {**each, VERSION: self._queue.version}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rollouts, name)
