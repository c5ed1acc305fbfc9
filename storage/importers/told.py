"""The setting of an imported run as a person tells it: ``learning_rate=1e-6``, or a stack's name.

A log says little of the configuration that made it. Names are those of Etalon's own settings or
the stack's options; the stack's staleness setting, also written ``knob``, is converted to learner
steps.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..commandline import BadInput, is_text
from .stacks import Stack
from .staleness import (
    MOST_COMPANION,
    MOST_KNOB,
    MOST_STALENESS,
    completed,
    staleness_of,
    within,
)

_RANGES: Mapping[str, tuple[str, bool, float, float]] = {
    "learning_rate": ("0 < learning_rate <= 10", False, 5e-324, 10),
    "max_staleness": ("whole number, 0 <= max_staleness <= 4096", True, 0, 4096),
    "steps": ("whole number, 1 <= steps <= 100000000", True, 1, 100_000_000),
    "clip_epsilon": ("0 < clip_epsilon < 1", False, 5e-324, math.nextafter(1, 0)),
    "clip_epsilon_high": ("0 < clip_epsilon_high <= 100", False, 5e-324, 100),
    "group_size": ("whole number, 2 <= group_size <= 4096", True, 2, 4096),
    "prompts": ("whole number, 1 <= prompts <= 65536", True, 1, 65536),
    "parameters": ("whole number, 1 <= parameters <= 1e15", True, 1, 1e15),
    "seed": ("whole number, 0 <= seed < 2**31", True, 0, 2**31 - 1),
}


def pairs(words: Sequence[str]) -> dict[str, str]:
    """Read words of the form NAME=VALUE.

    Raises:
        BadInput: a word has another form, or a name is given twice.
    """
    found: dict[str, str] = {}
    faults = []
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name or not value:
            faults.append(f"set: {word!r} is not allowed; allowed: NAME=VALUE")
        elif name in found:
            faults.append(f"set: {name} is given twice; give it once")
        found[name] = value
    if faults:
        raise BadInput(*faults)
    return found


def config_told(
    settings: Mapping[str, Any], stack: Stack | None
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the configuration in Etalon's names, and the companions of the stack's knob.

    Raises:
        BadInput: one line per setting that is told twice, out of range, or looks mistyped.
    """
    config = {name: _parsed(value) for name, value in renamed(settings, stack).items()}
    of_staleness = {"knob", *stack.companions} if stack else set()
    beside = {name: config.pop(name) for name in of_staleness & config.keys()}
    if faults := [fault for name, value in config.items() if (fault := _fault(name, value))]:
        raise BadInput(*faults)
    if stack is None:
        return config, {}
    knob = {"knob": beside.pop("knob")} if "knob" in beside else {}
    companions = completed(stack, beside)
    if knob:
        config["max_staleness"] = _learner_steps(stack, knob["knob"], companions)
    return config, companions


def _learner_steps(stack: Stack, knob: float, companions: Mapping[str, float]) -> int:
    """Return S of a knob.

    Raises:
        BadInput: the knob is not allowed, or its S is more than 4096.
    """
    staleness = staleness_of(stack, knob, companions)
    if staleness > MOST_STALENESS:
        raise BadInput(
            f"{stack.knob}: {knob!r} allows an age of {staleness} learner steps; "
            f"allowed: at most {MOST_STALENESS}"
        )
    return staleness


def renamed(settings: Mapping[str, Any], stack: Stack | None) -> dict[str, Any]:
    """Return settings under the names that they have here.

    Raises:
        BadInput: one is told under two names, as S may be in learner steps and by its knob.
    """
    ours, written = _names(stack), dict[str, list[str]]()
    for name in settings:
        meant = ours.get(name, name)
        written.setdefault("max_staleness" if meant == "knob" else meant, []).append(name)
    faults = [
        f"{meant}: given twice, as {' and as '.join(names)}; give it once"
        for meant, names in written.items()
        if len(names) > 1
    ]
    if faults:
        raise BadInput(*faults)
    return {ours.get(name, name): value for name, value in settings.items()}


