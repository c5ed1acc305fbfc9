"""Outlive an archive that is away for a while: ask again until it answers, and say so once."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import ArchiveUnavailable, WriteRefused

AGAIN_SECONDS = 1.0
Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


def patiently(
    ask: Callable[[], Answer],
    *,
    seconds: float = float("inf"),
    stopped: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], object] = time.sleep,
) -> Answer:
    """Return what ``ask`` returns, asked again for so many seconds while the archive is away.

    Raises:
        ArchiveUnavailable: it is still away, was ``stopped``, or refuses what it is asked.
    """
    until = time.monotonic() + seconds
    told = False
    while True:
        try:
            answer = ask()
        except WriteRefused:
            raise
        except ArchiveUnavailable as error:
            if stopped() or time.monotonic() >= until:
                raise
            if not told:
                logger.warning("%s; asked again until it does", error)
                told = True
            sleep(AGAIN_SECONDS)
        else:
            if told:
                logger.warning("the archive answers again")
            return answer
