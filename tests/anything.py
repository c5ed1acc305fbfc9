"""Inputs of every kind for every place where the program reads one, and what must hold there.

Each property is a Hypothesis test that takes an input and fails on any error but the declared one.
``tests/fuzz`` tries some of each; ``tools/fuzz.py`` lets Atheris choose them by coverage.
"""

import io
import json
import math
import sqlite3
import tempfile
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import streamlit
from factories import a_config, fill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import PATIENCE, PROJECT
from states import collapsed, healthy
from streamlit.testing.v1 import AppTest

from advisor.answer import ask, consider, gather
from advisor.run_facts import RunFacts
from storage.commandline import BadInput, Parser, parse
from storage.importers.importing import import_file
from storage.importers.keys import MARKS
from storage.importers.metric_names import METRICS
from storage.importers.reading import FORMATS
from storage.importers.stacks import STACKS
from storage.importers.told import config_told, pairs
from storage.store import Store
from trainer.config import TrainerConfig, bounded_config, checked_config, choices_of
from trainer.config_options import add_config_options, config_from_options

MOST_BYTES, MOST_ROWS = 20_000, 300
PARAMETERS = {
    *("run", "runs", "window", "until", "like", "risk", "evidence", "unit", "for", "along"),
    *("max_staleness", "steps", "learning_rate", "loss", "clip_epsilon", "clip_epsilon_high"),
    *("prompts", "group_size", "optimizer", "hidden_size", "layers", "schedule", "search"),
    *("generate_seconds", "learn_seconds", "status", "archived"),
}
"""What the pages read of their address."""
LINKED = {"last 200", "trl", "verl", "best", "literature", "exposure", "gspo", "5%", "true", "lost"}
CODE = ("reward", "reward_model", "model", "prompts_file")
"""Settings that name a person's own code and files: what is found there is theirs."""

numbers = st.one_of(
    st.integers(-2, 70),
    st.integers(),
    st.floats(),
    st.sampled_from([2**31 - 1, 2**31, 2**63, 10**400, 1e308, 5e-324, -0.0, math.nan, math.inf]),
)
texts = st.text(st.characters(), max_size=20)  # halves of surrogate pairs too
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
keys = st.one_of(
    st.sampled_from(
        sorted(
            {key for known in METRICS.values() for key in known}
            | {mark for marks in MARKS.values() for mark in marks}
            | {"step", "train/global_step", "global_step", "progress/batch", "data", "time"}
            | {"timestamp", "log_history", "reward_mean", "learning_rate", "approx_kl"}
        )
    ),
    texts,
)
words = st.one_of(texts, st.one_of(numbers).map(str), st.sampled_from(["", "true", "None", "1e-4"]))


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """Return a log: of one of the formats, of nearly one, or of none."""
    steps = st.integers(0, 40) | scalars
    rows = draw(
        st.lists(st.tuples(steps, st.dictionaries(keys, scalars | values, max_size=6)), max_size=8)
    )
    kinds = ["flat", "nested", "trainer_state", "bytes", "tensorboard", "trackio"]
    kind = draw(st.sampled_from(kinds))
    if kind == "bytes":
        return draw(st.binary(max_size=300))
    if kind == "tensorboard":
        content = event_file(rows)
    elif kind == "trackio":
        content = trackio_project(rows)
    elif kind == "trainer_state":
        history = [{**row, "step": step} for step, row in rows]
        state = {"log_history": history, **draw(st.dictionaries(keys, values, max_size=3))}
        state |= {"max_steps": draw(scalars), "logging_steps": draw(scalars)}
        content = json.dumps(state).encode()
    elif kind == "nested":
        content = "\n".join(json.dumps({"step": s, "data": row}) for s, row in rows).encode()
    else:
        content = "\n".join(json.dumps({"step": step, **row}) for step, row in rows).encode()
    written = bytearray(content)
    for at, byte in draw(
        st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=2)
    ):
        if at < len(written):
            written[at] = byte
    return bytes(written)


def event_file(rows: list[tuple[Any, dict[str, Any]]]) -> bytes:
    """Return TensorBoard events of what can be one: by its own writer."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(event_pb2.Event(file_version="brain.Event:2").SerializeToString())
    for step, row in rows:
        event = event_pb2.Event(step=step if type(step) is int and abs(step) < 2**63 else 0)
        for key, value in row.items():
            tag = key.encode(errors="replace").decode()
            if isinstance(value, float):
                with suppress(OverflowError, ValueError):
                    event.summary.value.add(tag=tag, simple_value=value)
            else:
                event.summary.value.add(tag=tag).tensor.tensor_content = str(value).encode("utf-7")
        writer.write(event.SerializeToString())
    return file.getvalue()


def trackio_project(rows: list[tuple[Any, dict[str, Any]]]) -> bytes:
    """Return a database of trackio's table with what SQLite takes of these rows."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE metrics (run_name, step, metrics, timestamp)")
        for number, (step, row) in enumerate(rows):
            named = "a" if number % 5 else "b"
            with suppress(OverflowError, sqlite3.Error, UnicodeEncodeError):
                values = (named, step, json.dumps(row), str(step))
                database.execute("INSERT INTO metrics VALUES (?, ?, ?, ?)", values)
        database.commit()
        return database.serialize()


def _has_words(fault: BadInput) -> None:
    assert str(fault).strip()


def _is_help(end: SystemExit) -> None:
    assert end.code == 0


@cache
def an_archive() -> Store:
    """Return the archive that these inputs are tried on, with runs to learn from."""
    folder = Path(tempfile.mkdtemp(prefix="etalon-anything-"))
    store = Store.open(str(folder / "archive.db"))
    fill(store, healthy(), steps=40)
    fill(store, healthy("faster", a_config(learning_rate=8e-4)), steps=40, drift=0.2)
    fill(store, collapsed(), steps=40, drift=1.0)
    return store


