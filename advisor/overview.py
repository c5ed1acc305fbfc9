"""What a run shows at a glance: how far it is, its tiles, its row in the archive's table. Pure."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from storage.records import RunInfo, StepMetrics, missing_reason
from trainer.losses import LOSSES

from .wording import MISSING, NOT_FINITE, rate, short, time_left

RECENT_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number with its name; ``help`` says how to read it, or why it is missing."""

    label: str
    value: str
    help: str


def step_seconds(recent: Sequence[StepMetrics]) -> float | None:
    """Return how long the newest learner step took in all; None where that was not measured.

    Where other processes generate at the same time, the learner's waiting for them counts instead.
    """
    for row in recent[-1:]:
        rollouts = row.seconds_generate if row.seconds_wait is None else row.seconds_wait
        parts = (rollouts, row.seconds_learn, row.seconds_measure)
        known = [part for part in parts if part is not None]
        return sum(known) if known else None
    return None


def planned_steps(run: RunInfo) -> int | None:
    """Return how many learner steps a run is to make; None when its configuration does not say."""
    planned = run.config.get("steps")
    return planned if isinstance(planned, int) and planned > 0 else None


def share_done(run: RunInfo, steps: int) -> float | None:
    """Return the share of the planned learner steps that is done, in 0…1, or None if unknown."""
    planned = planned_steps(run)
    return None if planned is None else min(1.0, steps / planned)


def cycle_of(run: RunInfo) -> int:
    """Return the length of a staleness cycle, S + 1 learner steps; 1 when S is not known."""
    staleness = run.config.get("max_staleness")
    return staleness + 1 if isinstance(staleness, int) else 1


def recent_steps(run: RunInfo) -> int:
    """Return over how many of the last steps tiles look: at least one whole staleness cycle."""
    return max(RECENT_STEPS, cycle_of(run))


def tiles(run: RunInfo, recent: Sequence[StepMetrics]) -> list[Tile]:
    """Return the tiles of a run from its last steps.

    A single step would say little: its KL, clipping and ESS rise and fall with the age of its
    rollouts. So each is taken at its worst over the last steps, and the reward as their mean.
    """
    return [
        _tile(run, recent, "reward_mean", "batch reward, mean", fmean, "{:.3f}".format),
        _tile(run, recent[-1:], "learning_rate", "learning rate η", max, rate),
        _tile(run, recent, "approx_kl", "sampling KL, highest", max, short),
        _tile(run, recent, _clipping(run), "clipped, highest", max, "{:.1%}".format),
        _tile(run, recent, "sequence_ess_fraction", "sequence ESS, lowest", min, "{:.0%}".format),
    ]


READINGS = {
    "reward_mean": "Mean reward of the rollouts that these steps learned from.",
    "learning_rate": "Of the last learner step, after warm-up.",
    "approx_kl": "In nats per token. Higher is worse; below 0.01 is usual.",
    "clip_fraction": "Share of tokens whose gradient the clip removes. Higher is worse.",
    "clip_fraction_high": "Share of tokens whose weight is cut down. Higher is worse.",
    "sequence_ess_fraction": "Effective sample size. Lower is worse; below 30 % is an alarm.",
}


def _clipping(run: RunInfo) -> str:
    """Return what is shown of the clip: of a loss that clips nothing below, its upper end."""
    loss = LOSSES.get(str(run.config.get("loss", "grpo")))
    return "clip_fraction" if loss is None or loss.clips_below else "clip_fraction_high"


def _tile(
    run: RunInfo,
    rows: Sequence[StepMetrics],
    name: str,
    label: str,
    summary: Callable[[Sequence[float]], float],
    written: Callable[[float], str],
) -> Tile:
    measured = {row.step: v for row in rows if (v := getattr(row, name)) is not None}
    if not measured:
        column = "clip_fraction_low" if name == "clip_fraction" else name
        why = missing_reason(run, rows[-1], column) if rows else None
        return Tile(label=label, value=MISSING, help=why or "not measured")
    bad = next(((step, v) for step, v in measured.items() if not math.isfinite(v)), None)
    if bad is not None:
        return Tile(label=label, value=NOT_FINITE, help=f"computed {bad[1]} at step {bad[0]}")
    over = f" Over the last {len(rows)} learner steps." if len(rows) > 1 else ""
    value = written(summary(list(measured.values())))
    return Tile(label=label, value=value, help=READINGS[name] + over)


def table_row(
    run: RunInfo, status: str, steps: int, tags: Sequence[str] = (), now: float | None = None
) -> dict[str, Any]:
    """Return one row of the archive's table; what is unknown is None.

    ``now`` is the time for a run that is alive, for what is left of it; None for any other.
    """
    done = share_done(run, steps)
    return {
        "status": status + (" (archived)" if run.archived else ""),
        "name": run.name,
        "η": run.config.get("learning_rate"),
        "S": run.config.get("max_staleness"),
        "steps": steps,
        "done": None if done is None else 100 * done,
        "left": None if now is None else time_left(steps, planned_steps(run), run.started_at, now),
        "outcome": run.outcome,
        "reward first": _finite(run.reward_first),
        "reward last": _finite(run.reward_last),
        "collapse step": run.collapse_step,
        "tags": ", ".join(tags) or None,
        "note": run.notes,
        "created (UTC)": time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.created_at)),
        "id": run.id,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def worth_judging_again(steps: int) -> int:
    """Return ``steps`` to two digits: a diagnosis reads the whole run, so a long one waits."""
    return int(float(f"{steps:.1e}"))
