"""Numbers as a person would say them. Pure."""


def pace(steps: int, planned: int, started_at: float | None, now: float) -> str:
    """Say steps per second and the time left at the mean pace since the start.

    The warm start counts as part of the time, so an early estimate errs to the long side.
    """
    if started_at is None:
        return "waiting to start"
    seconds = now - started_at
    if steps == 0 or seconds <= 0:
        return "no learner step yet"
    speed = steps / seconds
    left = max(0, planned - steps) / speed
    return f"{speed:.1f} steps/s, about {duration(left)} left"


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
