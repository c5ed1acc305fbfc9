"""Synthetic probes whose answer is known: gains linear in ln η, travel by an exact power law."""

import math
from collections.abc import Iterable
from typing import Any

from factories import NOON, a_config

from advisor.safe_levels import Level, SafeLevels
from advisor.segments import Segment
from storage.records import Calibration
from trainer.config import TrainerConfig

EDGE = 2e-3
LEVELS = SafeLevels(
    edge_over_crossing=Level(value=1.25, log_sd=0.3),
    edge_over_horizon=Level(value=1.0, log_sd=0.2),
    sqrt_kl=Level(value=0.65, log_sd=0.25),
    best_over_edge={"survival": 0.4, "horizon": 0.35},
    collapse_over_damage=2.2,
)
NORMS = {str(k): 300.0 * k**-0.3 for k in (1, 2, 4, 8)}
"""G_eff(k) = 300·k^(0.7 − 1), so the drift exponent α is 0.7."""
SCALE, KL_SCALE = 5.0, 4.0
"""‖θ − θ_0‖ = 5·(Σ η)^0.7 and √KL = 4·(Σ η)^0.65·η^0.1, which is how they usually grow."""


def a_hold(learning_rate: float, gain: float | None = 0.1, **changes: Any) -> Segment:
    """Return a hold at S = 3 that began at a reward of 0.5 and was measured to 0.02."""
    values = {
        "run_id": f"hold-{learning_rate:g}",
        "learning_rate": learning_rate,
        "max_staleness": 3,
        "steps": 50,
        "ramp_from": None,
        "start_reward": 0.5,
        "gain": gain,
        "gain_stderr": 0.02,
        "broke_at": None,
        "diverged": False,
        "travel": travelled(learning_rate, 50),
        "effective_norms": NORMS,
        "clip_fraction": 0.01,
        "drift_p95": 100 * learning_rate,
        "radii": {},
        "cost_steps": 90.0,
    }
    return Segment(**(values | changes))


def a_ramp(broke_at: float | None = 1e-2, **changes: Any) -> Segment:
    """Return a ramp with fresh rollouts from 1e-8 to 10."""
    values = {"run_id": "ramp", "max_staleness": 0, "steps": 26, "ramp_from": 1e-8, "travel": ()}
    return a_hold(10.0, None, **(values | {"broke_at": broke_at} | changes))


def travelled(learning_rate: float, steps: int) -> tuple[tuple[float, float, float], ...]:
    """Return (Σ η, √KL, displacement) after each step at a constant rate, by the power laws."""
    sums = [learning_rate * (t + 1) for t in range(steps)]
    return tuple((x, KL_SCALE * x**0.65 * learning_rate**0.1, SCALE * x**0.7) for x in sums)


def linear_holds(rates: Iterable[float], edge: float, **changes: Any) -> list[Segment]:
    """Return holds whose gain is 0.1·ln(edge / η): zero at the edge, for certain."""
    return [a_hold(rate, 0.1 * math.log(edge / rate), **changes) for rate in rates]


def a_calibration(
    segments: Iterable[Segment], setting: TrainerConfig | None = None, **changes: Any
) -> Calibration:
    """Return the calibration of a probe with these segments."""
    found = tuple(segments)
    values = {
        "id": "20260101-120000-abcdef",
        "time": NOON,
        "setting": (setting or a_config()).model_dump(mode="json"),
        "segments": tuple(segment.as_json() for segment in found),
        "run_ids": tuple(segment.run_id for segment in found),
        "learner_steps": sum(segment.steps for segment in found),
        "cost_steps": sum(segment.cost_steps for segment in found),
        "seconds": 12.5,
    }
    return Calibration(**(values | changes))
