"""The setting of an imported run as a person tells it: ``learning_rate=1e-6``, or a stack's name.

A log says little of the configuration that made it. Names are those of Etalon's own settings or
the stack's options; the stack's staleness setting, also written ``knob``, is converted to learner
steps.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..commandline import BadInput, is_text
from .stacks import STACKS, Stack
from .staleness import completed, staleness_of

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
        BadInput: one line per setting that is out of range or looks mistyped.
    """
    ours, companions, config = _names(stack), {}, {}
    knob: float | None = None
    faults: list[str] = []
    for written, value in settings.items():
        name, parsed = ours.get(written, written), _parsed(value)
        is_number = isinstance(parsed, int | float) and not isinstance(parsed, bool)
        if stack and name in stack.companions and is_number:
            companions[name] = float(parsed)
        elif stack and is_number and "knob" in (written, name):
            knob = float(parsed)
        elif fault := _fault(name, parsed):
            faults.append(fault)
        else:
            config[name] = parsed
    if faults:
        raise BadInput(*faults)
    if stack is not None:
        companions = completed(stack, companions)
        if knob is not None:
            if "max_staleness" in config:
                raise BadInput(f"max_staleness: given twice, also as {stack.knob}; give it once")
            config["max_staleness"] = staleness_of(stack, knob, companions)
    return config, companions


def config_held(found: Mapping[str, Any], stack: Stack | None) -> dict[str, Any]:
    """Return what a log itself holds of the setting, as ``config_told`` takes it.

    Only options that the stack's table names, with numbers that are allowed; all else is left.

    Args:
        found: the stack's own configuration, nested or with dots.
        stack: the stack that wrote the log.
    """
    if stack is None:
        return {}
    ours = _names(stack) | {stack.knob: "knob"}
    plain = {option.lstrip("-").replace("-", "_"): meant for option, meant in ours.items()}
    held: dict[str, Any] = {}
    for name, value in _flat(found):
        meant = ours.get(name, plain.get(name))
        number = _parsed(value)
        if meant is None or isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if meant in _RANGES:
            allowed = _fault(meant, number) is None
        else:
            allowed = (stack.knob_low if meant == "knob" else 1e-9) <= number < math.inf
        if allowed:  # TensorBoard and others keep every number as a float
            held[meant] = int(number) if number == int(number) else number
    return held


def _flat(found: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def told_staleness(names: Iterable[str]) -> bool:
    """Whether one of these names tells the staleness, in learner steps or in a stack's unit."""
    knobs = {each.knob for each in STACKS.values()}
    last = {knob.lstrip("-").rpartition(".")[2] for knob in knobs}
    return not {"knob", "max_staleness", *knobs, *last}.isdisjoint(names)


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
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and low <= value <= high and not (whole and value != int(value)):
            return None
        return f"{name}: {value!r} is not allowed; allowed: {allowed}"
    if near := get_close_matches(name, _RANGES, n=1, cutoff=0.8):
        return f"{name}: not a setting; did you mean {near[0]}?"
    if not name.isidentifier() or name in ("knob", "updates_per_batch"):
        return f"{name}: not a setting here; allowed: {', '.join(_RANGES)}, or another of a run"
    is_fit = math.isfinite(value) if isinstance(value, float) else is_text(str(value))
    if not is_fit:
        return f"{name}: {value!r} is not allowed; allowed: a finite number or a word"
    return None
