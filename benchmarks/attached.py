"""What attaching costs a training of TRL: ``python -m benchmarks.attached [--pairs N] [--json]``.

The step of ``benchmarks.learner`` by TRL's GRPOTrainer at S = 3, where each batch is cut in two and
learned from twice, attached with ``advisor.attach`` to an archive on SQLite: every column, the live
judgement and its advice. Within one training the hooks are on for a cycle of four learner steps and
off for the next, in the order on off off on, so that both see the same weights, caches and load of
the machine. A figure is the ratio of a pair, on over off: median and quartiles over the pairs, of
wall-clock, of processor time of the whole process (the thread that writes included), and of that of
the thread that trains. ``in_the_hooks`` is what the recorder itself spent of a step, by its own
clock, as a share of its wall-clock: it is told where the ratios drown in the load of the machine.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from advisor.attach import attach
from benchmarks.learner import GROUP_SIZE, MODELS, PROMPTS, WARMED_BY, trl
from storage.store import Store
from trainer.workloads.arithmetic import build_model, build_tokenizer

CYCLE, WARMING = 4, 2
AT_S_3 = {
    "per_device_train_batch_size": PROMPTS * GROUP_SIZE,
    "steps_per_generation": 2,
    "num_iterations": 2,
}
CLOCKS: dict[str, Callable[[], float]] = {
    "wall_clock": time.perf_counter,
    "processor": time.process_time,
    "training_thread": time.thread_time,
}


class Switch(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Lets a recorder look on for every other cycle, and reads the clocks at each change.

    It stands behind the recorder, which sends a step as the next begins: what was sent before a
    change belongs to the cycle that ends.
    """

    def __init__(self, recorder: Any) -> None:
        self.read: list[tuple[bool, dict[str, float]]] = []
        self._recorder, self._archivist, self._on = recorder, None, True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Change sides where a cycle begins."""
        cycle = int(state.global_step) // CYCLE
        if state.global_step % CYCLE:
            return
        on = cycle % 4 in (0, 3)
        self._archivist = self._archivist or self._recorder.archivist
        self._recorder.archivist = self._archivist if on else None
        self._recorder._shoulder.looks = on
        self.read.append((on, {name: clock() for name, clock in CLOCKS.items()}))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the recorder end its run, and its thread."""
        if self._archivist is not None:
            self._archivist.interrupted()

    def cycles(self, name: str) -> list[tuple[bool, float]]:
        """Return of every cycle after the warm-up whether it was on and its seconds."""
        ends = zip(self.read, self.read[1:], strict=False)
        return [(on, then[name] - now[name]) for (on, now), (_, then) in ends][WARMING:]


def measure(model: str, pairs: int, device: str) -> dict[str, Any]:
    """Train once with the hooks on and off by turns, and compare each pair of cycles."""
    switches: list[Switch] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        untrained: Any = build_model(*MODELS[model])
        untrained.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)

        def watch(trainer: Any) -> None:
            switches.append(Switch(attach(trainer, db=str(folder / "archive.db"))))
            trainer.add_callback(switches[0])

        steps = CYCLE * (2 * pairs + WARMING) + 1
        trl(folder, device, watch=watch, changes=AT_S_3)(steps - WARMED_BY)
        with closing(Store.open(str(folder / "archive.db"))) as store:
            [run] = store.runs()
            rows = store.steps(run.id)[CYCLE:]  # the first cycle warms up
    parts = [(row.seconds_measure, row.seconds_learn, row.seconds_generate) for row in rows]
    known = [[each for each in of_a_step if each is not None] for of_a_step in parts]
    spent = [of_a_step[0] / sum(of_a_step) for of_a_step in known if len(of_a_step) == 3]
    hooks = {"median": statistics.median(spent), "largest": max(spent)}
    found: dict[str, Any] = {
        "pairs": pairs,
        "in_the_hooks": {name: round(share, 5) for name, share in hooks.items()},
    }
    for clock in CLOCKS:
        cycles = switches[0].cycles(clock)
        both = [dict(cycles[i : i + 2]) for i in range(0, len(cycles) - 1, 2)]
        low, middle, high = statistics.quantiles([each[True] / each[False] for each in both], n=4)
        found[clock] = {
            "ms_off": round(1000 * statistics.median(each[False] for each in both) / CYCLE, 2),
            "on_over_off": round(middle, 4),
            "lower_quartile": round(low, 4),
            "upper_quartile": round(high, 4),
            "of_the_sums": round(sum(e[True] for e in both) / sum(e[False] for e in both), 4),
        }
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, help="pairs of cycles of the tiny model")
    parser.add_argument("--large-pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny", "ten_million"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("etalon").setLevel(logging.ERROR)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {"device": device, "threads": options.threads}
    for name in options.models:
        pairs = options.pairs if name == "tiny" else options.large_pairs
        found[name] = measure(name, pairs, device)
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
