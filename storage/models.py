"""The tables of an archive.

Column names that other tools may rely on: ``runs.id``, ``runs.status``, ``runs.pid``,
``steps.run_id``, ``steps.step``. The columns of ``runs`` and ``steps`` are those of the records of
the same name, so a quantity is declared in ``records.py`` and, explicitly, in a migration.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

from .records import AlertDelivery, BiasProbe, LagDrift, RunInfo, Sample, StepMetrics

SCHEMA_REVISION = "0007"
"""The newest migration; a test holds it against the migration scripts."""

metadata = MetaData()


class FactJSON(TypeDecorator[Any]):
    """JSON text that every database accepts and that keeps NaN, inf and -inf as facts.

    Python would write the bare words NaN and Infinity, which PostgreSQL and strict readers refuse.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        """Encode a value for the database; None stays NULL."""
        if value is None:
            return None
        try:
            return _encode(value)
        except (TypeError, ValueError):  # a mapping that is no dict, or a number JSON has not
            return _encode(tagged(value))

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """Decode a value from the database."""
        return None if value is None else _decode(value)


def tagged(value: Any) -> Any:
    """Return a value with {"$float": "nan"} for NaN, likewise for inf and -inf: plain JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, Mapping):
        return {str(key): tagged(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tagged(item) for item in value]
    return value


def _untagged(value: dict[str, Any]) -> Any:
    return float(value["$float"]) if value.keys() == {"$float"} else value


_encode = json.JSONEncoder(allow_nan=False).encode
_decode = json.JSONDecoder(object_hook=_untagged).decode

_TYPES: dict[Any, Any] = {
    "str": Text,
    "float": Float,
    "int": Integer,
    "bool": Boolean,
    "Mapping": FactJSON,
    "RunStatus": Text,
    "DeliveryState": Text,
}
_LONG = BigInteger().with_variant(Integer, "sqlite")
_LONG_COLUMNS = ("parameters", "tokens")
"""What a large model's count does not fit into the 32 bits that PostgreSQL gives an integer."""


def _columns_of(record: type, skip: tuple[str, ...]) -> list[Column[Any]]:
    """One typed column per field of a record; fields that may be None are nullable."""
    columns: list[Column[Any]] = []
    for item in fields(record):
        if item.name in skip:
            continue
        written = item.type if isinstance(item.type, str) else _written(item.type)
        kind = written.split("[")[0].split(" | ")[0]
        optional = "None" in written or kind == "Mapping"
        of_type = _LONG if item.name in _LONG_COLUMNS else _TYPES[kind]
        columns.append(Column(item.name, of_type, nullable=optional))
    return columns


def _written(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation)).replace("collections.abc.", "")


runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    *_columns_of(RunInfo, skip=("id",)),
    Column("non_finite", FactJSON),
    Index("runs_by_status", "status"),
)

steps = Table(
    "steps",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    *_columns_of(StepMetrics, skip=("run_id", "step")),
    Column("non_finite", FactJSON),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("time", Float, nullable=False),
    Column("rollouts", Integer, nullable=False),
    Column("reward", Float),
    Column("reward_std", Float),
    Column("gold", Float),
    Column("non_finite", FactJSON),
)

drifts = Table(
    "drifts",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("lag", Integer, primary_key=True, autoincrement=False),
    *_columns_of(LagDrift, skip=("run_id", "step", "lag")),
    Column("non_finite", FactJSON),
)

bias_probes = Table(
    "bias_probes",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("staleness", Integer, primary_key=True, autoincrement=False),
    Column("correction", String(16), primary_key=True),
    *_columns_of(BiasProbe, skip=("run_id", "step", "staleness", "correction")),
    Column("non_finite", FactJSON),
)

samples = Table(
    "samples",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    *_columns_of(Sample, skip=("run_id", "step", "number")),
    Column("non_finite", FactJSON),
)

rollups = Table(
    "rollups",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("metric", String(32), primary_key=True),
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("low", Float),
    Column("low_step", Integer),
    Column("high", Float),
    Column("high_step", Integer),
    Column("mean", Float),
    Column("not_finite_step", Integer),
)

tags = Table(
    "tags",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", String(64), primary_key=True),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("step", Integer),
    Column("time", Float, nullable=False),
    Column("level", String(16), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", FactJSON),
)

_ALERT_KEY = ("run_id", "rule", "subject", "episode", "destination")

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("rule", String(64), primary_key=True),
    Column("subject", String(64), primary_key=True),
    Column("episode", Integer, primary_key=True, autoincrement=False),
    Column("destination", String(64), primary_key=True),
    *_columns_of(AlertDelivery, skip=_ALERT_KEY),
    Index("alert_deliveries_by_state", "state"),
)

calibrations = Table(
    "calibrations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("time", Float, nullable=False),
    Column("setting", FactJSON, nullable=False),
    Column("segments", FactJSON, nullable=False),
    Column("run_ids", FactJSON, nullable=False),
    Column("learner_steps", Integer, nullable=False),
    Column("cost_steps", Float, nullable=False),
    Column("seconds", Float, nullable=False),
)

recommendations = Table(
    "recommendations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("question", FactJSON, nullable=False),
    Column("answer", FactJSON, nullable=False),
    Column("evidence", FactJSON, nullable=False),
)
