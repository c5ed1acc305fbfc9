"""``python -m advisor plan``: the short runs to make in TRL, verl, prime-rl … that calibrate it."""

import argparse
import shlex
from typing import Any

from storage.commandline import BadInput, print_json, tell
from storage.importers.snippets import settings
from storage.importers.stacks import Stack, stack_named
from storage.importers.staleness import largest_knob
from storage.importers.wanted import WANTED, Wanted, lacking, supported
from storage.words import counted
from trainer.config import TrainerConfig, checked_config

from .literature import published_runs
from .plan import Plan, PlannedRun, plan
from .wording import rate as written

UNUSED_RATE = 1e-6
MOST_PARAMETERS = 1e15
ONE_RUN_HOLDS_EVERY_AGE = ("trl",)
"""Its rollouts age from 0 to S again and again."""


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add the stack, the setting, and what may be known of it."""
    parser.add_argument("--stack", metavar="X", help=" | ".join(supported()))
    parser.add_argument("--max-staleness", metavar="S", help="S in learner steps")
    parser.add_argument("--steps", metavar="T", help="planned horizon in learner steps")
    parser.add_argument("--learning-rate", metavar="X", help="your own rate (published bracket)")
    parser.add_argument("--model-parameters", metavar="N", help="size of the model, such as 7e9")
    parser.add_argument("--clip-epsilon", metavar="X", help="clip range below 1 (0.2)")
    parser.add_argument("--clip-epsilon-high", metavar="X", help="clip range above 1 (as below)")
    parser.add_argument("--group-size", metavar="N", help="rollouts per prompt (8)")
    parser.add_argument("--prompts", metavar="N", help="prompts per learner step (16)")
    parser.add_argument("--group", metavar="G", help="group of the imported runs (plan-STACK)")


def run(options: argparse.Namespace) -> int:
    """Carry out ``plan`` and return its exit code; nothing is read or written besides."""
    faults = [
        f"{name}: not given; say --{name.replace('_', '-')}"
        for name in ("stack", "max_staleness", "steps")
        if getattr(options, name) is None
    ]
    if faults:
        raise BadInput(*faults)
    stack = _stack(options.stack)
    setting = _setting(options)
    parameters = _parameters(options.model_parameters)
    group = options.group or f"plan-{stack.name}"
    if setting.max_staleness and largest_knob(stack, setting.max_staleness) is None:
        raise BadInput(
            f"max_staleness: {setting.max_staleness} is not allowed; allowed: 0, or what "
            f"{stack.knob} of {stack.title} can express, at least {_least(stack)}"
        )
    found = plan(
        setting,
        own_rate=setting.learning_rate if options.learning_rate is not None else None,
        ages_vary=stack.name in ONE_RUN_HOLDS_EVERY_AGE,
        published=published_runs(),
    )
    answer = _answer(found, stack, setting, parameters, group)
    if options.json:
        print_json(answer)
    else:
        tell(_text(answer))
    return 0


def _stack(name: str) -> Stack:
    stack = stack_named(name.replace("-", "_"))
    if stack.name not in supported():
        raise BadInput(
            f"stack: {name!r} is not allowed; allowed: {' | '.join(supported())}; "
            f"{lacking(stack.name)}"
        )
    return stack


def _setting(options: argparse.Namespace) -> TrainerConfig:
    names = (
        *("max_staleness", "steps", "clip_epsilon", "clip_epsilon_high"),
        *("group_size", "prompts", "learning_rate"),
    )
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return checked_config({"learning_rate": UNUSED_RATE, **given})


def _parameters(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1 <= number <= MOST_PARAMETERS:
        raise BadInput(
            f"model_parameters: {text!r} is not allowed; allowed: a number from 1 to 1e15"
        )
    return int(number)


def _least(stack: Stack) -> int:
    return stack.learner_steps(stack.knob_low, dict.fromkeys(stack.companions, 1.0))


def _answer(
    found: Plan, stack: Stack, setting: TrainerConfig, parameters: int | None, group: str
) -> dict[str, Any]:
    wanted = WANTED[stack.name]
    answer: dict[str, Any] = {
        "stack": stack.name,
        "max_staleness": setting.max_staleness,
        "steps": setting.steps,
        "model_parameters": parameters,
        "rates_from": found.rates_from,
        "learner_steps": found.learner_steps,
        "runs": [_run(each, stack, setting, parameters, group) for each in found.runs],
        "metrics": {"clip": list(wanted.clip), "drift": wanted.drift, "age": wanted.age},
        "metrics_note": wanted.lacks or "the log holds all that is needed",
        "log_file": wanted.log_file,
        "recommend": f"python -m advisor recommend --group {shlex.quote(group)} --max-staleness "
        f"{setting.max_staleness} --steps {setting.steps}",
    }
    if parameters is None:
        answer["model_parameters_reason"] = (
            "not given; without it the clip criterion of models of 10 million parameters and more "
            "holds"
        )
    for name in ("drift", "age"):
        if answer["metrics"][name] is None:
            answer["metrics"][f"{name}_reason"] = f"{stack.title} logs none"
    return answer


def _run(
    each: PlannedRun, stack: Stack, setting: TrainerConfig, parameters: int | None, group: str
) -> dict[str, Any]:
    knob = largest_knob(stack, each.max_staleness) or {}
    realised = stack.learner_steps(knob[stack.knob], knob) if knob else 0
    wanted = WANTED[stack.name]
    return {
        "name": each.name,
        "learning_rate": each.learning_rate,
        "max_staleness": realised,
        "steps": each.steps,
        "why": each.why,
        "settings": settings(
            stack.name,
            learning_rate=each.learning_rate,
            max_staleness=each.max_staleness,
            steps=each.steps,
            clip_epsilon=setting.epsilon_low,
            clip_epsilon_high=setting.epsilon_high,
            group_size=setting.group_size,
            prompts=setting.prompts,
            beside=_beside(wanted, each),
        ),
        "import": _import(each, stack, setting, parameters, group, realised, knob),
    }


def _beside(wanted: Wanted, each: PlannedRun) -> dict[str, str]:
    """Return what else the stack is to be told: to log every step, and to save at the last one."""
    beside = dict(wanted.settings)
    if "save_strategy" in beside:
        beside["save_steps"] = str(each.steps)
    return beside


def _import(
    each: PlannedRun,
    stack: Stack,
    setting: TrainerConfig,
    parameters: int | None,
    group: str,
    realised: int,
    knob: dict[str, float],
) -> str:
    told: dict[str, Any] = {
        "learning_rate": each.learning_rate,
        "max_staleness": realised,
        "steps": each.steps,
        "clip_epsilon": setting.epsilon_low,
        "clip_epsilon_high": setting.epsilon_high,
        "group_size": setting.group_size,
        "prompts": setting.prompts,
        **({"parameters": parameters} if parameters is not None else {}),
        **{name: f"{value:g}" for name, value in knob.items() if name in stack.companions},
        **WANTED[stack.name].told,
    }
    pairs = " ".join(f"{name}={value}" for name, value in told.items())
    return (
        f"python -m storage import LOG --stack {stack.name} --group {shlex.quote(group)} "
        f"--name {each.name} --set {pairs}"
    )


def _text(answer: dict[str, Any]) -> str:
    lines = [
        f"{counted(len(answer['runs']), 'run')}, {answer['learner_steps']} learner steps together; "
        f"rates from {answer['rates_from']}."
    ]
    for number, each in enumerate(answer["runs"], start=1):
        lines += [
            "",
            f"{number}. {each['name']}: η = {written(each['learning_rate'])}, S = "
            f"{each['max_staleness']}, {counted(each['steps'], 'step')}; {each['why']}",
            "",
            *(f"    {line}" for line in each["settings"].splitlines()),
        ]
    metrics = answer["metrics"]
    keys = [key for key in (*metrics["clip"], metrics["drift"], metrics["age"]) if key]
    lines += [
        "",
        f"The log must hold {', '.join(keys)}, the learning rate and the reward, at every step: "
        f"{answer['metrics_note']}.",
        f"Then import each log ({answer['log_file']}) in place of LOG, and ask:",
        "",
        *(f"    {each['import']}" for each in answer["runs"]),
        f"    {answer['recommend']}",
    ]
    return "\n".join(lines)
