"""What attaching costs a training of TRL: ``python -m benchmarks.attached [--rounds N] [--json]``.

The step of ``benchmarks.learner`` by TRL's GRPOTrainer, once alone and once with
``advisor.attach``, into an archive on SQLite; at S = 3, where each batch is cut in two and learned
from twice, with the measurements of every column, the live judgement and its advice. They take
turns, each training one block of steps; a figure is the ratio of the seconds of a step within a
round, given are median and quartiles over the rounds.
"""

import argparse
import json
import logging
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from advisor.attach import attach
from benchmarks.learner import GROUP_SIZE, MODELS, PROMPTS, trl
from trainer.workloads.arithmetic import build_model, build_tokenizer

AT_S_3 = {
    "per_device_train_batch_size": PROMPTS * GROUP_SIZE,
    "steps_per_generation": 2,
    "num_iterations": 2,
}


def measure(model: str, rounds: int, steps: int, device: str) -> dict[str, Any]:
    """Let a training alone and an attached one take turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        untrained: Any = build_model(*MODELS[model])
        untrained.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        archive = str(folder / "archive.db")
        blocks = {
            "alone": trl(folder, device, changes=AT_S_3),
            "attached": trl(
                folder, device, watch=lambda each: attach(each, db=archive), changes=AT_S_3
            ),
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in blocks}
        for i in range(rounds + 1):
            for kind in list(blocks)[:: 1 if i % 2 else -1]:
                taken = blocks[kind](steps)
                if i > 0:  # the first warms up
                    seconds[kind].append(taken)
    ratios = sorted(b / a for a, b in zip(seconds["alone"], seconds["attached"], strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ms": {kind: round(1000 * statistics.median(v), 2) for kind, v in seconds.items()},
        "attached_over_alone": {
            "median": round(middle, 4),
            "lower_quartile": round(low, 4),
            "upper_quartile": round(high, 4),
        },
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=60, help="of a block of the tiny model")
    parser.add_argument("--large-steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny", "ten_million"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("etalon").setLevel(logging.ERROR)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {"device": device, "threads": options.threads}
    for name in options.models:
        steps = options.steps if name == "tiny" else options.large_steps
        found[name] = measure(name, options.rounds, steps, device)
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
