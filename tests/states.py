"""States of an archive in which every page must be fit to be seen, and their runs."""

import json
import math
import os
import socket
from dataclasses import replace

import psutil
from factories import NOON, a_config, a_run, a_step, fill

from storage.importers.importing import import_file
from storage.records import RunInfo, RunStatus
from storage.store import Store
from trainer.config import TrainerConfig
from trainer.meter import unmeasured

MANY = 200


def live(**changes) -> RunInfo:
    """A run whose process is this one."""
    alive = {
        "status": RunStatus.RUNNING,
        "started_at": NOON,
        "heartbeat_at": NOON,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pid_started": psutil.Process().create_time(),
    }
    return a_run(name="alive", **(alive | changes))


def ended(name: str, status: RunStatus, config: TrainerConfig | None = None, **changes) -> RunInfo:
    return a_run(config, name=name, status=status, outcome=str(status), **changes)


def healthy(name: str = "survivor", config: TrainerConfig | None = None, **changes) -> RunInfo:
    values = {"outcome": "healthy", "reward_first": 0.78, "reward_last": 0.88, "reward_final": 0.9}
    return a_run(config, name=name, status=RunStatus.FINISHED, **(values | changes))


def collapsed(**changes) -> RunInfo:
    reason = "the smoothed reward fell below half of its peak"
    values = {"collapse_step": 12, "outcome_reason": reason}
    config = a_config(learning_rate=4e-3)
    return ended("too bold", RunStatus.COLLAPSED, config, **(values | changes))


def fresh() -> RunInfo:
    """A run at S = 0, with the reasons that the trainer gives."""
    config = a_config(max_staleness=0)
    return healthy("fresh", config, unmeasured=unmeasured(config))


def foreign() -> RunInfo:
    """A run of which nobody said how long it was to be, nor with which rate."""
    return replace(a_run(name="from elsewhere", status=RunStatus.FINISHED), config={})


def fill_evidence(store: Store, **changes) -> tuple[RunInfo, RunInfo]:
    """Add one run that survived and one that did not."""
    good, bold = healthy(**changes), collapsed(**changes)
    fill(store, good, steps=40)
    fill(store, bold, steps=40, drift=0.5)
    return good, bold


def fill_diverged(store: Store) -> RunInfo:
    run = ended("broken", RunStatus.DIVERGED, outcome_reason="a non-finite number at batch 30")
    fill(store, run, steps=30)
    nothing = {"reward_mean": math.nan, "grad_norm": math.inf, "approx_kl": math.nan}
    store.append_step(a_step(run.id, 30, sampled_at_step=28, learning_rate=2e-4, **nothing))
    return run


def import_sparse(store: Store) -> str:
    """Import a log of TRL whose metrics come every ten, every twenty steps, or once not finite."""
    rows = []
    for step in range(10, 210, 10):
        row = {"step": step, "reward": 0.5 + step / 1000, "learning_rate": 1e-6}
        if step % 20 == 0:
            row |= {"kl": 1e-3 * step, "entropy": 0.3}
        rows.append(row | ({"grad_norm": math.nan} if step == 100 else {}))
    log = "\n".join(json.dumps(row) for row in rows).encode()
    settings = {"learning_rate": 1e-6, "steps": 400}
    return import_file(store, log, name="a log", stack="trl_async", settings=settings).run_id


def fill_many(store: Store) -> None:
    """Add as many ended runs, of twenty rates and four S, of which the bold ones collapsed."""
    for i in range(MANY):
        rate, staleness = 1e-4 * 1.25 ** (i % 20), (0, 1, 3, 15)[i // 20 % 4]
        config = a_config(
            learning_rate=rate, max_staleness=staleness, seed=i, group=f"sweep {i % 3}"
        )
        bold = rate * (staleness + 1) > 4e-3
        values = {"outcome": "collapsed", "collapse_step": 2} if bold else {"outcome": "healthy"}
        status = RunStatus.COLLAPSED if bold else RunStatus.FINISHED
        run = a_run(config, name=f"run {i}", status=status, group=config.group, **values)
        store.create_run(run)
        store.append_steps(
            a_step(run.id, t, learning_rate=rate, reward_mean=0.5, displacement=rate * (t + 1))
            for t in range(4)
        )


def _unmeasured(store: Store) -> None:
    run = healthy(reward_first=None, reward_last=None, reward_final=None)
    store.create_run(run)
    store.append_step(a_step(run.id, 0))


STATES = {
    "empty": lambda _: None,
    "live": lambda store: fill(store, live(), steps=40),
    "collapsed": lambda store: fill(store, collapsed(), steps=40, drift=0.5),
    "diverged": fill_diverged,
    "imported": import_sparse,
    "many": fill_many,
    "fresh": lambda store: fill(store, fresh(), steps=40),
    "unmeasured": _unmeasured,
    "queued": lambda store: store.create_run(a_run(name="waiting")),
    "foreign": lambda store: store.create_run(foreign()),
    "archived": lambda store: fill_evidence(store, archived=True),
}
