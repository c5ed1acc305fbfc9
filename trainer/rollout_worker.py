"""What a rollout worker does: samples numbered batches from the newest weights there are.

A process knows its learner by a connection alone (``work``). Numbers of batches come in; rollouts,
or the error that was in their way, go out. When the connection ends, for whatever reason, so does
the process, even in the middle of a batch: nothing outlives its learner. An actor of a Ray cluster
does the same by calls (``rollout_actors``).
"""

import os
import pickle
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from storage.terminal import make_output_visible

from .config import TrainerConfig
from .policy import FlatWeights, choose_device, load_policy
from .published_weights import NOTHING, PublishedWeights
from .randomness import generator
from .rollout import Rollouts, Task, sample_rollouts
from .workloads.choice import task_and_start

BATCHES = 2**20
"""Purpose of a batch's random numbers, beside those of lockstep, evaluations and bias studies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a rollout worker is told at its start: the setting, and the home."""

    config: TrainerConfig
    home: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A worker has loaded everything and waits for batches to sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One batch, on the CPU, how long it took, and how long its worker had nothing to do before."""

    number: int
    rollouts: Rollouts
    seconds_generate: float
    seconds_idle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a batch could not be sampled; without a number, why the worker could not begin."""

    number: int | None
    error: Exception


class NewestWeights(Protocol):
    """Where a worker finds the newest weights that it may sample from."""

    @property
    def version(self) -> int:
        """Their version, −1 before there are any."""

    def load_into(self, vector: Tensor) -> int:
        """Copy them into ``vector`` and return their version."""


class Sampler:
    """Samples batches from published weights, which may change from one token to the next."""

    def __init__(
        self, config: TrainerConfig, task: Task, start: Path, published: NewestWeights
    ) -> None:
        """Load the model's shape and the tokenizer from ``start``; its weights are never used."""
        self._config, self._task, self._published = config, task, published
        self._device = choose_device(config.device)
        self._policy, self._tokenizer = load_policy(start, self._device, config)
        self._weights = FlatWeights(self._policy)
        self._version = NOTHING

    def batch(self, number: int) -> Rollouts:
        """Sample batch ``number``: its prompts depend on nothing but the seed and the number."""
        config, chance = self._config, batch_generator(self._config, self._device, number)
        return sample_rollouts(
            self._policy,
            self._tokenizer,
            self._task,
            self._task.sample_prompts(config.prompts, chance),
            config.group_size,
            chance,
            newest=self._newest,
        )

    def answer(self, number: int, seconds_idle: float) -> Delivery | Failure:
        """Sample a batch and return it, or what was in its way."""
        started = time.perf_counter()
        try:
            return Delivery(
                number=number,
                rollouts=self.batch(number).to(torch.device("cpu")),
                seconds_generate=time.perf_counter() - started,
                seconds_idle=seconds_idle,
            )
        except Exception as error:
            return Failure(number=number, error=error)

    def _newest(self) -> int:
        """Take over the weights that were published since the last token, if any were."""
        if self._version != self._published.version:
            self._version = self._published.load_into(self._weights.vector)
        return self._version


def batch_generator(config: TrainerConfig, device: torch.device, number: int) -> torch.Generator:
    """Return the random numbers of a batch: sampled again, it has the same prompts."""
    return generator(device, config.seed, BATCHES, number)


def work(assignment: Assignment, published: PublishedWeights, connection: Connection) -> None:
    """Sample the batches whose numbers come in until the connection ends."""
    make_output_visible()
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    outgoing: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for carry in (
        lambda: numbers.put(connection.recv()),
        lambda: connection.send_bytes(outgoing.get()),
    ):
        threading.Thread(target=_until_the_end, args=(carry,), daemon=True).start()
    try:
        sampler = begun(assignment, published)
    except Exception as error:
        outgoing.put(packed(Failure(number=None, error=error)))
        threading.Event().wait()  # for the end
    outgoing.put(packed(Ready()))
    while True:
        idle = time.perf_counter()
        number = numbers.get()
        seconds_idle = time.perf_counter() - idle
        outgoing.put(packed(sampler.answer(number, seconds_idle)))


def _until_the_end(carry: Callable[[], None]) -> None:
    """Carry messages until the other end is gone, and then end this process at once."""
    try:
        while True:
            carry()
    except (EOFError, OSError):
        os._exit(0)


def begun(assignment: Assignment, published: NewestWeights) -> Sampler:
    """Load everything, and return what samples."""
    torch.set_num_threads(assignment.config.threads)
    transformers_logging.disable_progress_bar()
    task, start = task_and_start(assignment.config, assignment.home, lambda _: None)
    return Sampler(assignment.config, task, start, published)


def packed(message: Ready | Delivery | Failure) -> bytes:
    """Return a message as bytes that need nobody to be alive when they are read.

    An error takes its traceback along as a note; one that cannot be sent is told in words.
    """
    if isinstance(message, Failure):
        message.error.add_note("".join(traceback.format_exception(message.error)))
        try:
            pickle.loads(pickle.dumps(message))
        except Exception:
            words = f"{type(message.error).__name__}: {message.error}"
            message = replace(message, error=RuntimeError(words))
    return pickle.dumps(message)