@cache
def _evidence() -> list[RunFacts]:
    return gather(an_archive())


@given(
    content=st.lists(logs(), min_size=1, max_size=2),
    stack=st.none() | st.sampled_from(sorted(STACKS)),
    format=st.sampled_from(["auto", "auto", "auto", *FORMATS]),
    name=st.none() | texts,
    told=st.dictionaries(
        st.sampled_from(["learning_rate", "max_staleness", "steps", "knob", "clip_epsilon", "seed"])
        | keys,
        words | numbers,
        max_size=2,
    ),
)
def any_log(
    content: list[bytes],
    stack: str | None,
    format: str,
    name: str | None,
    told: dict[str, Any],
) -> None:
    """A log is imported and can be read back, or refused with a reason and leaves nothing."""
    store = an_archive()
    before = len(store.runs())
    try:
        found = import_file(
            store,
            content,
            stack=stack,
            format=format,
            name=name,
            settings=told,
            most_bytes=MOST_BYTES,
            most_rows=MOST_ROWS,
        )
    except BadInput as fault:
        _has_words(fault)
        assert len(store.runs()) == before
        return
    assert len(store.steps(found.run_id)) == found.rows == found.written
    store.delete_run(found.run_id)


@given(
    given=st.dictionaries(
        st.sampled_from(sorted(set(TrainerConfig.model_fields) - set(CODE))) | st.text(max_size=10),
        scalars
        | words
        | st.sampled_from(
            sorted(_ for f in TrainerConfig.model_fields.values() for _ in choices_of(f))
        ),
        max_size=8,
    )
)
def any_configuration(given: dict[str, Any]) -> None:
    """Settings are a configuration that survives being stored, or each fault is one line."""
    required = {"learning_rate": 1e-4, "max_staleness": 3, "steps": 300}
    try:
        config = checked_config(required | given)
    except BadInput as fault:
        _has_words(fault)
        return
    stored = json.loads(json.dumps(config.model_dump(mode="json"), allow_nan=False))
    assert bounded_config(stored) == config


@cache
def _parser() -> Parser:
    parser = Parser(prog="anything")
    add_config_options(parser, skip=CODE)
    return parser


@given(
    argv=st.lists(
        st.sampled_from(
            ["--" + n.replace("_", "-") for n in TrainerConfig.model_fields if n not in CODE]
        )
        | words,
        max_size=8,
    ),
    told=st.lists(words | st.tuples(keys, words).map("=".join), max_size=3),
    stack=st.none() | st.sampled_from(sorted(STACKS)),
)
def any_command_line(argv: list[str], told: list[str], stack: str | None) -> None:
    """Words of a command line are a configuration, or refused."""
    for read in (
        lambda: config_from_options(parse(_parser(), argv)),
        lambda: config_told(pairs(told), STACKS[stack] if stack else None),
    ):
        try:
            read()
        except BadInput as fault:
            _has_words(fault)
        except SystemExit as end:  # --help
            _is_help(end)


@given(
    asked=st.dictionaries(
        st.sampled_from(sorted(set(TrainerConfig.model_fields) - set(CODE))),
        scalars | words,
        max_size=5,
    ),
    plausible=st.fixed_dictionaries(
        {},
        optional={
            "max_staleness": st.integers(0, 4096),
            "steps": st.integers(1, 100_000_000),
            "learning_rate": st.floats(5e-324, 10, exclude_min=False),
            "clip_epsilon": st.floats(5e-324, 1, exclude_max=True),
            "prompts": st.integers(1, 65536),
            "group_size": st.integers(2, 4096),
        },
    ),
    risk=st.sampled_from([0.02, 0.05, 0.3]) | st.floats(),
    with_evidence=st.booleans(),
)
def any_question(
    asked: dict[str, Any], plausible: dict[str, Any], risk: float, with_evidence: bool
) -> None:
    """A question gets a rate that is one, or a reason why not; or it is refused."""
    evidence = _evidence() if with_evidence else []
    try:
        question = ask(settings=plausible | asked, evidence=evidence, risk=risk)
        advice = consider(question, evidence)
    except BadInput as fault:
        _has_words(fault)
        return
    for name in ("max_learning_rate", "suggested_learning_rate", "edge"):
        rate = getattr(advice, name)
        assert rate is None or (math.isfinite(rate) and rate > 0)
    assert advice.max_learning_rate is not None or advice.reasons["max_learning_rate"]
    json.dumps(advice.as_json(), allow_nan=False)


@given(
    page=st.sampled_from(["watch", "advise", "compare", "laws", "runs"]),
    query=st.dictionaries(
        st.sampled_from(sorted(PARAMETERS)) | st.text(min_size=1, max_size=8),
        st.text(max_size=20) | numbers.map(str) | st.sampled_from(sorted(LINKED)),
        max_size=4,
    ),
)
def any_link(page: str, query: dict[str, str]) -> None:
    """A page opens, whatever its address says, and says what is wrong with it."""
    streamlit.cache_resource.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETALON_DB", an_archive().url)
        app = AppTest.from_file(PROJECT / "app.py", default_timeout=PATIENCE)
        for name, value in query.items():
            app.query_params[name] = value
        app.switch_page(f"advisor/dashboard/{page}.py").run()
    streamlit.cache_resource.clear()
    assert not app.exception


PATIENT = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
PROPERTIES = {
    "logs": any_log,
    "configurations": any_configuration,
    "command_lines": any_command_line,
    "questions": any_question,
    "links": any_link,
}
