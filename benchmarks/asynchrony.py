"""What queue mode gains over lockstep in time, and whether it costs anything in learning.

    python -m benchmarks.asynchrony [--rounds N] [--json]       time
    python -m benchmarks.asynchrony --curves [--seeds N]        learning

Time: two learners of one setting take turns, ``STEPS`` learner steps each; a figure is the ratio of
the two wall-clock times, given as the median over the rounds with its quartiles. The setting is one
in which sampling a batch costs about what learning from it costs, which the lockstep rows show:
Qwen2, 64 wide and 2 layers deep, 8 prompts × 8 completions of at most 14 tokens, random weights,
one thread per process. Before its turn each learner takes S + 1 steps that are not counted: the
queue's rollout worker has filled its queue while the other learner had the machine. The most that
could be gained is (generate + learn + measure) / max(generate, learn + measure) with what these
cost in lockstep. Two processes can only be faster than one where there are two cores for them, so
what others took of the machine is watched: rounds in which that was less than a tenth of a core in
both turns are also told by themselves. ``ratio_by_processor_time`` is what two free cores would
make of it if nobody waited: the processor time of the lockstep turn over that of the busier of the
two processes in the other; it says little about waiting and much about what queue mode costs.

Learning: the arithmetic workload in queue mode against lockstep with the constant schedule, whose
staleness is S throughout: here a rollout worker is faster than its learner, so that queue mode
comes to that age too. The reward of the current policy on fresh prompts, for several seeds, and
what the age did to the importance ratios in both.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from storage.engine import home
from storage.records import Evaluation, StepMetrics
from trainer.asynchronous import Asynchronous
from trainer.config import TrainerConfig, checked_config
from trainer.hooks import Hooks
from trainer.learner import Learner
from trainer.lockstep import Lockstep
from trainer.workloads.arithmetic import build_model, build_tokenizer
from trainer.workloads.choice import task_and_start

MAX_STALENESS = 2
STEPS = 20
UNDISTURBED = 0.1
"""Cores that others may use of the machine."""
SETTING = {"learning_rate": 1e-4, "max_staleness": MAX_STALENESS, "steps": 1_000_000, "seed": 0}
SETTING |= {"prompts": 8, "group_size": 8, "max_new_tokens": 14}
DIGITS = """
def judge(prompts, completions, **keys):
    return [sum(sign.isdigit() for sign in each) / 14 for each in completions]
"""
CURVE = {"learning_rate": 4e-4, "max_staleness": 3, "steps": 300, "evaluate_every": 50}
CURVE |= {"evaluation_rollouts": 4096}
KINDS: dict[str, Callable[..., Any]] = {"constant": Lockstep, "queue": Asynchronous}


@contextmanager
def rivals(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Build learners, by name, from one set of weights; each has its changes of ``SETTING``."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model: Any = build_model(64, 2)
        model.save_pretrained(folder / "model")
        build_tokenizer().save_pretrained(folder / "model")
        prompts = [{"prompt": f"{a}+{b}="} for a in range(10, 40) for b in range(10, 40)]
        (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
        (folder / "digits.py").write_text(DIGITS)
        files = {
            "workload": "custom",
            "model": str(folder / "model"),
            "prompts_file": str(folder / "prompts.jsonl"),
            "reward": f"{folder / 'digits.py'}:judge",
        }
        made = {}
        with ExitStack() as ends:
            for name, changes in settings.items():
                config = checked_config({**SETTING, **files, **changes})
                kind = KINDS[config.schedule]
                made[name] = kind("benchmark", config, *task_and_start(config, folder, print))
                if isinstance(made[name], Asynchronous):
                    ends.callback(made[name].close)
                made[name].evaluate(0, 64)
            yield made


def time_spent(rounds: int) -> dict[str, Any]:
    """Let the learners take turns and compare their times; the first round warms up."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    rows: dict[str, list[StepMetrics]] = {kind: [] for kind in KINDS}
    others: list[float] = []
    by_processor: list[float] = []
    with rivals({kind: {"schedule": kind} for kind in KINDS}) as learners:
        for turn in range(rounds + 1):
            used, busiest = [], []
            for kind, learner in learners.items():
                first = turn * (STEPS + MAX_STALENESS + 1)
                for step in range(first, first + MAX_STALENESS + 1):
                    learner.learner_step(step)
                before, busy, started = _others_seconds(), _our_seconds(), time.perf_counter()
                steps = range(first + MAX_STALENESS + 1, first + MAX_STALENESS + 1 + STEPS)
                taken = [learner.learner_step(step) for step in steps]
                spent = time.perf_counter() - started
                used.append((_others_seconds() - before) / spent)
                busiest.append(max(b - a for a, b in zip(busy, _our_seconds(), strict=True)))
                if turn > 0:
                    seconds[kind].append(spent)
                    rows[kind] += taken
            if turn > 0:
                others.append(max(used))
                by_processor.append(busiest[0] / busiest[1])
    ratios = [a / b for a, b in zip(seconds["constant"], seconds["queue"], strict=True)]
    generate = _mean(rows["constant"], "seconds_generate")
    learn = _mean(rows["constant"], "seconds_learn") + _mean(rows["constant"], "seconds_measure")
    return {
        "lockstep_ms_per_step": 1000 * statistics.median(seconds["constant"]) / STEPS,
        "queue_ms_per_step": 1000 * statistics.median(seconds["queue"]) / STEPS,
        "ratio": _spread(ratios),
        "most_possible": (generate + learn) / max(generate, learn),
        "ratio_undisturbed": _spread(
            [ratio for ratio, used in zip(ratios, others, strict=True) if used < UNDISTURBED]
        ),
        "ratio_by_processor_time": _spread(by_processor),
        "cores_used_by_others": _spread(others),
        "ms": {kind: _parts(rows[kind]) for kind in KINDS},
        "staleness": _histogram(rows["queue"]),
        "rollouts_across_versions": statistics.fmean(
            row.extra["rollouts_across_versions"] for row in rows["queue"]
        ),
    }


