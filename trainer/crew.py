"""The rollout workers of one run: batches go out to them and come back, and the dead are replaced.

Everything happens in the learner's own thread, at its learner steps and while it waits. A batch is
given to one worker; when that dies the batch is given to another one, and none is ever dropped.
What a worker is, a process here or an actor elsewhere, is the matter of ``Workers``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from .config import TrainerConfig
from .rollout_worker import Delivery, Failure, Ready

MOST_DEATHS = 5
"""Deaths without a batch between them after which it is no accident."""
LEAST_AHEAD = 2
"""Batches that a worker holds at least, so that it need not wait for a busy learner."""

W = TypeVar("W")


class RolloutWorkersDied(RuntimeError):
    """Rollout workers die before they deliver anything, however often they are replaced."""


class Workers(Protocol[W]):
    """How rollout workers are started, told, heard and ended; ``W`` stands for one of them."""

    def start(self) -> W:
        """Start one, which says when it is ready."""

    def publish(self, version: int, vector: Tensor) -> None:
        """Let all of them, those started later too, sample from these weights from now on."""

    def give(self, worker: W, number: int) -> None:
        """Have a batch sampled by one that is ready; one that has died hears nothing."""

    def receive(
        self, workers: Sequence[W], seconds: float | None
    ) -> list[tuple[W, Ready | Delivery | Failure | None]]:
        """Return what has come from them within so many seconds; of one that has died, None.

        Waits for the first message, with ``seconds`` None for as long as it takes.
        """

    def end(self, worker: W) -> str:
        """See to it that one is gone, and return in words how it ended."""

    def close(self, workers: Sequence[W]) -> None:
        """End these, whatever they are doing, and let go of everything."""


@dataclass(slots=True)
class _Member(Generic[W]):
    worker: W
    ready: bool = False
    batches: list[int] = field(default_factory=list)
    """Numbers of those that were given to it and have not come back."""


class Crew(Generic[W]):
    """The rollout workers of one run, and what each of them is at.

    ``deaths`` holds, in words, the deaths that nobody was told about yet.
    """

    def __init__(self, config: TrainerConfig, workers: Workers[W]) -> None:
        """Start as many as the configuration says."""
        self.deaths: list[str] = []
        self._workers = workers
        self._waiting: list[int] = []
        self._back: dict[int, Delivery | Failure] = {}
        self._deaths_in_a_row = 0
        batches = config.max_staleness + 1
        self._most_ahead = max(LEAST_AHEAD, -(-batches // config.rollout_workers))
        self._members = [_Member(workers.start()) for _ in range(config.rollout_workers)]

    def publish(self, version: int, vector: Tensor) -> None:
        """Let workers sample from these weights from their next token on."""
        self._workers.publish(version, vector)

    def request(self, number: int) -> None:
        """Have a batch sampled, from the weights that are published now or later."""
        self._waiting.append(number)
        self._tend(0)

    def take(self, number: int) -> Delivery:
        """Return a batch that was requested, waiting for it.

        Raises:
            Exception: whatever was in the way of the batch, or of a worker's beginning.
            RolloutWorkersDied: no worker lives long enough to deliver one.
        """
        self._tend(0)
        while number not in self._back:
            self._tend(None)
        message = self._back.pop(number)
        if isinstance(message, Failure):
            raise message.error
        return message

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        self._workers.close([member.worker for member in self._members])
        self._members = []

    def _tend(self, seconds: float | None) -> None:
        """Take in what has come back within so many seconds, None for as long as it takes."""
        self._hand_out()
        members = {id(each.worker): each for each in self._members}
        heard = self._workers.receive([each.worker for each in self._members], seconds)
        for worker, message in heard:
            if message is None:
                self._replace(members[id(worker)])
            else:
                self._received(members[id(worker)], message)
        self._hand_out()

    def _received(self, member: _Member[W], message: Ready | Delivery | Failure) -> None:
        if isinstance(message, Ready):
            member.ready = True
            return
        if message.number is None:
            raise message.error
        self._back[message.number] = message
        member.batches.remove(message.number)
        self._deaths_in_a_row = 0

    def _hand_out(self) -> None:
        """Give each batch that waits, lowest first, to the worker that has the fewest."""
        self._waiting.sort()
        while self._waiting:
            ready = [member for member in self._members if member.ready]
            free = min(ready, key=lambda member: len(member.batches), default=None)
            if free is None or len(free.batches) >= self._most_ahead:
                return
            number = self._waiting.pop(0)
            free.batches.append(number)
            self._workers.give(free.worker, number)

    def _replace(self, member: _Member[W]) -> None:
        how, lost = self._workers.end(member.worker), member.batches
        again = f"batches {', '.join(map(str, lost))} are sampled again" if lost else "it had none"
        self.deaths.append(f"a rollout worker ended {how} and is replaced; {again}")
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > MOST_DEATHS:
            raise RolloutWorkersDied(
                f"{self._deaths_in_a_row} rollout workers in a row died before they delivered a "
                f"batch, the last {how}"
            )
        self._waiting += lost
        self._members[self._members.index(member)] = _Member(self._workers.start())
