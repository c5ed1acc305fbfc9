"""What a person asks on Advise: fields bound to the page's address, so a link is a question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
from pydantic import ValidationError

from advisor.advice import Question
from advisor.answer import ask, calibration_of, fitting_calibration, gather, learned_from
from advisor.dashboard.config_form import label_and_help, linked_fields
from advisor.measured import Measured
from advisor.run_facts import RunFacts
from advisor.stored_facts import config_of
from advisor.wording import chance, shortened
from storage.commandline import BadInput
from storage.errors import StorageError
from storage.importers.stacks import STACKS
from storage.importers.staleness import MOST_STALENESS, largest_knob, staleness_of
from storage.records import Calibration, RunInfo
from storage.store import Store
from trainer.config import TrainerConfig, changed

DEFAULTS = {"workload": "arithmetic", "max_staleness": 3, "steps": 300}
MORE = (
    "loss",
    "clip_epsilon",
    "clip_epsilon_high",
    "prompts",
    "group_size",
    "optimizer",
    "hidden_size",
    "layers",
    "schedule",
)
RISKS = (0.02, 0.05, 0.10, 0.30)
UNSAFE = "Unsafe: collapsed, diverged, or ended worse than it began."
SOURCES = {
    "best": "Probe, else runs, else published",
    "archive": "Runs, else published settings",
    "literature": "Published settings only",
}
PROBE, GROUP = "probe ", "group "
LEARNER_STEPS = "learner steps"
LIKE_DEFAULT = "the default setting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with what shall answer it."""

    question: Question
    evidence: Sequence[RunFacts]
    found: Measured | None


def asked(store: Store) -> Asked:
    """Draw the fields and return the question.

    Raises:
        BadInput: something that was entered is not allowed; one line per fault.
    """
    everything = store.runs(archived=False)
    runs = {run.id: run for run in everything if config_of(run) is not None}
    if (given := st.query_params.get("like")) in runs:  # a link may name a run by its id alone
        st.session_state["like"] = given
    first, second, third = st.columns(3)
    like = first.selectbox(
        "setting of",
        [LIKE_DEFAULT, *runs],
        format_func=lambda each: _run_label(runs.get(each), each),
        key="like",
        bind="query-params",
        help="What is left empty below is taken from here.",
    )
    base = _base(runs.get(like))
    risk = second.selectbox(
        "accepted risk of an unsafe run",
        RISKS,
        index=1,
        format_func=chance,
        key="risk",
        bind="query-params",
        help=UNSAFE,
    )
    probes = {PROBE + each.id: each for each in store.calibrations()}
    groups = {GROUP + each: each for each in sorted({run.group for run in everything if run.group})}
    source = third.selectbox(
        "evidence",
        [*SOURCES, *probes, *groups],
        format_func=lambda each: (
            SOURCES.get(each)
            or (_probe_label(probes[each]) if each in probes else f"Runs of {groups[each]}")
        ),
        key="evidence",
        bind="query-params",
        help="A fitting probe, else archived runs of this setting, else published settings.",
    )
    entered, faults = _entered(base)
    try:
        question = ask(settings=changed(base, entered), evidence=(), risk=risk)
    except BadInput as error:
        faults += str(error).splitlines()
    if faults:
        raise BadInput(*faults)
    return _with_evidence(store, question, source)


def _entered(base: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what was filled in, S in learner steps, and what is wrong with S in another unit."""
    places = st.columns(4)
    with places[3]:  # drawn first: what S is called and means depends on it
        unit = st.selectbox(
            "staleness is in",
            [LEARNER_STEPS, *STACKS],
            format_func=_unit_label,
            key="unit",
            bind="query-params",
            help="Stacks count it in versions of the weights, Etalon in learner steps.",
        )
    with places[0]:
        knob = _staleness(base, unit)
    entered: dict[str, Any] = {}
    with places[1]:
        entered |= linked_fields(("steps",), base, columns=1)
    with places[2]:
        hint = {"learning_rate": "to judge; empty: only advise"}
        entered |= linked_fields(("learning_rate",), {}, columns=1, hints=hint)
    with st.expander("The rest of the setting"):
        entered |= linked_fields(MORE, base, columns=3)
    if unit == LEARNER_STEPS or knob is None:
        return entered | ({} if knob is None else {"max_staleness": knob}), []
    stack = STACKS[unit]
    try:
        staleness = staleness_of(stack, float(knob))
    except (ValueError, OverflowError, BadInput):
        staleness = MOST_STALENESS + 1
    if staleness > MOST_STALENESS:
        high = (largest_knob(stack, MOST_STALENESS) or {})[stack.knob]
        allowed = f"allowed: a number from {stack.knob_low} to {high:g}"
        return entered, [f"{stack.knob}: {knob!r} is not allowed; {allowed}"]
    places[0].caption(f"S = {staleness} learner steps")
    return entered | {"max_staleness": staleness}, []


def _staleness(base: Mapping[str, Any], unit: str) -> str | None:
    label, words = label_and_help("max_staleness")
    hint = str(base["max_staleness"])
    if unit in STACKS:
        stack = STACKS[unit]
        label, words = stack.knob.rpartition(".")[2], f"{stack.title}: {stack.knob_unit}"
        hint = f"S = {hint}"
    text = st.text_input(
        label, placeholder=hint, help=words, key="max_staleness", bind="query-params"
    )
    return text.strip() or None


def _with_evidence(store: Store, question: Question, source: str) -> Asked:
    group = source.removeprefix(GROUP) if source.startswith(GROUP) else None
    runs = [] if source == "literature" else gather(store, group=group)
    found: Measured | None
    if source.startswith(PROBE):
        try:
            found = calibration_of(store, source.removeprefix(PROBE))
        except StorageError as error:
            raise BadInput(str(error)) from None
    else:
        found = fitting_calibration(store, question.setting) if source == "best" else None
    learned = None if found is None else learned_from(found, runs)
    return Asked(question=question, evidence=runs, found=learned)


def _base(run: RunInfo | None) -> dict[str, Any]:
    config = None if run is None else config_of(run)
    if config is None:
        return dict(DEFAULTS)
    left_out = ("learning_rate", "seed", "name", "group", "bias_study")
    return {name: v for name, v in config.model_dump().items() if name not in left_out}


def _run_label(run: RunInfo | None, otherwise: str) -> str:
    return otherwise if run is None else f"{shortened(run.name)} · {run.id}"


def _probe_label(probe: Calibration) -> str:
    try:
        setting = TrainerConfig.model_validate(probe.setting)
    except ValidationError:
        return f"Probe by another version ({probe.id})"
    return (
        f"Probe of {setting.workload}, S = {setting.max_staleness}, T = {setting.steps} "
        f"({probe.id})"
    )


def _unit_label(name: str) -> str:
    if name == LEARNER_STEPS:
        return name
    return f"{STACKS[name].title}: {STACKS[name].knob.rpartition('.')[2]}"