def config_held(found: Mapping[str, Any], stack: Stack | None) -> tuple[dict[str, Any], list[str]]:
    """Return what a log itself holds of the setting, as ``config_told`` takes it, and notes.

    Only options that the stack's table names, with numbers that are allowed, and those of staleness
    only where the run was asynchronous; the notes say which were left out.

    Args:
        found: the stack's own configuration, nested or with dots.
        stack: the stack that wrote the log.
    """
    if stack is None:
        return {}, []
    ours = _names(stack) | {stack.knob: "knob"}
    flat = {_plain(name): value for name, value in _flat(found)}
    held: dict[str, Any] = {}
    notes: list[str] = []
    for option, meant in ours.items():
        number = _parsed(flat.get(_plain(option)))
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if meant in _RANGES:
            allowed = _fault(meant, number) is None
        else:
            low, high = (stack.knob_low, MOST_KNOB) if meant == "knob" else (1, MOST_COMPANION)
            allowed = within(number, low, high)
            if not allowed:
                what = f"{option} {number!r:.40} of the log is left out"
                notes.append(f"{what}; allowed: {low} to {high}")
        if allowed:  # TensorBoard and others keep every number as a float
            held[meant] = int(number) if number == int(number) else number
    return _in_force(held, flat, stack, notes), notes


def _plain(option: str) -> str:
    """Return an option as the parser of a command line keeps it."""
    return option.lstrip("-").replace("-", "_")


def _in_force(
    held: dict[str, Any], flat: Mapping[str, Any], stack: Stack, notes: list[str]
) -> dict[str, Any]:
    """Return what holds of the settings: those of staleness only where they were in force.

    A configuration is logged whole, so its staleness settings stand there in a synchronous run too.
    """
    beside = {name: held[name] for name in stack.companions if name in held}
    without = {name: value for name, value in held.items() if name != "knob"}
    for option, wanted in stack.settings_beside.items():
        if not _is(flat.get(_plain(option)), wanted):
            if "knob" in held:
                what = f"{stack.knob} of the log is left out"
                notes.append(f"{what}: {option} is not {wanted or 'set'}")
            return {name: value for name, value in without.items() if name not in beside}
    if "knob" in held:
        try:
            _learner_steps(stack, held["knob"], beside)
        except BadInput as fault:
            notes.append(f"left out of what the log holds: {fault}")
            return without
    return held


def _is(value: Any, wanted: str) -> bool:
    """Whether a log holds this value of an option; a flag has none, and torch writes true as 1."""
    if wanted in ("", "true"):
        return value == wanted or bool(_parsed(value) == 1)
    return str(value) == wanted


def _flat(found: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _names(stack: Stack | None) -> dict[str, str]:
    """Return what each name of the stack is called here; ``max_staleness`` is always our own."""
    if stack is None:
        return {}
    names = {
        str(getattr(stack, theirs)): ours
        for theirs, ours in (
            ("learning_rate", "learning_rate"),
            ("clip_epsilon_low", "clip_epsilon"),
            ("clip_epsilon_high", "clip_epsilon_high"),
            ("group_size", "group_size"),
        )
        if getattr(stack, theirs)
    }
    if stack.steps == "max_steps":  # where it counts optimizer updates, that is learner steps
        names["max_steps"] = "steps"
    for option in (stack.knob, *stack.companions):
        meant = "knob" if option == stack.knob else option
        names |= {option: meant, option.lstrip("-").rpartition(".")[2]: meant}
    return {name: meant for name, meant in names.items() if name != "max_staleness"}


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return words[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _fault(name: str, value: Any) -> str | None:
    if name in _RANGES:
        allowed, whole, low, high = _RANGES[name]
        if within(value, low, high) and not (whole and value != int(value)):
            return None
        return f"{name}: {value!r:.60} is not allowed; allowed: {allowed}"
    if near := get_close_matches(name, _RANGES, n=1, cutoff=0.8):
        return f"{name}: not a setting; did you mean {near[0]}?"
    if not name.isidentifier() or name in ("knob", "updates_per_batch"):
        return f"{name}: not a setting here; allowed: {', '.join(_RANGES)}, or another of a run"
    if isinstance(value, int | float):
        is_fit = abs(value) <= sys.float_info.max
    else:
        is_fit = is_text(str(value))
    if not is_fit:
        return f"{name}: {value!r:.60} is not allowed; allowed: a finite number or a word"
    return None