def learning_curves(seeds: int) -> dict[str, Any]:
    """Train in both ways with each seed; return rewards of the current policy by step."""
    curves: dict[str, dict[int, list[float]]] = {kind: {} for kind in KINDS}
    rows: dict[str, list[StepMetrics]] = {kind: [] for kind in KINDS}
    for seed in range(seeds):
        for schedule, kind in KINDS.items():
            config = checked_config({**CURVE, "schedule": schedule, "seed": seed})
            for evaluation in _trained(kind, config, rows[schedule]):
                curves[schedule].setdefault(evaluation.step, []).append(evaluation.reward)
            print(schedule, seed, {s: r[-1] for s, r in curves[schedule].items()}, file=sys.stderr)
    last = [curves[kind][int(CURVE["steps"])] for kind in ("queue", "constant")]
    apart = [queue - constant for queue, constant in zip(*last, strict=True)]
    return {
        "rewards": curves,
        "queue_minus_lockstep_at_the_end": {
            "mean": statistics.fmean(apart),
            "stderr": statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else None,
        },
        "staleness": {kind: _histogram(rows[kind]) for kind in KINDS},
        **{
            name: {kind: _mean(rows[kind], name) for kind in KINDS}
            for name in ("log_ratio_rms", "ess_fraction", "cycle_drift")
        },
    }


def _trained(
    kind: Callable[..., Learner], config: TrainerConfig, rows: list[StepMetrics]
) -> list[Evaluation]:
    learner = kind("benchmark", config, *task_and_start(config, home(), _silent))
    evaluations: list[Evaluation] = []
    learner.train(
        Hooks(
            on_step=rows.append,
            on_evaluation=evaluations.append,
            stop_requested=lambda: False,
            on_drift=_silent,
            on_bias=_silent,
            on_samples=_silent,
            on_rest=_silent,
        )
    )
    return evaluations


def _silent(*_: Any) -> None:
    pass


def _our_seconds() -> tuple[float, float]:
    """Return the processor time of this process, and of those that it started together."""
    this = psutil.Process()
    own, *others = (each.cpu_times() for each in (this, *this.children()))
    return own.user + own.system, sum(each.user + each.system for each in others)


def _others_seconds() -> float:
    """Return the processor time of everything but this process and those that it started."""
    all_of_them = psutil.cpu_times()
    busy = sum(all_of_them) - all_of_them.idle - getattr(all_of_them, "iowait", 0.0)
    return float(busy - sum(_our_seconds()))


def _histogram(rows: Sequence[StepMetrics]) -> dict[int, int]:
    """Return how many learner steps had rollouts of each age."""
    return dict(sorted(Counter(int(row.staleness_max or 0) for row in rows).items()))


def _mean(rows: Sequence[StepMetrics], name: str) -> float:
    return statistics.fmean(getattr(row, name) for row in rows)


def _parts(rows: Sequence[StepMetrics]) -> dict[str, float]:
    names = ("generate", "learn", "measure", "wait")
    known = [name for name in names if getattr(rows[0], f"seconds_{name}") is not None]
    return {name: 1000 * _mean(rows, f"seconds_{name}") for name in known}


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, quartiles, and of how many; of fewer than two values only how many."""
    if len(values) < 2:
        return {"rounds": len(values)}
    low, middle, high = statistics.quantiles(values, n=4)
    return {
        "median": middle,
        "lower_quartile": low,
        "upper_quartile": high,
        "rounds": len(values),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = learning_curves(options.seeds) if options.curves else time_spent(options.rounds)
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
