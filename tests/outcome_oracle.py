"""The outcome of a run, written a second time from theory.md §6, whole series at once.

Imports nothing of the project: what it says is held against what the trainer says.
"""

import math
import sqlite3
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Series:
    """Everything theory.md §6 derives from the batch rewards of a run, one entry per batch."""

    smooth: np.ndarray
    peak: np.ndarray
    height: np.ndarray
    down: np.ndarray


def series(rewards, start, floor):
    """Smooth the rewards by one matrix product and find where they are down."""
    r = np.asarray(rewards, dtype=float)
    age = np.subtract.outer(np.arange(len(r)), np.arange(len(r)))
    weight = np.where(age >= 0, 0.5 ** (np.maximum(age, 0) / 10), 0.0)
    smooth = weight @ r / weight.sum(axis=1)
    peak = np.maximum(start, np.maximum.accumulate(smooth))
    room = peak - floor
    height = np.where(room > 0, (smooth - floor) / np.where(room > 0, room, 1), 1.0)
    noise = [
        np.median(np.abs((r - smooth)[: t + 1] - np.median((r - smooth)[: t + 1])))
        for t in range(len(r))
    ]
    down = (height < 0.5) & (peak - smooth > 3 * 1.4826 * np.array(noise))
    return Series(smooth=smooth, peak=peak, height=height, down=down)


def onset_batch(found):
    """Return the first batch that is down for 20 batches and never back at 0.8; else None."""
    for t in range(len(found.down) - 19):
        if found.down[t : t + 20].all() and (found.height[t:] < 0.8).all():
            return t
    return None


def slide_batch(found):
    """Return the first batch of the last stretch below 0.85 of the peak; None if it ends above."""
    above = np.flatnonzero(found.smooth >= 0.85 * found.peak)
    first = 0 if above.size == 0 else int(above[-1]) + 1
    return first if first < len(found.smooth) else None


def verdict(rewards, start, start_error, floor):
    """Name the outcome of a run with finite rewards."""
    found = series(rewards, start, floor)
    if onset_batch(found) is not None:
        return "collapsed"
    if len(rewards) < 2 or found.down[-1]:
        return "undetermined"
    tail = np.asarray(rewards, dtype=float)[-max(50, len(rewards) // 10) :]
    error = math.hypot(tail.std(ddof=1) / math.sqrt(len(tail)), start_error)
    if tail.mean() < start - 2 * error:
        return "damaged"
    healthy = (found.smooth >= 0.85 * found.peak)[21:].all()
    return "healthy" if healthy else "finished"


@dataclass(frozen=True, kw_only=True)
class StoredCollapse:
    """Where a stored run collapsed: by batch, and by the version that sampled that batch."""

    batch: int
    version: int


def stored_collapse(path, run_id):
    """Find the collapse of a run in the rows of an SQLite file; None if it did not collapse."""
    with sqlite3.connect(path) as db:
        rewards = db.execute(
            "SELECT reward_mean, sampled_at_step FROM steps WHERE run_id = ? ORDER BY step",
            [run_id],
        ).fetchall()
        [(start,)] = db.execute(
            "SELECT reward FROM evaluations WHERE run_id = ? AND step = 0", [run_id]
        )
        [(floor,)] = db.execute("SELECT chance_reward FROM runs WHERE id = ?", [run_id])
    db.close()
    batch = onset_batch(series([reward for reward, _ in rewards], start, floor))
    return None if batch is None else StoredCollapse(batch=batch, version=rewards[batch][1])
