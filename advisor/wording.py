"""Numbers as a person would say them. Pure."""

import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from trainer.config import TrainerConfig

from .regime import Estimate

MISSING = "–"
NOT_FINITE = "not finite"
NOT_PROBED = ("learning_rate", "ramp_from", "bias_study", "name", "group", "stop_on_collapse")
"""Settings of a run that a probe chooses itself."""
_MARKDOWN = re.compile(r"([\\`*_\[\]<$:~|&])")


def pace(steps: int, planned: int | None, started_at: float | None, now: float) -> str:
    """Say steps per second and the time left at the mean pace since the start.

    The warm start counts as part of the time, so an early estimate errs to the long side.
    """
    if started_at is None:
        return "waiting to start"
    seconds = now - started_at
    if steps == 0 or seconds <= 0:
        return "no learner step yet"
    words = f"{steps / seconds:.1f} steps/s"
    left = time_left(steps, planned, started_at, now)
    return words if left is None else f"{words}, about {left} left"


def time_left(steps: int, planned: int | None, started_at: float | None, now: float) -> str | None:
    """Return how long the rest takes at the mean pace since the start; None where unknown."""
    if started_at is None or planned is None or steps == 0 or now <= started_at:
        return None
    return duration(max(0, planned - steps) * (now - started_at) / steps)


def duration(seconds: float) -> str:
    """Write a length of time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def rate(learning_rate: float) -> str:
    """Write a learning rate to two digits, as people type it: 4.6e-4."""
    mantissa, exponent = f"{learning_rate:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def at_most(learning_rate: float) -> float:
    """Return a rate to three digits and never more than it is, to be typed or run."""
    digits = 2 - math.floor(math.log10(learning_rate))
    down = math.floor(learning_rate * 10.0**digits * (1 + 1e-12)) / 10.0**digits
    return float(f"{down:.3g}")


def short(value: float) -> str:
    """Write a number to two digits, or as a whole one: 0.012, 5.6e-6, 103."""
    if 100 <= abs(value) < 10_000:
        return f"{value:.0f}"
    return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e")


def number(value: Any, form: str = ".3g") -> str:
    """Write a value of the archive: a dash when unknown, in words when it is not finite."""
    if value is None:
        return MISSING
    if not isinstance(value, float):
        return str(value)
    return f"{value:{form}}" if math.isfinite(value) else NOT_FINITE


def chance(probability: float) -> str:
    """Write a probability in whole percent; what is possible is never written as 0 or 100 %."""
    if 0 < probability < 0.01:
        return "<1%"
    if 0.99 < probability < 1:
        return ">99%"
    return f"{probability:.0%}"


def span(estimate: Estimate) -> str:
    """Write an interval, of which one end or both may be unknown."""
    low, high = _end(estimate.low), _end(estimate.high)
    if low is None and high is None:
        return "unknown"
    if low is None:
        return f"at most {high}"
    if high is None:
        return f"at least {low}"
    return low if low == high else f"{low} … {high}"


def _end(value: float | None) -> str | None:
    if value is None or math.isnan(value):
        return None
    return "∞" if value == math.inf else short(value)


def horizon(when: Estimate, step: int) -> str:
    """Say what remains of the horizon to a run that is at ``step``.

    ``when`` is the learner step at which κ_horizon = 1 is reached at the present drift.
    """
    if when.value is not None:
        ends = "" if None in (when.low, when.high) else f" ({_step(when.low)} … {_step(when.high)})"
        return f"At this drift the horizon is used up at step {_step(when.value)}{ends}."
    if when.low is None:
        return f"What remains of the horizon is unknown: {when.reason}."
    if when.low >= step:
        return f"At this drift the horizon lasts at least to step {_step(when.low)}: {when.reason}."
    return (
        f"Since about step {_step(when.low)} this run has been farther from its start than any "
        f"survivor, so what remains of the horizon is unknown: {when.reason}."
    )


def _step(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.0f}" if value < 1e6 else "1,000,000 or later"


def command(config: TrainerConfig) -> str:
    """Write the command that runs a configuration: what is required, and what is not default."""
    return _command("python -m trainer run", config, left_out=())


def probe_command(config: TrainerConfig) -> str:
    """Write the command that probes the setting of a configuration."""
    return _command("python -m advisor probe", config, left_out=NOT_PROBED)


def _command(program: str, config: TrainerConfig, left_out: Sequence[str]) -> str:
    words = [program, f"--workload {config.workload}"]
    for name, field in TrainerConfig.model_fields.items():
        value = getattr(config, name)
        if name in ("workload", *left_out) or value is None or value == field.default:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words.append(f"--{option} {_argument(value)}")
    return " ".join(words)


def _argument(value: Any) -> str:
    text = f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
    return text if re.fullmatch(r"[\w.:+-]+", text) else "'" + text.replace("'", "'\\''") + "'"


def shortened(text: str, length: int = 32) -> str:
    """Cut a text that is longer, and show that it was cut."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def in_chart(text: str) -> str:
    """Write text so that Plotly, which reads a little HTML, shows it as it is."""
    return escape(text, quote=False)


def literal(text: str) -> str:
    """Write text that a person or a program gave so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", text)
