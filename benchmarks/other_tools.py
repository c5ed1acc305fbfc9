"""Alarms of other monitors on an archived run, each by its own code at the thresholds it ships.

Each monitor is given what TRL's ``GRPOTrainer`` logs of the run (``kl`` is that to the starting
policy, the newest known), step by step or as the log stood at each look, and says at each look how
severe it calls the run. None of them is a requirement:

    pip install rlwatch==0.5.1 rldoctor==0.2.0 rlprobe==0.1.0
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

LOGGED = {
    "reward": "reward_mean",
    "reward_std": "reward_std",
    "kl": "kl_to_start",
    "entropy": "entropy",
    "clip_ratio/low_mean": "clip_fraction_low",
    "clip_ratio/high_mean": "clip_fraction_high",
    "grad_norm": "grad_norm",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "completions/mean_length": "response_length",
    "frac_reward_zero_std": "zero_variance_groups",
}
"""Keys of TRL, and the metrics of the archive that they are."""
LEVELS = ("warning", "critical")
Looks = Iterator[tuple[int, int]]
"""Numbers of learner steps, and the level then: 0 for nothing, 1 a warning, 2 critical."""


def trl_log(series: Mapping[str, Sequence[Any]], prompts: int) -> list[dict[str, Any]]:
    """Return one record per learner step under TRL's keys; what was not measured is left out."""
    known: dict[str, Any] = {}
    records = []
    for i, step in enumerate(series["step"]):
        measured = {key: series[name][i] for key, name in LOGGED.items()}
        known = {"kl": measured["kl"]} if measured["kl"] is not None else known
        record = known | {key: value for key, value in measured.items() if value is not None}
        if "frac_reward_zero_std" in record:
            record["frac_reward_zero_std"] /= prompts
        records.append({"step": step, **record})
    return records


def rlwatch(log: Sequence[Mapping[str, Any]], every: int) -> Looks:
    """Feed rlwatch step by step."""
    from rlwatch.config import RLWatchConfig
    from rlwatch.detectors import DetectorSuite

    detectors = DetectorSuite(RLWatchConfig())

    for i, record in enumerate(log):
        alerts = detectors.check_step(
            record["step"],
            entropy=record.get("entropy"),
            kl_divergence=record.get("kl"),
            reward_mean=record.get("reward"),
            reward_std=record.get("reward_std"),
            loss=record.get("loss"),
            grad_norm=record.get("grad_norm"),
        )
        yield i + 1, _highest(alert.severity for alert in alerts)


def rldoctor(log: Sequence[Mapping[str, Any]], every: int) -> Looks:
    """Let rldoctor read the log as it stood at every look."""
    from rl_doctor.diagnosis import diagnose
    from rl_doctor.ingest.base import run_from_records

    for cut in range(every, len(log) + 1, every):
        found = diagnose(run_from_records(log[:cut])).findings
        yield cut, _highest(finding.severity.name.lower() for finding in found)


def rlprobe(log: Sequence[Mapping[str, Any]], every: int) -> Looks:
    """Let rlprobe look at the recording as it stood at every look."""
    from rlprobe.doctor.engine import diagnose_view
    from rlprobe.doctor.runview import RunView
    from rlprobe.schemas import RunManifest, StepRecord

    names = {
        "reward_mean": "reward",
        "reward_std": "reward_std",
        "kl_mean": "kl",
        "entropy_mean": "entropy",
        "loss": "loss",
        "lr": "learning_rate",
        "grad_norm": "grad_norm",
        "completion_len_mean": "completions/mean_length",
        "zero_variance_group_frac": "frac_reward_zero_std",
    }
    manifest = RunManifest(run_id="a run", created_at="2026-01-01T00:00:00", algorithm="grpo")
    records = [
        StepRecord(
            step=record["step"],
            clip_fraction=_sum(
                record.get("clip_ratio/low_mean"), record.get("clip_ratio/high_mean")
            ),
            **{field: record.get(key) for field, key in names.items()},
        )
        for record in log
    ]

    for cut in range(every, len(records) + 1, every):
        found = diagnose_view(RunView(manifest, records[:cut]))
        yield cut, _highest("warning" if f.severity == "warn" else f.severity for f in found)


TOOLS: dict[str, Callable[[Sequence[Mapping[str, Any]], int], Looks]] = {
    "rlwatch": rlwatch,
    "rldoctor": rldoctor,
    "rlprobe": rlprobe,
}


def _highest(severities: Iterable[str]) -> int:
    return max((LEVELS.index(s) + 1 for s in severities if s in LEVELS), default=0)


def _sum(*values: float | None) -> float | None:
    return None if None in values else sum(v for v in values if v is not None)
