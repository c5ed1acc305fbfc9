"""How numbers and times of an archive are written for a person. Pure."""

import re
import time
from collections.abc import Sequence

MOST_NAMED = 6
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # C0 but tab and newline, DEL, C1
    r"|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # what turns the direction of writing
)


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


def visible(text: str) -> str:
    """Write control characters as escapes: they would steer the terminal that shows the text.

    Newlines and tabs stay.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def in_a_line(text: str) -> str:
    """Write a text of an archive where it may begin no line of its own."""
    return text.replace("\n", "\\n").replace("\t", "\\t")
