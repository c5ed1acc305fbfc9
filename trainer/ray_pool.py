"""Runs of a sweep as Ray tasks, on any node that has the cores; the counterpart of ``pool``.

A task carries one run out, and the archive says what became of it. When a node goes away under a
run, what it measured is put away and its cell begins anew elsewhere; when only its process dies,
the run has failed, and the sweep retries it once.
"""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from storage.engine import home
from storage.records import RunInfo, RunStatus
from storage.store import Store

from .config import TrainerConfig
from .launch import claim
from .pool import STOP_SECONDS, WorkersFailed, cores_used, silent, warm_up
from .ray_cluster import (
    able_nodes,
    check_archive,
    check_reach,
    first_of_this_node,
    joined,
    node_home,
    resources,
)

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def on_ray(
    db: str | None, configs: Sequence[TrainerConfig], jobs: int | None
) -> Iterator[tuple[Store, "RayPool"]]:
    """Join a Ray cluster, open the archive, and look whether these cells can be worked on.

    Raises:
        BadInput: they cannot; one line per fault.
    """
    largest = max(configs, key=cores_used)
    needed = resources(cores_used(largest), largest)
    with joined() as ray:
        check_archive(ray, db)
        nodes = able_nodes(ray, needed)
        store = Store.open(db)
        try:
            check_reach(ray, nodes, store.url, largest)
            yield store, RayPool(ray, store, jobs)
        finally:
            store.close()


class RayPool:
    """The tasks of one sweep; leaving the context ends them.

    Runs that they are in the middle of become ``stopped``, with every step that was taken.
    """

    def __init__(self, ray: Any, store: Store, jobs: int | None) -> None:
        """Begin without a task; at most ``jobs`` at a time, None for as many as there is room."""
        self._ray, self._store, self._jobs = ray, store, jobs
        self._task = ray.remote(max_retries=0)(carry_out_claimed)
        self._runs: dict[Any, str] = {}  # by reference to the result of its task
        self._home = home().resolve()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        for reference in self._runs:
            self._ray.cancel(reference)
        try:
            self._wait(STOP_SECONDS)
        finally:
            for reference in self._runs:
                self._ray.cancel(reference, force=True)
            for run_id in self._runs.values():
                self._end(run_id, RunStatus.STOPPED, outcome_reason="interrupted")

    def owns(self, run: RunInfo) -> bool:
        """Whether a task of this pool is there for the run."""
        return run.id in self._runs.values()

    def tend(self, runs: Sequence[RunInfo]) -> None:
        """Make a task of each queued run that has none, in their order, as far as ``jobs`` go."""
        given = set(self._runs.values())
        for run in runs:
            if self._jobs is not None and len(self._runs) >= self._jobs:
                return
            if run.status is RunStatus.QUEUED and run.id not in given:
                config = TrainerConfig.model_validate(run.config)
                needed = resources(cores_used(config), config)
                task = self._task.options(**needed, name=f"etalon {run.id}")
                self._runs[task.remote(self._store.url, run.id, self._home)] = run.id

    def bury(self) -> None:
        """Record what became of the runs whose task has ended otherwise than by itself.

        Raises:
            WorkersFailed: a task could not begin, such as when a warm start fails.
        """
        self._wait(0)

    def _wait(self, seconds: float) -> None:
        """Take in the tasks that end; all of them, if they do so within so many seconds."""
        if not self._runs:
            return
        every = list(self._runs)
        ended, _ = self._ray.wait(every, num_returns=len(every), timeout=seconds)
        for reference in ended:
            run_id = self._runs.pop(reference)
            try:
                self._ray.get(reference)
            except self._ray.exceptions.TaskCancelledError:
                self._end(run_id, RunStatus.STOPPED, outcome_reason="interrupted")
            except self._ray.exceptions.NodeDiedError as error:
                words = f"its node went away: {_first_line(error)}"
                self._end(run_id, RunStatus.STOPPED, outcome_reason=words)
            except self._ray.exceptions.RayTaskError as error:
                raise WorkersFailed(f"a task ended before it took a run\n{error}") from None
            except self._ray.exceptions.RayError as error:
                if self._store.run(run_id).status is RunStatus.QUEUED:
                    words = f"a task died before it took a run\n{_first_line(error)}"
                    raise WorkersFailed(words) from None
                self._end(run_id, RunStatus.FAILED, error=f"its process died: {_first_line(error)}")

    def _end(self, run_id: str, status: RunStatus, **changes: Any) -> None:
        """Write the end of a run that nobody else will; one that wrote its own keeps it."""
        if self._store.run(run_id).status is RunStatus.RUNNING:
            self._store.update_run(run_id, status=status, ended_at=time.time(), **changes)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def carry_out_claimed(url: str, run_id: str, home: Path) -> None:
    """Carry out a run, on a node, if this process is the first to claim it.

    A run that fails is recorded by its worker.
    """
    from .worker import Worker  # torch and transformers take seconds to import

    node_home(home)
    store = Store.open(url, create=False)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        with first_of_this_node(home):
            warm_up(store, [run_id])
        if claim(store, run_id):
            with contextlib.suppress(Exception):
                Worker(store, store.run(run_id), silent).run()
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)  # the process belongs to Ray, and carries out more
        store.close()
