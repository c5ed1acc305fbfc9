"""What queue mode costs when its rollout workers are actors of a Ray cluster, and not processes.

    python -m benchmarks.actors [--rounds N]

Two learners of the setting of ``benchmarks.asynchrony`` take turns, ``STEPS`` learner steps each,
one with a process that samples and one with an actor, on a cluster of this machine alone. A figure
is a median over the rounds with its quartiles; the first round warms up.
"""

import argparse
import json
import statistics
import time
from collections import Counter

import torch

from storage.records import StepMetrics

from .asynchrony import MAX_STALENESS, STEPS, rivals

ENGINES = ("local", "ray")


def time_spent(rounds: int) -> dict[str, object]:
    """Let the learners take turns and compare their times."""
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    rows: dict[str, list[StepMetrics]] = {engine: [] for engine in ENGINES}
    settings = {engine: {"schedule": "queue", "engine": engine} for engine in ENGINES}
    with rivals(settings) as learners:
        for turn in range(rounds + 1):
            for engine, learner in learners.items():
                first = turn * (MAX_STALENESS + 1 + STEPS)
                begin = first + MAX_STALENESS + 1  # its worker has filled the queue meanwhile
                for step in range(first, begin):
                    learner.learner_step(step)
                started = time.perf_counter()
                taken = [learner.learner_step(step) for step in range(begin, begin + STEPS)]
                if turn > 0:
                    seconds[engine].append(time.perf_counter() - started)
                    rows[engine] += taken
    ratios = [ray / local for local, ray in zip(seconds["local"], seconds["ray"], strict=True)]
    return {
        "ray_over_local": statistics.quantiles(ratios, n=4),
        **{
            engine: {
                "ms_per_step": 1000 * statistics.median(seconds[engine]) / STEPS,
                "ms_waited": 1000 * statistics.fmean(r.seconds_wait or 0.0 for r in rows[engine]),
                "ages": Counter(int(row.staleness_max or 0) for row in rows[engine]),
                "across_versions": statistics.fmean(
                    row.extra["rollouts_across_versions"] for row in rows[engine]
                ),
            }
            for engine in ENGINES
        },
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(time_spent(options.rounds), indent=2))


if __name__ == "__main__":
    main()
