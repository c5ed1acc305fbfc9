"""The rollout workers of one run: batches go out to them and come back, and the dead are replaced.

Everything happens in the learner's own thread, at its learner steps and while it waits. A batch is
given to one worker; when that dies the batch is given to another one, and none is ever dropped.
"""

import contextlib
import multiprocessing
import pickle
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from torch import Tensor

from .published_weights import PublishedWeights
from .rollout_worker import Assignment, Delivery, Failure, Ready, work

MOST_DEATHS = 5
"""Deaths without a batch between them after which it is no accident."""
LEAST_AHEAD = 2
"""Batches that a worker holds at least, so that it need not wait for a busy learner."""
SECONDS_TO_END = 5.0


class RolloutWorkersDied(RuntimeError):
    """Rollout workers die before they deliver anything, however often they are replaced."""


@dataclass(slots=True)
class _Member:
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    batches: list[int] = field(default_factory=list)
    """Numbers of those that were given to it and have not come back."""


class Crew:
    """The rollout workers of one run, and the weights that they sample from.

    ``deaths`` holds, in words, the deaths that nobody was told about yet.
    """

    def __init__(self, assignment: Assignment, size: int) -> None:
        """Start the workers; ``size`` is the number of weights."""
        self.deaths: list[str] = []
        self._assignment = assignment
        self._published = PublishedWeights(size)
        self._waiting: list[int] = []
        self._back: dict[int, Delivery | Failure] = {}
        self._deaths_in_a_row = 0
        workers, batches = assignment.config.rollout_workers, assignment.config.max_staleness + 1
        self._most_ahead = max(LEAST_AHEAD, -(-batches // workers))
        self._members = [self._started() for _ in range(workers)]

    def publish(self, version: int, vector: Tensor) -> None:
        """Let workers sample from these weights from their next token on."""
        self._published.publish(version, vector)

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
        for member in self._members:
            member.connection.close()
        for member in self._members:
            _end(member.process)
        self._members = []
        self._published.close()

    def _tend(self, seconds: float | None) -> None:
        """Take in what has come back within so many seconds, None for as long as it takes."""
        self._hand_out()
        members: dict[object, _Member] = {each.connection: each for each in self._members}
        for connection in wait([each.connection for each in self._members], seconds):
            member = members[connection]
            try:
                message = member.connection.recv_bytes()
            except (EOFError, OSError):
                self._replace(member)
            else:
                self._received(member, pickle.loads(message))
        self._hand_out()

    def _received(self, member: _Member, message: Ready | Delivery | Failure) -> None:
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
            with contextlib.suppress(OSError):  # it has died, which reading from it will tell
                free.connection.send(number)

    def _replace(self, member: _Member) -> None:
        member.connection.close()
        _end(member.process)
        code, lost = member.process.exitcode, member.batches
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        again = f"batches {', '.join(map(str, lost))} are sampled again" if lost else "it had none"
        self.deaths.append(f"a rollout worker ended {how} and is replaced; {again}")
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > MOST_DEATHS:
            raise RolloutWorkersDied(
                f"{self._deaths_in_a_row} rollout workers in a row died before they delivered a "
                f"batch, the last {how}"
            )
        self._waiting += lost
        self._members[self._members.index(member)] = self._started()

    def _started(self) -> _Member:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (self._assignment, self._published, theirs)
        process = context.Process(target=work, args=arguments, name="rollout worker", daemon=True)
        with _interrupts_are_for_the_learner():
            process.start()
        theirs.close()
        return _Member(process, ours)


@contextlib.contextmanager
def _interrupts_are_for_the_learner() -> Iterator[None]:
    """Start processes deaf to the terminal's interrupt: the learner ends them when it ends."""
    resource_tracker.ensure_running()  # starting it would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: SpawnProcess) -> None:
    """Wait for a process whose connection has ended, not forever."""
    process.join(SECONDS_TO_END)
    if process.is_alive():
        process.kill()
        process.join()
