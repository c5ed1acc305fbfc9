"""How a learner step's time and memory grow: ``python -m benchmarks.growth [--short] [--json]``.

One quantity is varied at a time around a middle setting: the batch, the length of responses, the
model and S. Time is that of Etalon's whole step in lockstep, every always-on metric included, with
random weights, completions that never end and the share of digits as reward. The settings of one
quantity take turns, forwards and backwards, and each gives its median over the turns, so that a
machine that slows down slows all of them. The exponent is the least-squares slope of log time over
log quantity. Memory is what the tensors hold that a learner keeps from step to step, once S has
come into play, in units of one snapshot (the weights in fp32).
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.measuring import NEVER
from trainer.config import checked_config
from trainer.lockstep import Lockstep
from trainer.policy import parameter_count
from trainer.precision import saved_form
from trainer.rollout import Task
from trainer.workloads.arithmetic import VOCABULARY, build_tokenizer, sample_prompts

UNSPEAKABLE = -1e9
"""Added to the logit of the end, so that every completion has the full length."""
GROUP_SIZE = 8
HEAD = 32


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a step's cost depends on: width and depth of the model, P·G rows of ``tokens``, S."""

    width: int = 128
    layers: int = 4
    rows: int = 64
    tokens: int = 8
    max_staleness: int = 3
    schedule: str = "cyclic"
    precision: str = "fp32"
    lora_rank: int | None = None


MIDDLE = Setting()
ROWS = (16, 32, 64, 128, 256)
TOKENS = (4, 8, 16, 32, 64)
MODELS = ((128, 4), (256, 4), (320, 8), (576, 8), (896, 8))
STALENESSES = (1, 3, 7, 15, 31)


def varied() -> dict[str, list[Setting]]:
    """Return, for each quantity, the settings it is varied over."""
    return {
        "rollouts of a batch": [replace(MIDDLE, rows=rows) for rows in ROWS],
        "tokens of a response": [replace(MIDDLE, tokens=tokens) for tokens in TOKENS],
        "parameters": [replace(MIDDLE, width=width, layers=layers) for width, layers in MODELS],
        "S": [replace(MIDDLE, max_staleness=each) for each in STALENESSES],
    }


