"""How each stack writes its log: its own logger class where it is packaged, else what it calls.

Every function takes the steps of one real run and the folder of the log. Keys and units are those
of the stack's source; ``tests/storage/logs/README.md`` says which of them are not its own.
"""

import ast
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import time
import typing
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from torch.utils.tensorboard import SummaryWriter

from storage.records import StepMetrics

BEGUN = 1_760_000_000
"""Seconds since 1970 at the first step; a step takes three."""
VERL_UPDATES_PER_VERSION = 4
Row = dict[str, float]


def shared(step: StepMetrics, names: Mapping[str, str]) -> Row:
    """Return columns of a step under other names, six digits of each."""
    values = {key: getattr(step, name) for key, name in names.items()}
    return {key: float(f"{value:.6g}") for key, value in values.items() if value is not None}


def clipped(step: StepMetrics) -> float:
    """Return the active-clip fraction; a batch that cannot clip is logged as 0 by every stack."""
    return float(f"{step.clip_fraction or 0.0:.6g}")


def half_mean_square(step: StepMetrics) -> float:
    """Return ½·mean Δ² of the log-ratios."""
    return float(f"{(step.log_ratio_rms or 0.0) ** 2 / 2:.6g}")


def own_class(wheel: Path, member: str, *names: str, **known: Any) -> list[Any]:
    """Return classes of a wheel, compiled alone: what its module imports besides is not needed."""
    with zipfile.ZipFile(wheel) as opened:
        [path] = [each for each in opened.namelist() if each.endswith(member)]
        tree = ast.parse(opened.read(path))
    tree.body = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name in names]
    module = {**vars(typing), **known, "os": os}
    exec(compile(tree, member, "exec"), module)  # the stack's own writer
    return [module[name] for name in names]


@contextmanager
def clock() -> Iterator[Any]:
    """Let time stand still but for what the caller lets pass, so that a log repeats to the byte."""
    now = SimpleNamespace(seconds=float(BEGUN))
    with patch("time.time", lambda: now.seconds):
        yield now


