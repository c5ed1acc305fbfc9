"""What a destination is told: an alert as JSON, as one line of text, and as a chat's message. Pure.

Names of runs are chosen by whoever writes to the archive. In a chat they could ring everybody
(Slack's ``<!channel>``, Discord's ``@everyone``) or hide a link, in a log begin a line of their
own: so what is not printable is replaced, and each chat's signs are escaped.
"""

import re
from collections.abc import Mapping
from typing import Any

from storage.records import AlertDelivery, RunInfo

MOST_CHARACTERS = 800
"""Of a text before it is escaped, which at worst makes five of each: Slack advises against more
than 4 000, and Discord, where it makes two of each, refuses more than 2 000."""
NO_PREVIEWS = 4
"""Discord's flag SUPPRESS_EMBEDS."""

Alert = Mapping[str, Any]


def alert_of(delivery: AlertDelivery, run: RunInfo) -> Alert:
    """Return an alert as a command and a plain webhook are given it."""
    return {
        "rule": delivery.rule,
        "subject": delivery.subject,
        "episode": delivery.episode,
        "time": delivery.time,
        "run_id": run.id,
        "run": run.name,
        "group": run.group,
        "status": str(run.status),
        "step": delivery.step,
        "message": delivery.message,
    }


def trial_alert(now: float) -> Alert:
    """Return an alert that is of no run."""
    nothing = {"run_id": None, "run": "none", "group": None, "status": None, "step": None}
    words = "a test; alerts arrive here"
    about = {"rule": "test", "subject": "", "episode": 0, "time": now}
    return {**about, **nothing, "message": words}


def text_of(alert: Alert) -> str:
    """Return an alert as one line of at most ``MOST_CHARACTERS``."""
    where = "" if alert["step"] is None else f" at step {alert['step']}"
    known = "" if alert["run_id"] is None else f" ({alert['run_id']})"
    line = f"{alert['rule']}: run {alert['run']}{known}{where}: {alert['message']}"
    words = " ".join(printable(line).split())
    return words if len(words) <= MOST_CHARACTERS else f"{words[: MOST_CHARACTERS - 1]}…"


def printable(text: str) -> str:
    """Return a text with spaces for what begins a line or tells a terminal something."""
    return "".join(c if c.isprintable() else " " for c in text)


def payload_of(kind: str | None, alert: Alert) -> Alert:
    """Return what is posted to a webhook of this kind: ``slack``, ``discord``, or the alert."""
    if kind == "slack":
        text = text_of(alert).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": text, "unfurl_links": False, "unfurl_media": False}
    if kind == "discord":
        text = re.sub(r"([\\*_~`|>\[\]()<#:@])", r"\\\1", text_of(alert))
        return {"content": text, "allowed_mentions": {"parse": []}, "flags": NO_PREVIEWS}
    return alert
