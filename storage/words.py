"""How numbers and times of an archive are written for a person. Pure."""

import time
from collections.abc import Sequence

MOST_NAMED = 6


def counted(count: int, what: str) -> str:
    """Write so many of something: 1 run, 2 runs."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def moment(seconds: float) -> str:
    """Write a time, given in seconds since 1970, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def some_of(names: Sequence[str]) -> str:
    """Write the first few of a list, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
