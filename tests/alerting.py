"""Alerts to be delivered, hostile ones among them, and where to."""

from factories import a_run
from processes import PATIENCE

from advisor.alerts.courier import Courier
from advisor.alerts.payloads import alert_of
from advisor.alerts.rules import Alerting
from storage.records import AlertDelivery

HOSTILE = "<!channel> @everyone [x](http://evil.example) <http://evil.example|x>\nfake: line\u202e"
AT_ONCE = (0.0, 0.0)
PATIENT = {"seconds": 60}  # the most that is allowed


def a_webhook(url, kind="json"):
    return {"webhook": url, "kind": kind}


def destinations(**given):
    return Alerting.model_validate({"destinations": given}).known_destinations


def raised(store, run, *names, subject="s", message="κ is 1.2"):
    words = {"rule": "limits", "subject": subject, "message": message, "step": 7}
    store.raise_alert(run_id=run.id, **words, destinations=names)


def sent(store, known, *, backoff=AT_ONCE, seconds=PATIENCE):
    """Deliver until nothing is due any more."""
    Courier(store, known, backoff).finish(seconds)
    return store.deliveries()


def states(deliveries):
    return {each.destination: (each.state, each.attempts, each.failure) for each in deliveries}


def a_hostile_alert(message="κ is 1.2"):
    about = {"rule": "limits", "subject": "s", "episode": 1, "destination": "d", "time": 1.0}
    delivery = AlertDelivery(run_id="r", **about, message=message, step=7)
    return alert_of(delivery, a_run(id="r", name=HOSTILE))
