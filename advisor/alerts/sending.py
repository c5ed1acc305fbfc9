"""Send an alert: to the log, to a command, to a webhook. Nothing here waits without end.

No message of a failure holds the address of a webhook, which is a secret, nor what its server
answered. A redirect is not followed: it would carry the alert to where nobody sent it.
"""

import json
import logging
import math
import os
import queue
import signal
import subprocess
import threading
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from storage.engine import without_password

from .payloads import Alert, payload_of, text_of
from .rules import Destination

LONGEST_WAIT = 3600.0
"""A receiver that asks to be left alone for longer is asked again after this."""
END_SECONDS = 2.0
"""How long a command that was killed may take to be gone."""
SECRETS = ("ETALON_DB", "PGPASSWORD")
"""Of the environment, what opens the archive."""
TRY_AGAIN = (408, 425, 429)
"""What a client's mistake is not: any other 4xx, and a redirect, would come again."""

logger = logging.getLogger(__name__)


class NotDelivered(Exception):
    """An alert did not reach its destination.

    ``final`` is whether another try would not help, ``after`` how long to wait before one, in
    seconds, where the receiver said so.
    """

    def __init__(self, reason: str, *, final: bool = False, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.final, self.after = reason, final, after


def send(destination: Destination | None, alert: Alert) -> None:
    """Send an alert; None is the log.

    Raises:
        NotDelivered: the destination did not take it, or not in time.
    """
    if destination is None:
        logger.warning("%s", text_of(alert))
    elif destination.command is not None:
        _run(destination.command, alert, destination.seconds)
    elif destination.webhook is not None:
        url, payload = destination.webhook.get_secret_value(), payload_of(destination.kind, alert)
        _within(destination.seconds, url, payload)


def _run(command: tuple[str, ...], alert: Alert, seconds: float) -> None:
    """Give an alert to a command on its standard input; no shell sees any of it."""
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            command, stdin=pipe, stdout=nowhere, start_new_session=True, env=_environment()
        )
    except (OSError, ValueError) as error:
        raise NotDelivered(f"the command does not start: {_words(error)}") from None
    try:
        process.communicate(json.dumps(alert).encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        goes_on = "" if _kill(process) else ", and cannot be ended"
        raise NotDelivered(f"the command took longer than {seconds:g} s{goes_on}") from None
    if process.returncode != 0:
        raise NotDelivered(f"the command ended with {process.returncode}")


def _environment() -> dict[str, str]:
    """Return the environment for a command: without what opens the archive, or has a password."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in SECRETS and not ("://" in value and without_password(value) != value)
    }


def _kill(process: "subprocess.Popen[bytes]") -> bool:
    """Kill a command with all that it started, and return whether it is gone.

    One that has become another user's, by a setuid program, cannot be killed.
    """
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _within(seconds: float, url: str, payload: Alert) -> None:
    """Post on a thread of its own and wait so long.

    A timeout of the socket alone would not do: a name may take as long as it likes to resolve, and
    a server may send one byte now and then.
    """
    outcome: queue.SimpleQueue[NotDelivered | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            _post(url, payload, seconds)
        except NotDelivered as failure:
            outcome.put(failure)
        else:
            outcome.put(None)

    threading.Thread(target=work, daemon=True).start()
    try:
        failure = outcome.get(timeout=seconds)
    except queue.Empty:
        raise NotDelivered(f"no answer within {seconds:g} s") from None
    if failure is not None:
        raise failure


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow none, so that it is an error like any other answer that is no success."""


def _post(url: str, payload: Alert, seconds: float) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "etalon"}
    request = Request(url, json.dumps(payload).encode(), headers, method="POST")
    try:
        with build_opener(_NoRedirect).open(request, timeout=seconds):
            return
    except HTTPError as error:
        error.close()
        raise _refused(error.code, error.headers.get("Retry-After")) from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise NotDelivered(f"it cannot be reached: {_words(reason)}") from None


def _refused(code: int, retry_after: str | None) -> NotDelivered:
    redirect = ", a redirect, and none is followed" if 300 <= code < 400 else ""
    again = code >= 500 or code in TRY_AGAIN
    return NotDelivered(f"HTTP {code}{redirect}", final=not again, after=_seconds(retry_after))


def _seconds(retry_after: str | None) -> float | None:
    """Read how long to wait: seconds, which may have a fraction, or a date."""
    if retry_after is None:
        return None
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(wait, 0.0), LONGEST_WAIT) if math.isfinite(wait) else None


def _words(error: Any) -> str:
    """Say what is wrong without its own words, which may hold the address."""
    said = error.strerror if isinstance(error, OSError) else None
    return said or type(error).__name__
