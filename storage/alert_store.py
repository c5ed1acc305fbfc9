"""The store's part about alerts: raised once, delivered by whoever claims a delivery first.

A watcher that is about to send claims the delivery for a while, so that no other sends it too;
when the claimant dies, the claim runs out and the delivery is due again. Times to wait are counted
by the database's own clock, because watchers may stand on hosts whose clocks differ.
"""

import time
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from .models import alert_deliveries
from .records import AlertDelivery, DeliveryState
from .run_store import RunStore
from .transactions import only_writer

_C = alert_deliveries.c
_PENDING = _C.state == DeliveryState.PENDING


class AlertStore(RunStore):
    """What was raised about runs, and how each delivery of it stands."""

    def raise_alert(
        self,
        *,
        run_id: str,
        rule: str,
        subject: str,
        message: str,
        step: int | None,
        destinations: Iterable[str],
    ) -> int:
        """Begin an episode of a rule, unless one goes on, and return how many deliveries are new.

        A destination that an episode was not addressed to yet is added to it, so calling twice is
        as calling once, in one process or in two.

        Raises:
            RunNotFound: the run is not in the archive.
        """
        same = (_C.run_id == run_id) & (_C.rule == rule) & (_C.subject == subject)
        query = select(_C.episode, _C.destination, _C.cleared_at).where(same)
        try:
            with self.writing() as connection:
                only_writer(connection, f"alerts of {run_id}")
                rows = connection.execute(query.order_by(_C.episode.desc())).all()
                episode = 1 if not rows else rows[0].episode + (rows[0].cleared_at is not None)
                addressed = {row.destination for row in rows if row.episode == episode}
                now = _now(connection)
                values = {"run_id": run_id, "rule": rule, "subject": subject, "episode": episode}
                values |= {"time": time.time(), "message": message, "step": step, "due_at": now}
                values |= {"state": DeliveryState.PENDING, "attempts": 0}
                asked = dict.fromkeys(destinations)  # a file may name one twice
                new = [{**values, "destination": d} for d in asked if d not in addressed]
                if new:
                    connection.execute(insert(alert_deliveries), new)
        except IntegrityError:
            raise self._not_found(run_id) from None
        return len(new)

    def clear_alerts(self, run_id: str, gone: Collection[tuple[str, str]]) -> None:
        """End the episodes of a run that go on, of these rules with these subjects."""
        lasting = (_C.run_id == run_id) & _C.cleared_at.is_(None)
        query = select(_C.rule, _C.subject).where(lasting).distinct()
        with self.reading() as connection:  # which is cheap: most of the time there are none
            there = {(row.rule, row.subject) for row in connection.execute(query)}
        if ended := there.intersection(gone):
            chosen = lasting & tuple_(_C.rule, _C.subject).in_(list(ended))
            with self.writing() as connection:
                changed = update(alert_deliveries).where(chosen)
                connection.execute(changed.values(cleared_at=time.time()))

    def deliveries_due_in(self) -> dict[str, float]:
        """Return, by destination, in how many seconds its next delivery is due; negative is late.

        One that somebody has claimed is due when the claim runs out.
        """
        query = select(_C.destination, func.min(_C.due_at)).where(_PENDING)
        with self.reading() as connection:
            rows, now = connection.execute(query.group_by(_C.destination)).all(), _now(connection)
            return {name: due - now for name, due in rows}

    def claim_delivery(self, destination: str, *, seconds: float) -> AlertDelivery | None:
        """Claim the oldest delivery to a destination that is due, and count the attempt.

        Of all processes that try, one gets it; the others may when it is not settled in so many
        seconds.
        """
        with self.writing() as connection:
            now = _now(connection)
            due = (_C.destination == destination) & _PENDING & (_C.due_at <= now)
            oldest = select(alert_deliveries).where(due).order_by(_C.time).limit(1)
            row = connection.execute(oldest.with_for_update(skip_locked=True)).mappings().first()
            if row is None:
                return None
            claim = {"attempts": row["attempts"] + 1, "due_at": now + seconds}
            connection.execute(update(alert_deliveries).where(_this(row)).values(claim))
            return _delivery({**row, **claim})

    def settle_delivery(self, claimed: AlertDelivery, failure: str | None = None) -> None:
        """Record that a claimed delivery succeeded or, given a failure, will not be tried again.

        A success counts even if the claim ran out meanwhile, a failure only while it holds.
        """
        state = DeliveryState.DELIVERED if failure is None else DeliveryState.FAILED
        chosen = _of_claim(claimed) if failure else _this(_key_of(claimed)) & _PENDING
        values = {"state": state, "settled_at": time.time(), "due_at": None, "failure": failure}
        with self.writing() as connection:
            connection.execute(update(alert_deliveries).where(chosen).values(values))

    def postpone_delivery(self, claimed: AlertDelivery, *, seconds: float, failure: str) -> None:
        """Let a claimed delivery that did not succeed be tried again in so many seconds."""
        with self.writing() as connection:
            values = {"due_at": _now(connection) + seconds, "failure": failure}
            changed = update(alert_deliveries).where(_of_claim(claimed)).values(values)
            connection.execute(changed)

    def give_up_deliveries(self, destination: str, *, overdue: float, failure: str) -> int:
        """Record that deliveries which nobody claimed for so many seconds will not be tried again.

        Returns:
            How many there were.
        """
        with self.writing() as connection:
            late = _C.due_at <= _now(connection) - overdue
            changed = update(alert_deliveries).where(
                (_C.destination == destination) & _PENDING & late
            )
            values = {"state": DeliveryState.FAILED, "settled_at": time.time(), "due_at": None}
            return connection.execute(changed.values(values | {"failure": failure})).rowcount

    def deliveries(self, run_id: str | None = None, *, last: int = 200) -> list[AlertDelivery]:
        """Return the deliveries of the newest alerts, newest first, of one run or of all."""
        order = (_C.time.desc(), _C.run_id, _C.rule, _C.subject, _C.destination)
        query = select(alert_deliveries).order_by(*order).limit(last)
        if run_id is not None:
            query = query.where(_C.run_id == run_id)
        with self.reading() as connection:
            return [_delivery(row) for row in connection.execute(query).mappings()]


def _now(connection: Connection) -> float:
    """Return the time by the clock of the database; a file is read and written on one machine."""
    if connection.dialect.name == "sqlite":
        return time.time()
    epoch = select(func.extract("epoch", func.clock_timestamp()))
    return float(connection.execute(epoch).scalar_one())


def _key_of(claimed: AlertDelivery) -> dict[str, Any]:
    return {key.name: getattr(claimed, key.name) for key in alert_deliveries.primary_key}


def _this(row: Any) -> ColumnElement[bool]:
    return and_(*(key == row[key.name] for key in alert_deliveries.primary_key))


def _of_claim(claimed: AlertDelivery) -> ColumnElement[bool]:
    """The delivery, as long as nobody settled it or claimed it anew."""
    return _this(_key_of(claimed)) & _PENDING & (_C.attempts == claimed.attempts)


def _delivery(row: Any) -> AlertDelivery:
    return AlertDelivery(**{**row, "state": DeliveryState(row["state"])})
