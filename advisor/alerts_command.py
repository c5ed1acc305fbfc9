"""``python -m advisor alerts``: how each delivery of an alert went, and a test of a destination."""

import argparse
import time
from contextlib import closing
from dataclasses import asdict
from typing import Any

from storage.commandline import BadInput, print_json, tell
from storage.look_command import count, explained
from storage.records import AlertDelivery, DeliveryState
from storage.store import Store

from .alerts.payloads import printable, trial_alert
from .alerts.rules import alerting
from .alerts.sending import NotDelivered, send

FAILED = 1


def add_alerts_options(parser: argparse.ArgumentParser) -> None:
    """Add which deliveries to list, and what to test."""
    parser.add_argument("--run", metavar="RUN", help="those of this run alone")
    parser.add_argument("--last", metavar="N", default="50", help="the newest so many (50)")
    parser.add_argument(
        "--test", metavar="DESTINATION", help="send a test to this destination instead"
    )
    words = "where destinations are (alerts.toml in ETALON_HOME, if it is there)"
    parser.add_argument("--alerts", metavar="FILE", help=words)


def run(options: argparse.Namespace) -> int:
    """Carry out ``alerts`` and return its exit code: 1 where a test did not arrive."""
    if options.test is not None:
        return _test(options)
    last = count(options.last)
    with closing(Store.open(options.db, create=options.db is None)) as store:
        if options.run is not None:
            options.run = store.run_id_of(options.run)
        found = store.deliveries(options.run, last=last)
    if options.json:
        print_json({"deliveries": [explained(asdict(each), _why(each)) for each in found]})
        return 0
    for each in found:
        tell(_line(each))
    if not found:
        tell("no alerts yet; python -m advisor watch raises them")
    return 0


def _test(options: argparse.Namespace) -> int:
    known = alerting(options.alerts).known_destinations
    name = options.test
    if name not in known:
        raise BadInput(f"test: there is no destination {name!r}; allowed: {', '.join(known)}")
    answer: dict[str, Any] = {"destination": name, "delivered": True}
    try:
        send(known[name], trial_alert(time.time()))
    except NotDelivered as failure:
        answer |= {"delivered": False, "delivered_reason": failure.reason}
    if options.json:
        print_json(answer)
    elif answer["delivered"]:
        tell(f"a test was delivered to {name}")
    else:
        tell(f"{name} did not take a test: {answer['delivered_reason']}")
    return 0 if answer["delivered"] else FAILED


def _line(each: AlertDelivery) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.time))
    why = "" if each.failure is None else f" ({each.failure})"
    head = f"{when} UTC  {each.state:<9} {each.destination}{why}"
    return printable(f"{head}  {each.run_id}  {each.rule}: {each.message}")


def _why(each: AlertDelivery) -> dict[str, str]:
    """Say why fields are empty."""
    waits = each.state is DeliveryState.PENDING
    return {
        "step": "the run had no learner step",
        "due_at": "it is settled",
        "settled_at": "it is pending" if waits else "not recorded",
        "cleared_at": "its episode goes on",
        "failure": "no try has failed",
    }
