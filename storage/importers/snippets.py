"""A setting in a stack's own option names, to be copied into its configuration or command line."""

from collections.abc import Mapping
from itertools import groupby

from .stacks import Stack, stack_named
from .staleness import largest_knob

TOKEN_CLIPPED = ("grpo", "dr_grpo")


def settings(
    stack: str,
    *,
    learning_rate: float,
    max_staleness: int,
    steps: int,
    clip_epsilon: float | None = 0.2,
    clip_epsilon_high: float | None = None,
    loss: str = "grpo",
    group_size: int = 8,
    prompts: int = 16,
    beside: Mapping[str, str] | None = None,
) -> str:
    """Return the lines that make a stack train with this setting.

    What the stack cannot express, and what must be checked by eye, stands in comment lines.

    Args:
        stack: name in ``STACKS``.
        learning_rate: rate of the optimizer.
        max_staleness: S in learner steps; the knob is set to the largest value that keeps it.
        steps: T in learner steps.
        clip_epsilon: clip range of the importance ratio below 1; None where the loss has none.
        clip_epsilon_high: clip range above 1; None as below.
        loss: the objective; stacks name the clip ranges of grpo and dr_grpo alone alike.
        group_size: rollouts per prompt.
        prompts: prompts per learner step.
        beside: further options of the stack with their values, as it writes them.

    Raises:
        BadInput: the stack is unknown, or S is out of range.
    """
    this = stack_named(stack)
    comments = [f"{this.title}: rate {_number(learning_rate)}, S = {max_staleness} learner steps"]
    options: dict[str, str] = {this.learning_rate: _number(learning_rate)}
    high = clip_epsilon if clip_epsilon_high is None else clip_epsilon_high
    values: list[tuple[str, float]] = [("group_size", group_size), ("steps", steps)]
    if clip_epsilon is not None and high is not None and loss in TOKEN_CLIPPED:
        values = [("clip_epsilon_low", clip_epsilon), ("clip_epsilon_high", high), *values]
    if loss != "grpo":
        ends = [_number(end) for end in (clip_epsilon, high) if end is not None]
        comments.append(f"set the loss {loss} by hand, with its clip range {' and '.join(ends)}")
    for name, value in values:
        option = getattr(this, name)
        if option is None:
            comments.append(f"{name} {_number(value)}: {this.unknown[name]}")
        elif option in this.placeless:
            comments.append(f"set {option} to {_number(value)}, at its place in the configuration")
        else:
            options[option] = _number(value)
    # OpenRLHF has one option for both sides, and another for each
    if this.name == "openrlhf" and loss in TOKEN_CLIPPED:
        comments = [line for line in comments if not line.startswith("clip_epsilon_high")]
        if high != clip_epsilon and clip_epsilon is not None and high is not None:
            options.pop(str(this.clip_epsilon_low))
            options["--actor.eps_clip_low_high"] = f"{_number(clip_epsilon)} {_number(high)}"
    _add_staleness(this, max_staleness, options, comments)
    options.update(beside or {})
    comments.append(f"one optimizer update is to take {prompts} prompts × {group_size} rollouts")
    return "\n".join([*(f"# {line}" for line in comments), *_written(this, options)]) + "\n"


def _add_staleness(
    stack: Stack, staleness: int, options: dict[str, str], comments: list[str]
) -> None:
    found = largest_knob(stack, staleness)
    if found is None:
        comments.append(f"S = {staleness} cannot be had with {stack.knob}; train synchronously")
        return
    realised = stack.learner_steps(found[stack.knob], found)
    if realised < staleness:
        comments.append(f"the next lower S that {stack.knob} can express is {realised}")
    comments.append(f"{stack.knob} counts {stack.knob_unit}")
    options.update(stack.settings_beside)
    for name, value in found.items():
        if name in stack.companions and not stack.companions[name].is_option:
            comments.append(f"holds for {_number(value)} {stack.companions[name].words}")
        else:
            options[name] = _number(value)


def _written(stack: Stack, options: Mapping[str, str]) -> list[str]:
    if stack.syntax == "python":
        inside = [f"    {name}={value}," for name, value in options.items()]
        return [f"{stack.callee}(", *inside, ")"]
    if stack.syntax == "toml":
        return _toml(options)
    join = "=" if stack.syntax == "overrides" else " "
    lines = [f"{name}{join}{value}".rstrip() for name, value in options.items()]
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _toml(options: Mapping[str, str]) -> list[str]:
    """Write dotted names as tables; what belongs to none comes first, as TOML asks."""
    split = sorted((*name.rpartition(".")[::2], value) for name, value in options.items())
    lines: list[str] = []
    for table, members in groupby(split, key=lambda each: each[0]):
        if table:
            lines += ["", f"[{table}]"]
        lines += [f"{name} = {value}" for _, name, value in members]
    return lines


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.15g}"
