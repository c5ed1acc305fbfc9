"""What this process prints, whoever prints it: nothing of it steers the terminal that shows it.

Texts of an archive, of a rollout or of a reward come in tracebacks, warnings and lines of a log
too, and logs are read by ``tail -f``. What is written past Python's own streams, such as by a
library in C or by ``os.write``, is not looked at.
"""

import io
import logging
import os
import sys
from pathlib import Path
from typing import TextIO

from .words import visible


class VisibleStream(io.TextIOWrapper):
    """Writes control characters as escapes; newlines and tabs stay.

    A carriage return begins a new line, so that a library's progress bar is readable and nothing is
    overwritten. A character that the encoding lacks is an escape too.
    """

    def __init__(self, plain: io.TextIOWrapper) -> None:
        """Write to where ``plain`` does; that is kept, as it would close the file behind both."""
        super().__init__(
            plain.buffer,
            encoding=plain.encoding,
            errors="backslashreplace",
            line_buffering=plain.line_buffering,
            write_through=plain.write_through,
        )
        self.plain = plain

    def write(self, text: str) -> int:
        """Write a text, and return how long it was."""
        super().write(visible(text.replace("\r\n", "\n").replace("\r", "\n")))
        return len(text)


def make_output_visible() -> None:
    """Let all that this process prints from now on go through a ``VisibleStream``.

    Loggers that write to one of the streams so far are given the visible one.
    """
    for name in ("stdout", "stderr"):
        before = getattr(sys, name)
        setattr(sys, name, _visible(before))
        for logger in (logging.root, *logging.root.manager.loggerDict.values()):
            for handler in getattr(logger, "handlers", ()):
                if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                    handler.setStream(getattr(sys, name))


def _visible(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed, and nobody hears what is written
        return Path(os.devnull).open("w", encoding="utf-8")
    if isinstance(stream, VisibleStream) or not isinstance(stream, io.TextIOWrapper):
        return stream  # visible already, or put in its place by whoever runs us
    return VisibleStream(stream)


def for_progress() -> TextIO:
    """Return standard error for a progress bar of our own, which draws over its last line."""
    return sys.stderr.plain if isinstance(sys.stderr, VisibleStream) else sys.stderr