def ticked(now: Any, rows: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Number rows, and let a step's time pass before each."""
    for number, row in enumerate(rows):
        now.seconds = BEGUN + 3.0 * number
        yield number, row


def verl(steps: Sequence[StepMetrics], folder: Path, wheel: Path) -> None:
    """Write with ``trainer.logger=file``, in bypass_mode; a version is four updates."""
    import orjson

    [writer_class] = own_class(wheel, "verl/utils/tracking.py", "FileLogger", orjson=orjson)
    with patch.dict(os.environ, {"VERL_FILE_LOGGER_ROOT": str(folder)}):
        writer = writer_class("arithmetic", "stale")
    for number, step in enumerate(steps, start=1):
        row = shared(
            step,
            {
                "actor/lr": "learning_rate",
                "actor/grad_norm": "grad_norm",
                "actor/pg_loss": "loss",
                "actor/entropy": "entropy",
                "critic/score/mean": "reward_mean",
                "actor/ppo_kl": "approx_kl",
                "response_length/mean": "response_length",
            },
        )
        age = (step.staleness_max or 0) // VERL_UPDATES_PER_VERSION
        prefix = "training/off_policy/trajectory_staleness"
        ages = {f"{prefix}/{end}": age for end in ("mean", "max", "min")}
        clip = {"actor/pg_clipfrac": clipped(step), "actor/pg_clipfrac_lower": 0.0}
        beside = {"training/global_step": number, "timing_s/step": 3.0}
        writer.log(row | clip | ages | beside, step=number)
    writer.finish()


def openrlhf(steps: Sequence[StepMetrics], folder: Path, wheel: Path) -> None:
    """Write with ``--logger.tensorboard_dir``; one update a batch: π is the proximal policy."""
    [writer_class] = own_class(wheel, "openrlhf/utils/logging_utils.py", "TensorboardLogger")
    where = SimpleNamespace(tensorboard_dir=str(folder), wandb=SimpleNamespace(run_name="stale"))
    with clock() as now:
        writer = writer_class(SimpleNamespace(logger=where))
        for number, step in ticked(now, steps):
            row = shared(
                step,
                {
                    "actor_grad_norm": "grad_norm",
                    "actor_lr": "learning_rate",
                    "policy_loss": "loss",
                    "reward": "reward_mean",
                    "response_length": "response_length",
                    "entropy_loss": "entropy",
                    "vllm_kl": "approx_kl",
                },
            )
            proximal = {"ppo_kl": 0.0, "ppo_clip_ratio": 0.0}
            writer.log_train(number + 1, row | proximal | {"is_filter_ratio": 0.0})
        writer.close()


def areal(steps: Sequence[StepMetrics], folder: Path, wheel: Path) -> None:
    """Write with ``stats_logger.tensorboard.path``; its other trackers are not there."""
    nobody = SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    [writer_class] = own_class(
        wheel,
        "areal/utils/stats_logger.py",
        "StatsLogger",
        wandb=nobody,
        swanlab=nobody,
        logger=logging.getLogger("areal"),
        time=time,
        dist=SimpleNamespace(is_initialized=lambda: False),
        tabulate_stats=str,
        BaseExperimentConfig=object,
        FinetuneSpec=object,
        StatsLoggerConfig=object,
    )
    writer = object.__new__(writer_class)
    writer.ft_spec = SimpleNamespace(total_train_epochs=1, steps_per_epoch=40, total_train_steps=40)
    writer._last_commit_step, writer.start_time = -1, time.monotonic()
    update, drift = "ppo_actor/update", "ppo_actor/update/compute_logp"
    age = f"{update}/version_stats/sample_staleness_theta"
    with clock() as now:
        writer.summary_writer = SummaryWriter(str(folder / "tensorboard"))
        for number, step in ticked(now, steps):
            row = shared(
                step,
                {
                    f"{update}/grad_norm": "grad_norm",
                    f"{update}/lr": "learning_rate",
                    f"{update}/actor_loss": "loss",
                    f"{update}/entropy/avg": "entropy",
                    "ppo_actor/task_reward/avg": "reward_mean",
                    f"{drift}/kl_div_dual/avg": "approx_kl",
                    f"{age}_avg": "staleness_mean",
                    f"{age}_max": "staleness_max",
                },
            )
            row[f"{drift}/kl_div_taylor/avg"] = half_mean_square(step)
            row |= {f"{update}/{name}/avg": 0.0 for name in ("approx_kl", "clip_ratio")}
            row |= {f"{update}/importance_weight/avg": 1.0, "timeperf/train_step": 3.0}
            writer.commit(0, number, number, row)
        writer.summary_writer.close()


def skyrl(steps: Sequence[StepMetrics], folder: Path, wheel: Path) -> None:
    """Write with ``trainer.logger=tensorboard``; log-probabilities are computed anew."""
    [writer_class] = own_class(wheel, "skyrl/train/utils/tracking.py", "_TensorboardAdapter")
    with (
        clock() as now,
        patch.dict(os.environ, {"TENSORBOARD_DIR": str(folder / "tensorboard_log")}),
    ):
        writer = writer_class()
        for number, step in ticked(now, steps):
            row = shared(
                step,
                {
                    "policy/grad_norm": "grad_norm",
                    "policy/policy_lr": "learning_rate",
                    "policy/policy_loss": "loss",
                    "policy/policy_entropy": "entropy",
                    "reward/avg_raw_reward": "reward_mean",
                    "async/staleness_mean": "staleness_mean",
                    "async/staleness_max": "staleness_max",
                    "async/num_groups_dropped": "dropped_groups",
                },
            )
            row |= {"policy/loss_metrics/clip_ratio": 0.0, "trainer/epoch": 0, "timing/step": 3.0}
            writer.log(row, number + 1)
        writer.finish()


def slime(steps: Sequence[StepMetrics], folder: Path) -> None:
    """Write as with ``--use-tensorboard --use-rollout-logprobs``; rollouts have their own axis."""
    with clock() as now:
        writer = SummaryWriter(str(folder / "tensorboard_log" / "arithmetic" / "stale"))
        for number, step in ticked(now, steps):
            train = shared(
                step,
                {
                    "train/grad_norm": "grad_norm",
                    "train/lr-pg_0": "learning_rate",
                    "train/pg_loss": "loss",
                    "train/entropy_loss": "entropy",
                    "train/ppo_kl": "approx_kl",
                },
            )
            train |= {"train/pg_clipfrac": clipped(step), "train/step": number}
            rollout = shared(step, {"rollout/raw_reward": "reward_mean"})
            for key, value in {**rollout, "rollout/step": number, **train}.items():
                writer.add_scalar(key, value, number)
        writer.close()


def nemo_rl(steps: Sequence[StepMetrics], folder: Path) -> None:
    """Write as with ``logger.tensorboard_enabled``: scalars, and its settings in a folder below."""
    settings = {
        "policy.optimizer.kwargs.lr": 1e-3,
        "loss_fn.ratio_clip_min": 0.2,
        "loss_fn.ratio_clip_max": 0.2,
        "grpo.num_generations_per_prompt": 8,
        "grpo.max_num_steps": 40,
        "grpo.async_grpo.enabled": True,
        "grpo.async_grpo.max_trajectory_age_steps": 7,
    }
    with clock() as now:
        writer = SummaryWriter(str(folder / "exp_001" / "tensorboard"))
        writer.add_hparams(settings, {})
        for number, step in ticked(now, steps):
            row = shared(
                step,
                {
                    "lr": "learning_rate",
                    "grad_norm": "grad_norm",
                    "loss": "loss",
                    "approx_entropy": "entropy",
                    "reward": "reward_mean",
                    "gen_kl_error": "approx_kl",
                    "avg_trajectory_age": "staleness_mean",
                },
            )
            row |= {"probs_ratio": 1.0, "probs_ratio_clamped": 1.0, "buffer_size": 8}
            for key, value in row.items():
                writer.add_scalar(f"train/{key}", value, number + 1)
            writer.add_scalar("timing/train/total_step_time", 3.0, number + 1)
        writer.close()


def prime_rl(steps: Sequence[StepMetrics], folder: Path) -> None:
    """Write the rows of its two processes, several partial ones per step."""
    rows: dict[str, list[Row]] = {"trainer": [], "orchestrator": []}
    for number, step in enumerate(steps):
        head = {"step": number, "time": BEGUN + 3.0 * number}
        trained = shared(
            step,
            {
                "loss/mean": "loss",
                "entropy/all/mean": "entropy",
                "mismatch_kl/all/mean": "approx_kl",
            },
        )
        optimized = shared(step, {"optim/lr": "learning_rate", "optim/grad_norm": "grad_norm"})
        rows["trainer"] += [head | trained, head | optimized, head | {"time/step": 3.0}]
        sampled = shared(
            step,
            {
                "effective/arithmetic/reward/mean": "reward_mean",
                "off_policy/mean": "staleness_mean",
                "off_policy/max": "staleness_max",
            },
        )
        rows["orchestrator"].append(head | sampled | {"off_policy/dropped": 0})
    for part, lines in rows.items():
        (folder / part).mkdir(parents=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / part / "metrics.jsonl").write_text(text, encoding="utf-8")


def tinker(steps: Sequence[StepMetrics], folder: Path, wheel: Path) -> None:
    """Write with the cookbook's own logger, as its training that samples ahead does."""
    sys.path.insert(0, str(wheel))
    from tinker_cookbook.stores.storage import storage_from_uri
    from tinker_cookbook.stores.training_store import TrainingRunStore

    writer = TrainingRunStore(storage_from_uri(str(folder)))
    ahead = {"max_steps_off_policy": 7, "groups_per_batch": 16}
    writer.write_config({"learning_rate": 1e-3, "num_substeps": 1, "async_config": ahead})
    for number, step in enumerate(steps):
        row = shared(
            step,
            {
                "optim/lr": "learning_rate",
                "optim/entropy": "entropy",
                "env/all/reward/total": "reward_mean",
            },
        )
        row["optim/kl_sample_train_v1"] = shared(step, {"kl": "approx_kl"})["kl"]
        row["optim/kl_sample_train_v2"] = half_mean_square(step)
        sampled = number - (step.staleness_max or 0)
        row |= {f"sampling_client/step_{end}": sampled for end in ("min", "mean", "max")}
        row |= {"training_client/step": number, "progress/done_frac": (number + 1) / len(steps)}
        writer.write_metrics(row | {"time/total": 3.0}, number)
    writer.write_metrics({"tokens/cumulative/sampled": 15360.0, "tokens/discarded/sampled": 0.0})


def trl(folder: Path) -> None:
    """Train by TRL, whose rate grows too large for rollouts up to three steps old."""
    from trl_trainings import trl_trainer

    with tempfile.TemporaryDirectory() as work:
        trainer = trl_trainer(
            Path(work), max_steps=40, save_strategy="steps", save_steps=40, learning_rate=3e-2
        )
        trainer.train()
        [state] = Path(work).glob("a training/checkpoint-40/trainer_state.json")
        (folder / "checkpoint-40").mkdir(parents=True)
        shutil.copy(state, folder / "checkpoint-40")


def wandb(steps: Sequence[StepMetrics], folder: Path) -> None:
    """Write with wandb itself, offline, what verl logs there."""
    import wandb as tracker

    with tempfile.TemporaryDirectory() as work:
        options = tracker.Settings(console="off", x_disable_stats=True, x_disable_meta=True)
        config = {"actor_rollout_ref": {"actor": {"optim": {"lr": 1e-3}, "clip_ratio_high": 0.2}}}
        run = tracker.init(
            project="arithmetic",
            name="stale",
            dir=work,
            mode="offline",
            config=config,
            settings=options,
        )
        for number, step in enumerate(steps, start=1):
            row = shared(
                step,
                {
                    "actor/lr": "learning_rate",
                    "actor/grad_norm": "grad_norm",
                    "actor/pg_loss": "loss",
                    "critic/score/mean": "reward_mean",
                    "actor/ppo_kl": "approx_kl",
                },
            )
            run.log(row | {"actor/pg_clipfrac": clipped(step)}, step=number)
            run.log({"actor/entropy": step.entropy, "nothing": math.nan}, step=number)
        run.finish()
        tracker.teardown()  # only then is the file whole
        [file] = Path(work).glob("wandb/offline-run-*/run-*.wandb")
        shutil.copy(file, folder / "run-stale.wandb")