def share_of_digits(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Reward what random weights earn in different amounts."""
    return [sum(map(str.isdigit, each)) / max(1, len(each)) for each in completions]


def learner_of(setting: Setting, folder: Path, device: str) -> Lockstep:
    """Return a learner on a random model that never ends a completion."""
    model: Any = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(VOCABULARY),
            hidden_size=setting.width,
            intermediate_size=4 * setting.width,
            num_hidden_layers=setting.layers,
            num_attention_heads=setting.width // HEAD,
            num_key_value_heads=setting.width // HEAD,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    config = checked_config(
        {
            "learning_rate": 1e-5,
            "max_staleness": setting.max_staleness,
            "schedule": setting.schedule,
            "steps": NEVER,
            "prompts": setting.rows // GROUP_SIZE,
            "group_size": GROUP_SIZE,
            "device": device,
            "precision": setting.precision,
            "lora_rank": setting.lora_rank,
        }
    )
    task = Task(
        name="growth",
        chance_reward=None,
        max_new_tokens=setting.tokens,
        sample_prompts=sample_prompts,
        rewards=share_of_digits,
    )
    learner = Lockstep("growth", config, task, folder)
    for policy in (learner.policy, learner.behavior_policy):
        _never_end(saved_form(policy), learner.tokenizer.eos_token_id)
    learner.evaluate(0, 64)
    return learner


def _never_end(policy: Any, end: int) -> None:
    shift = torch.zeros(len(VOCABULARY), device=policy.device)
    shift[end] = UNSPEAKABLE
    policy.lm_head.register_forward_hook(lambda *called: called[-1] + shift)


def seconds_of(settings: Sequence[Setting], device: str, turns: int, most: float) -> list[Any]:
    """Return of each setting the parameters, the seconds of a step, and how many were taken.

    ``most`` is about how many seconds a setting may have in a turn.
    """
    with tempfile.TemporaryDirectory() as name:
        learners = [
            learner_of(each, Path(name) / str(i), device) for i, each in enumerate(settings)
        ]
        steps = [0] * len(learners)
        taken: list[list[float]] = [[] for _ in learners]
        for turn in range(turns + 1):
            order = range(len(learners))
            for i in order if turn % 2 else reversed(order):
                begun = time.perf_counter()
                while time.perf_counter() - begun < most:
                    started = time.perf_counter()
                    learners[i].learner_step(steps[i])
                    steps[i] += 1
                    if turn > 0:  # the first warms up
                        taken[i].append(time.perf_counter() - started)
        return [
            {
                "parameters": parameter_count(learner.policy),
                "seconds": statistics.median(each),
                "steps": len(each),
            }
            for learner, each in zip(learners, taken, strict=True)
        ]


def exponent(quantities: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the least-squares slope of log seconds over log quantity."""
    return float(np.polyfit(np.log(quantities), np.log(seconds), 1)[0])


def kept_snapshots(schedule: str, max_staleness: int, device: str) -> float:
    """Return what a learner keeps from step to step, in snapshots, after S has come into play."""
    setting = replace(MIDDLE, max_staleness=max_staleness, schedule=schedule, tokens=4, rows=16)
    with tempfile.TemporaryDirectory() as name:
        learner = learner_of(setting, Path(name), device)
        learner.meter = _bare_meter(learner)
        for step in range(2 * max_staleness + 2):
            learner.learner_step(step)
        state = learner.schedule.state_dict()
        size = learner.weights.vector.numel() * learner.weights.vector.element_size()
        return sum(_bytes_by_storage(state).values()) / size


def _bare_meter(learner: Lockstep) -> Any:
    from benchmarks.measuring import Silent

    return Silent("growth", learner.config, learner.objective, learner.policy, learner.weights)


def _bytes_by_storage(state: Any) -> dict[int, int]:
    """Return the bytes of every tensor in a nested state; shared memory counts once."""
    if isinstance(state, torch.Tensor):
        storage = state.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    if isinstance(state, Mapping):
        state = list(state.values())
    found: dict[int, int] = {}
    if isinstance(state, (list, tuple)):
        for each in state:
            found |= _bytes_by_storage(each)
    return found


def measure(device: str, turns: int, most: float, *, short: bool) -> dict[str, Any]:
    """Vary every quantity; ``short`` leaves out every second value."""
    found: dict[str, Any] = {}
    for name, settings in varied().items():
        chosen = settings[::2] if short else settings
        timed = seconds_of(chosen, device, turns, most)
        quantity = {
            "rollouts of a batch": [each.rows for each in chosen],
            "tokens of a response": [each.tokens for each in chosen],
            "parameters": [each["parameters"] for each in timed],
            "S": [each.max_staleness for each in chosen],
        }[name]
        seconds = [each["seconds"] for each in timed]
        found[name] = {
            "values": quantity,
            "ms": [round(1000 * each, 2) for each in seconds],
            "steps": [each["steps"] for each in timed],
            "exponent": round(exponent(quantity, seconds), 3),
            "last_exponent": round(exponent(quantity[-2:], seconds[-2:]), 3),
        }
        print(name, json.dumps(found[name]), file=sys.stderr)
    found["snapshots"] = {
        schedule: {
            str(each): round(kept_snapshots(schedule, each, device), 2)
            for each in (STALENESSES[::2] if short else STALENESSES)
        }
        for schedule in ("cyclic", "constant")
    }
    return found


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as two Markdown tables."""
    lines = [
        "| quantity | values | ms of a step | exponent | of the last two |",
        "|---|---|---|---|---|",
    ]
    for name in varied():
        row = found[name]
        values, times = (", ".join(f"{each:,}" for each in row[key]) for key in ("values", "ms"))
        lines.append(
            f"| {name} | {values} | {times} | {row['exponent']} | {row['last_exponent']} |"
        )
    kept = found["snapshots"]
    lines += ["", f"| snapshots kept, S = | {' | '.join(kept['cyclic'])} |"]
    lines.append("|---" * (1 + len(kept["cyclic"])) + "|")
    for schedule, values in kept.items():
        lines.append(f"| {schedule} | {' | '.join(map(str, values.values()))} |")
    return "\n".join(lines)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a setting in a turn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--short", action="store_true", help="every second value only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.device, options.turns, options.seconds, short=options.short)
    print(json.dumps(found) if options.json else table(found))


if __name__ == "__main__":
    main()
