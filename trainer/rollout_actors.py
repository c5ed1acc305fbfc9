"""Rollout workers that are actors of a Ray cluster, on any of its nodes.

Each version of the weights is put into Ray's object store once, from where the nodes fetch it. An
actor takes over the newest that has reached it between two tokens. A batch travels together with
the weights that are the newest when it is given away, so it is begun with those at least, and the
bound on staleness does not depend on how fast a network is.
"""

import contextlib
import pickle
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .published_weights import NOTHING
from .ray_cluster import first_of_this_node, node_home, ray_module, ready_for, resources
from .rollout_worker import Assignment, Delivery, Failure, Ready, begun, packed

WEIGHTS = "weights"
"""The thread of an actor that takes in weights while another one samples."""


@dataclass(slots=True, eq=False)
class Actor:
    """An actor, and the references to what it was asked for and has not answered."""

    handle: Any
    asked: list[Any] = field(default_factory=list)
    told: Any = None
    """Whether the weights that it was last told of have reached it."""
    error: str = ""


class Actors:
    """Starts actors on whichever nodes have the room, and talks with them by calls."""

    def __init__(self, assignment: Assignment) -> None:
        """Join the cluster; nothing is started yet.

        Raises:
            BadInput: there is none, or none whose nodes can work on this.
        """
        self._left = contextlib.ExitStack()
        self._left.enter_context(ready_for(assignment.config))
        self._ray = ray_module()
        self._assignment = assignment
        needed = resources(assignment.config.threads, assignment.config)
        kept = {"max_restarts": 0, "concurrency_groups": {WEIGHTS: 1}}
        self._actor = self._ray.remote(**needed, **kept)(RolloutActor)
        self._alive: list[Actor] = []
        self._newest: tuple[int, Any] | None = None

    def start(self) -> Actor:
        """Ask for one more; Ray starts it once a node has room."""
        handle = self._actor.remote(self._assignment)
        actor = Actor(handle, asked=[handle.begin.remote()])
        self._alive.append(actor)
        return actor

    def publish(self, version: int, vector: Tensor) -> None:
        """Put the weights into the object store, and tell all who have the ones before."""
        self._newest = version, self._ray.put(vector.cpu().numpy())
        for actor in self._alive:
            if actor.told is None or self._ray.wait([actor.told], timeout=0)[0]:
                offer = actor.handle.offer.options(concurrency_group=WEIGHTS)
                actor.told = offer.remote(*self._newest)

    def give(self, worker: Actor, number: int) -> None:
        """Call for a batch, from the newest weights or later ones."""
        if self._newest is None:
            raise RuntimeError(f"batch {number} is given away before there are any weights")
        worker.asked.append(worker.handle.batch.remote(number, *self._newest))

    def receive(
        self, workers: Sequence[Actor], seconds: float | None
    ) -> list[tuple[Actor, Ready | Delivery | Failure | None]]:
        """Return all that has been answered; None for an actor that has died."""
        asked = {reference: actor for actor in workers for reference in actor.asked}
        if not asked or not self._ray.wait(list(asked), timeout=seconds)[0]:
            return []
        answered, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        heard: list[tuple[Actor, Ready | Delivery | Failure | None]] = []
        for reference in answered:
            actor = asked[reference]
            if actor.error:  # one death, however much it was asked for
                continue
            actor.asked.remove(reference)
            try:
                heard.append((actor, pickle.loads(self._ray.get(reference))))
            except self._ray.exceptions.RayError as error:
                actor.error = str(error).strip().splitlines()[0].rstrip(".")
                heard.append((actor, None))
        return heard

    def end(self, worker: Actor) -> str:
        """Kill one, which may be dead already."""
        self._alive.remove(worker)
        self._ray.kill(worker.handle)
        return f"({worker.error})"

    def close(self, workers: Sequence[Actor]) -> None:
        """Kill these and leave the cluster."""
        for worker in workers:
            self.end(worker)
        self._left.close()


class RolloutActor:
    """What an actor does, in its own process on its own node."""

    def __init__(self, assignment: Assignment) -> None:
        """Begin with nothing; loading is a call of its own, whose failure can be told."""
        self._assignment, self._newest = assignment, ReceivedWeights()
        self._idle_since = 0.0

    def begin(self) -> bytes:
        """Load everything, and return the message that says so, or why not."""
        home: Path = self._assignment.home
        try:
            node_home(home)
            with first_of_this_node(home):
                self._sampler = begun(self._assignment, self._newest)
        except Exception as error:
            return packed(Failure(number=None, error=error))
        self._idle_since = time.perf_counter()
        return packed(Ready())

    def offer(self, version: int, weights: npt.NDArray[np.float32]) -> None:
        """Have these weights sampled from, from the next token on."""
        self._newest.offer(version, weights)

    def batch(self, number: int, version: int, weights: npt.NDArray[np.float32]) -> bytes:
        """Sample a batch from these weights or newer ones, and return the message that holds it."""
        self._newest.offer(version, weights)
        seconds_idle = time.perf_counter() - self._idle_since
        message = packed(self._sampler.answer(number, seconds_idle))
        self._idle_since = time.perf_counter()
        return message


class ReceivedWeights:
    """The newest weights that have come in, for the thread that samples."""

    def __init__(self) -> None:
        """Begin without any."""
        self._lock = threading.Lock()
        self._held: tuple[int, Tensor | None] = (NOTHING, None)

    @property
    def version(self) -> int:
        """Their version, −1 before there are any."""
        return self._held[0]

    def offer(self, version: int, weights: npt.NDArray[np.float32]) -> None:
        """Keep a copy if they are newer; what Ray hands over is its own, and may not be written."""
        with self._lock:
            if version > self._held[0]:
                self._held = version, torch.from_numpy(weights.copy())

    def load_into(self, vector: Tensor) -> int:
        """Copy them into ``vector`` and return their version."""
        version, weights = self._held
        if weights is None:
            raise RuntimeError("there are no weights yet")
        vector.copy_(weights)
        return version
