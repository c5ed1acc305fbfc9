"""Rollout workers that are processes of this machine and share the learner's newest weights.

They are forked off a process that has imported what they need and has done nothing else, which no
device or thread pool of the learner has touched: the second worker, or one in the place of a dead
one, is there at once, and all of them share the memory of the libraries.
"""

import contextlib
import multiprocessing
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

import psutil
from torch import Tensor

from .published_weights import PublishedWeights
from .rollout_worker import Assignment, Delivery, Failure, Ready, work

SECONDS_TO_END = 5.0
SECONDS_TO_GO = 0.5
"""What forks workers may take to be seen as gone when it was killed, so that another one begins."""
UNSEEN = 255
"""The exit code that ``multiprocessing`` gives where what forked the process is gone."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process and the learner's end of its connection.

    ``known`` is the same process as the kernel knows it, None if it never began or was gone at
    once.
    """

    process: ForkServerProcess
    known: psutil.Process | None
    connection: Connection


class Processes:
    """Starts processes, and talks with each by a connection."""

    def __init__(self, assignment: Assignment, size: int) -> None:
        """Begin without a process; ``size`` is the number of weights."""
        self._assignment = assignment
        self._published = PublishedWeights(size)

    def start(self) -> Process:
        """Start one; its connection is its leash."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([work.__module__])
        ours, theirs = context.Pipe()
        arguments = (self._assignment, self._published, theirs)
        process = context.Process(target=work, args=arguments, name="rollout worker", daemon=True)
        known = None
        gone = (EOFError, ConnectionError, psutil.NoSuchProcess)  # it, or what forks it
        with _interrupts_are_for_the_learner(), contextlib.suppress(*gone):
            process.start()
            known = psutil.Process(process.pid)
        if process.pid is None:
            time.sleep(SECONDS_TO_GO)
        theirs.close()
        return Process(process, known, ours)

    def publish(self, version: int, vector: Tensor) -> None:
        """Write the weights where all of them read."""
        self._published.publish(version, vector)

    def give(self, worker: Process, number: int) -> None:
        """Send the number of a batch."""
        with contextlib.suppress(OSError):  # it has died, which reading from it will tell
            worker.connection.send(number)

    def receive(
        self, workers: Sequence[Process], seconds: float | None
    ) -> list[tuple[Process, Ready | Delivery | Failure | None]]:
        """Return one message of each that has sent any; None when its connection has ended."""
        by_connection: dict[object, Process] = {each.connection: each for each in workers}
        heard = [by_connection[each] for each in wait([w.connection for w in workers], seconds)]
        return [(each, _message(each.connection)) for each in heard]

    def end(self, worker: Process) -> str:
        """Wait for one whose connection has ended, not forever."""
        worker.connection.close()
        _end(worker)
        if worker.process.pid is None:
            return "before it began"
        code = worker.process.exitcode
        if code == UNSEEN:
            return "in a way that nobody saw"
        return f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"

    def close(self, workers: Sequence[Process]) -> None:
        """Let go of all leashes, then of the weights."""
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            _end(worker)
        self._published.close()


def _message(connection: Connection) -> Ready | Delivery | Failure | None:
    try:
        packed = connection.recv_bytes()
    except (EOFError, OSError):
        return None
    message: Ready | Delivery | Failure = pickle.loads(packed)
    return message


@contextlib.contextmanager
def _interrupts_are_for_the_learner() -> Iterator[None]:
    """Start processes deaf to the terminal's interrupt: the learner ends them when it ends."""
    resource_tracker.ensure_running()  # starting it would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(worker: Process) -> None:
    """Wait until a process has ended, and end it if it takes long."""
    if worker.known is not None:  # where what forked it is gone, ``process`` takes it for ended
        try:
            worker.known.wait(SECONDS_TO_END)
        except psutil.TimeoutExpired:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.known.kill()
    if worker.process.pid is not None:  # it began
        worker.process.join(SECONDS_TO_END)
