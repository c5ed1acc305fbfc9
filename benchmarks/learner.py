"""The learner beside a bare loop and TRL: ``python -m benchmarks.learner [--rounds N] [--json]``.

The same GRPO step three times: 16 prompts × 8 completions of 3 tokens, AdamW, one update per
generation, fp32. *Etalon* is lockstep at S = 3 with every always-on metric, each row committed to
SQLite; *bare* is a loop over PyTorch and transformers with a key–value cache that measures
nothing; *TRL* is its ``GRPOTrainer``, if it is installed (``pip install trl==1.16.0``). They take
turns in blocks of steps in one process; a figure is the ratio of steps per second within a round,
given are median and quartiles over the rounds. The floor is the time of the step's own matrix
products alone, at their shapes. Weights start random and the reward is the share of digits: the
arithmetic of a step does not depend on what is learned. On a CUDA device Etalon also runs without
its recorded graphs, as *plain*, and a second floor is what the device can do: the operations of the
step's matrix products and the bytes of its weights against ceilings measured in the same process.
Where there is none, its column says so.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.ceilings import ceilings, shares
from benchmarks.measuring import NEVER, TASK, share_of_digits
from storage.records import RunInfo
from storage.store import Store
from trainer.config import checked_config
from trainer.lockstep import Lockstep
from trainer.policy import parameter_count
from trainer.workloads.arithmetic import (
    MAX_NEW_TOKENS,
    build_model,
    build_tokenizer,
    sample_prompts,
)

MODELS = {"tiny": (64, 2), "ten_million": (320, 8), "hundred_million": (896, 8)}
PROMPTS, GROUP_SIZE, PROMPT_TOKENS = 16, 8, 6
LEARNING_RATE, EPSILON = 1e-4, 0.2
NO_GPU = "not measured: there is no CUDA device"
WARMED_BY = 5
"""Learner steps of every contestant that are not timed, at its beginning."""
Block = Callable[[int], float]
"""Takes so many learner steps and returns the seconds of one."""


def etalon(folder: Path, device: str, parts: dict[str, float], *, plain: bool = False) -> Block:
    """Return Etalon's learner, which also writes its rows; ``parts`` gathers where time went.

    A ``plain`` one replays no recorded graphs.
    """
    config = checked_config(
        {
            "learning_rate": LEARNING_RATE,
            "max_staleness": 3,
            "steps": NEVER,
            "prompts": PROMPTS,
            "group_size": GROUP_SIZE,
            "device": device,
        }
    )
    store = Store.open(str(folder / f"etalon{'-plain' * plain}.db"))
    run = RunInfo(id="20260101-000000-bench", name="benchmark", created_at=time.time())
    store.create_run(run)
    learner = Lockstep(run.id, config, TASK, folder)
    if plain:
        learner.captured = learner.backward.captured = learner.meter.stream.captured = None
    learner.evaluate(0, 512)
    step = 0

    def block(steps: int) -> float:
        nonlocal step
        begun = time.perf_counter()
        for _ in range(steps):
            row = learner.learner_step(step)
            stepped = time.perf_counter()
            store.append_step(row)
            parts["write"] += time.perf_counter() - stepped
            for name in ("generate", "learn", "measure"):
                parts[name] += getattr(row, f"seconds_{name}")
            parts["steps"] += 1
            step += 1
        finish(device)
        return (time.perf_counter() - begun) / steps

    return block


def bare(folder: Path, device: str) -> Block:
    """Return a loop that only samples, scores and steps."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    generator = torch.Generator(device).manual_seed(0)

    @torch.no_grad()
    def sample(ids_B_L: Tensor) -> tuple[Tensor, Tensor]:
        tokens, log_probs = [], []
        out = model(ids_B_L, use_cache=True)
        for left in range(MAX_NEW_TOKENS - 1, -1, -1):
            log_prob_B_V = out.logits[:, -1].log_softmax(dim=-1)
            token = torch.multinomial(log_prob_B_V.exp(), 1, generator=generator)
            tokens.append(token)
            log_probs.append(log_prob_B_V.gather(1, token))
            if left:
                out = model(token, past_key_values=out.past_key_values, use_cache=True)
        return torch.cat(tokens, dim=1), torch.cat(log_probs, dim=1)

    def step() -> None:
        prompts = [p for p in sample_prompts(PROMPTS, generator) for _ in range(GROUP_SIZE)]
        ids_B_L = tokenizer(prompts, return_tensors="pt")["input_ids"].to(device)
        tokens_B_T, old_B_T = sample(ids_B_L)
        ended_B_T = (tokens_B_T == tokenizer.eos_token_id).cumsum(dim=1)
        mask_B_T = ((ended_B_T - (tokens_B_T == tokenizer.eos_token_id).long()) == 0).float()
        rewards = share_of_digits(prompts, tokenizer.batch_decode(tokens_B_T))
        rewards_P_G = torch.tensor(rewards, device=device).view(PROMPTS, GROUP_SIZE)
        spread_P_1 = rewards_P_G.std(dim=1, keepdim=True) + 1e-4
        advantage_B_1 = ((rewards_P_G - rewards_P_G.mean(dim=1, keepdim=True)) / spread_P_1).view(
            -1, 1
        )
        full_B_L = torch.cat([ids_B_L, tokens_B_T], dim=1)
        logits = model(full_B_L[:, :-1], logits_to_keep=MAX_NEW_TOKENS, use_cache=False).logits
        new_B_T = logits.log_softmax(dim=-1).gather(2, tokens_B_T.unsqueeze(2)).squeeze(2)
        ratio_B_T = (new_B_T - old_B_T).exp()
        clipped_B_T = ratio_B_T.clamp(1 - EPSILON, 1 + EPSILON)
        gain_B_T = torch.minimum(ratio_B_T * advantage_B_1, clipped_B_T * advantage_B_1)
        loss = -((gain_B_T * mask_B_T).sum(dim=1) / mask_B_T.sum(dim=1)).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def block(steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        finish(device)
        return (time.perf_counter() - begun) / steps

    return block


def finish(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def trl(
    folder: Path,
    device: str,
    *,
    watch: Callable[[Any], object] = id,
    changes: Mapping[str, Any] | None = None,
) -> Block:
    """Return TRL's trainer; every block is a training of its own, timed after its first steps.

    ``watch`` is shown each trainer before it trains; ``changes`` are options of ``GRPOConfig``.

    Raises:
        ImportError: TRL is not installed.
    """
    import datasets
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    generator = torch.Generator().manual_seed(0)
    rows = [{"prompt": prompt} for prompt in sample_prompts(4096, generator)]
    data = datasets.Dataset.from_list(rows)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        found: list[float] = share_of_digits(prompts, completions)
        return found

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    def block(steps: int) -> float:
        clock = Clock()
        options = _options_of_trl(folder, device, steps) | dict(changes or {})
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=GRPOConfig(**options),
            reward_funcs=reward,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        watch(trainer)
        with _quiet():
            trainer.train()
        return (clock.ends[-1] - clock.ends[WARMED_BY - 1]) / steps

    return block


def _options_of_trl(folder: Path, device: str, steps: int) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "trl"),
        "use_cpu": device == "cpu",
        "bf16": False,
        "report_to": [],
        "logging_steps": 1,
        "max_steps": WARMED_BY + steps,
        "save_strategy": "no",
        "per_device_train_batch_size": PROMPTS * GROUP_SIZE,
        "num_generations": GROUP_SIZE,
        "max_completion_length": MAX_NEW_TOKENS,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "beta": 0.0,
        "epsilon": EPSILON,
        "loss_type": "grpo",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "log_level": "error",
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what TRL prints of every step nowhere."""
    from contextlib import redirect_stdout
    from os import devnull

    with Path(devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def floor(model: nn.Module, device: str, rounds: int = 20) -> float:
    """Return the seconds of the matrix products of one step: sampling, forward, backward twice."""
    shapes = [
        tuple(layer.weight.shape) for layer in model.modules() if isinstance(layer, nn.Linear)
    ]
    batch = PROMPTS * GROUP_SIZE
    read = batch * PROMPT_TOKENS  # tokens of the prompts, then one more of each row at a time
    scored = batch * (PROMPT_TOKENS + MAX_NEW_TOKENS - 1)
    counts = [read, *[batch] * (MAX_NEW_TOKENS - 1), *[scored] * 3]
    products = [
        (torch.randn(tokens, width, device=device), torch.randn(width, height, device=device))
        for height, width in shapes
        for tokens in counts
    ]
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for left, right in products:
            torch.mm(left, right)
        finish(device)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def measure(hidden_size: int, layers: int, rounds: int, steps: int, device: str) -> dict[str, Any]:
    """Let the contestants take turns, and compare them within each round."""
    parts = dict.fromkeys(("generate", "learn", "measure", "write", "steps"), 0.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model: Any = build_model(hidden_size, layers)
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        blocks: dict[str, Block] = {
            "etalon": etalon(folder, device, parts),
            "bare": bare(folder, device),
        }
        if device == "cuda":
            blocks["plain"] = etalon(folder, device, dict.fromkeys(parts, 0.0), plain=True)
        try:
            blocks["trl"] = trl(folder, device)
        except ImportError:
            print("TRL is not installed: not measured", file=sys.stderr)
        for kind in blocks.keys() - {"trl"}:
            blocks[kind](WARMED_BY)
        parts.update(dict.fromkeys(parts, 0.0))
        seconds: dict[str, list[float]] = {kind: [] for kind in blocks}
        for i in range(rounds):
            order = list(blocks)
            for kind in order[i % len(order) :] + order[: i % len(order)]:
                seconds[kind].append(blocks[kind](steps))
    lowest = floor(model, device)
    taken = parts.pop("steps")
    parameters = parameter_count(model)
    scored = PROMPTS * PROMPT_TOKENS + PROMPTS * GROUP_SIZE * (MAX_NEW_TOKENS - 1)
    return {
        "parameters": parameters,
        "steps_per_second": {k: round(1 / statistics.median(v), 2) for k, v in seconds.items()},
        "etalon_over_bare": _ratios(seconds["bare"], seconds["etalon"]),
        "etalon_over_plain": _ratios(seconds["plain"], seconds["etalon"])
        if "plain" in blocks
        else None,
        "etalon_over_trl": _ratios(seconds["trl"], seconds["etalon"]) if "trl" in blocks else None,
        "etalon_ms": {part: round(1000 * value / taken, 2) for part, value in parts.items()},
        "floor_ms": round(1000 * lowest, 2),
        "shares_of_ceilings": shares(
            ceilings(device),
            parameters,
            scored,
            MAX_NEW_TOKENS,
            statistics.median(seconds["etalon"]),
        ),
    }


def _ratios(theirs: list[float], ours: list[float]) -> Mapping[str, float]:
    found = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    low, middle, high = statistics.quantiles(found, n=4)
    named = {"median": middle, "lower_quartile": low, "upper_quartile": high}
    return {name: round(value, 3) for name, value in named.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40, help="of a block of the tiny model")
    parser.add_argument("--large-steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny", "ten_million"])
    parser.add_argument("--devices", nargs="+", choices=["cpu", "cuda"], default=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {"torch": torch.__version__, "threads": options.threads}
    gpu = torch.cuda.is_available()
    found["cuda"] = torch.cuda.get_device_name() if gpu else NO_GPU
    for name in options.models:
        steps = options.steps if name == "tiny" else options.large_steps
        found[name] = {
            device: measure(*MODELS[name], options.rounds, steps, device)
            if gpu or device == "cpu"
            else NO_GPU
            for device in options.devices
        }
        print(name, json.dumps(found[name]), file=sys.stderr)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
