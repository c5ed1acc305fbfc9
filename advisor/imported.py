"""Runs of other trainers as evidence: from the rows of an imported log to the facts of a run.

Reads the store. What a log lacks stays unknown with the reason; what it holds is taken against the
policy that it was measured from, never by its name (``storage/importers/metric_names.py``).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from storage.commandline import BadInput
from storage.importers.logs import real
from storage.importers.wanted import lacking
from storage.records import RunInfo
from storage.store import Store
from trainer.attached.ending import outcome_of
from trainer.config import TrainerConfig
from trainer.outcome import Outcome

from .logged import LoggedDrift
from .run_facts import SERIES, RunFacts, run_facts
from .stored_facts import ENDED

KINDS = ("imported", "attached")
COLUMNS = (
    *SERIES,
    *("staleness_mean", "staleness_max", "approx_kl", "log_ratio_rms"),
    *("reward_mean", "reward_std", "loss", "grad_norm"),
)
DECISIVE = ("reward_mean", "loss", "grad_norm")
"""A value of these that is not finite is a divergence."""
MOST_ROWS = 10_000
LAST_REWARDS = 20
"""The reward of the start is that of the first ten batches: a log has no evaluation of it."""
KL_BESIDE = {"verl": "rollout_corr/k3_kl", "verl_fully_async": "rollout_corr/k3_kl"}
"""A k3 KL from the behavior policy that has no column: of the policy as the batch begins."""
CLIP_BESIDE = {
    "verl": "actor/pg_clipfrac",
    "verl_fully_async": "actor/pg_clipfrac",
    "slime": "train/pg_clipfrac",
}
"""An active-clip fraction, both sides in one, where its reference is the behavior policy."""

ROUNDED_SIGMA = math.sqrt(2.0**-23)
"""σ = √(2·KL) of a KL that is no more than the rounding of a float32 next to 1, half of 2⁻²³."""

Columns = dict[str, NDArray[np.float64]]


def config_of_log(store: Store, run: RunInfo) -> TrainerConfig | str:
    """Return the setting of an imported run, or what is still to be told of it.

    S that was not told is the largest age that was logged, T the steps that were logged.
    """
    known = {name: run.config[name] for name in TrainerConfig.model_fields if name in run.config}
    if "max_staleness" not in known:
        ages = [
            a for a in store.series(run.id, ["staleness_max"])["staleness_max"] if a is not None
        ]
        if ages and math.isfinite(max(ages)):
            known["max_staleness"] = math.ceil(max(ages))
    known.setdefault("steps", max(1, store.last_step(run.id) or 1))
    lacks = [name for name in ("learning_rate", "max_staleness") if name not in known]
    if lacks:
        told = " ".join(f"{name}=…" for name in lacks)
        return f"the log does not hold {' and '.join(lacks)}; import it again with --set {told}"
    try:
        return TrainerConfig.model_validate(known)
    except ValidationError as error:
        return f"its setting is not one that can be asked about: {error.errors()[0]['msg']}"


def facts_of_log(store: Store, run: RunInfo, config: TrainerConfig) -> RunFacts:
    """Summarise a run of another trainer.

    What it measured in parameter units, as a callback may, is taken; where it measured none, drift
    is that of clipping. A verdict that it has been given stands, else its rewards give one.
    """
    columns = _columns(store, run)
    drift = drift_of_log(columns, run, config)
    outcome, start, last = _ending(columns, run)
    newest = store.steps(run.id, last=1)
    facts = run_facts(
        run_id=run.id,
        name=run.name,
        config=config,
        verdict=run.outcome or (outcome.verdict if outcome else None),
        onset=run.collapse_step if run.outcome else outcome.onset if outcome else None,
        slide=run.slide_step if run.outcome else outcome.slide if outcome else None,
        reward_start=start,
        reward_final=last if run.reward_final is None else run.reward_final,
        series={name: columns[name].tolist() for name in SERIES},
        radii=(newest[0].clipping_radii if newest else None) or {},
        ended=run.status in ENDED,
        parameters=run.parameters,
        steps=_steps(columns["step"], run),
    )
    clip = drift.clip_S[np.isfinite(drift.clip_S)]
    facts = replace(
        facts, logged=drift, clip_p95=float(np.percentile(clip, 95)) if clip.size else None
    )
    if facts.drift_p95 is not None and any(r is not None for r in facts.radii.values()):
        return facts
    in_its_unit = None if drift.unit is None else drift.drift_p95(config.max_staleness)
    return replace(facts, drift_p95=in_its_unit, radii={})


def evidence_of_logs(store: Store, runs: Sequence[RunInfo]) -> list[RunFacts]:
    """Return the facts of the logs of other trainers among runs, newest first as they came.

    What a governor kept says nothing of the rate that its run was given.

    Raises:
        BadInput: there are such logs, and of none the rate and S are known.
    """
    facts, lacks = [], []
    constant = (run for run in runs if not run.source.get("governed"))
    for run in (each for each in constant if each.kind in KINDS):
        config = config_of_log(store, run)
        if isinstance(config, str):
            lacks.append(f"run {run.id}: {config}")
        else:
            facts.append(facts_of_log(store, run, config))
    if lacks and not facts:
        raise BadInput(*lacks)
    return facts


def logs_beside(store: Store, this: RunInfo) -> list[RunFacts]:
    """Return the other logs of a log's group, which a person has put together as one setting."""
    if this.group is None:
        return []
    others = store.runs(group=this.group, archived=False)
    return evidence_of_logs(store, [run for run in others if run.id != this.id])


def drift_so_far(store: Store, run: RunInfo, config: TrainerConfig) -> LoggedDrift:
    """Return what the batches of any run tell of drift so far."""
    return drift_of_log(_columns(store, run), run, config)


def drift_of_log(
    columns: Mapping[str, NDArray[np.float64]], run: RunInfo, config: TrainerConfig
) -> LoggedDrift:
    """Return the batches of a run with their drift and clip fraction, as far as logged."""
    sigma = columns["log_ratio_rms"]
    for kl in (columns["approx_kl"], columns["kl_beside"]):
        sigma = np.where(np.isfinite(sigma), sigma, np.sqrt(2 * np.maximum(kl, 0.0)))
    clip = columns["clip_fraction_low"] + columns["clip_fraction_high"]
    clip = np.where(np.isfinite(clip), clip, columns["clip_beside"])
    rate = columns["learning_rate"]
    return LoggedDrift(
        rate_S=np.where(np.isfinite(rate), rate, config.learning_rate),
        age_S=_fresh_as_0(_ages(columns, clip, run, config.max_staleness), sigma),
        sigma_S=sigma,
        clip_S=clip,
        missing=lacking(run.source.get("stack")) if run.kind in KINDS else None,
    )


def _columns(store: Store, run: RunInfo) -> Columns:
    """Read the first rows of a log, or all; extras only where a stack has one that counts."""
    series = store.series(run.id, COLUMNS, until=_until(store, run))
    columns = {name: np.array(values, dtype=np.float64) for name, values in series.items()}
    nothing = np.full(len(columns["step"]), math.nan)
    columns |= {"kl_beside": nothing, "clip_beside": nothing}
    columns["broken"] = np.array(
        [
            any(v is not None and not math.isfinite(v) for v in row)
            for row in zip(*(series[name] for name in DECISIVE), strict=True)
        ],
        dtype=np.float64,
    )
    stack, references = run.source.get("stack"), run.source.get("references", {})
    beside = {"kl_beside": KL_BESIDE.get(stack or ""), "clip_beside": CLIP_BESIDE.get(stack or "")}
    wanted = {
        name: key for name, key in beside.items() if key and references.get(key) == "behavior"
    }
    if wanted:
        extras = {row.step: row.extra for row in store.steps(run.id, last=MOST_ROWS)}
        steps = series["step"]
        for name, key in wanted.items():
            values = [_real(extras.get(step, {}).get(key)) for step in steps]
            columns[name] = np.array(values, dtype=np.float64)
    return columns


def _until(store: Store, run: RunInfo) -> int | None:
    return MOST_ROWS - 1 if (store.last_step(run.id) or 0) >= MOST_ROWS else None


def _real(value: Any) -> float:
    number = real(value)
    return math.nan if number is None else number


def _ages(
    columns: Mapping[str, NDArray[np.float64]],
    clip: NDArray[np.float64],
    run: RunInfo,
    max_staleness: int,
) -> NDArray[np.float64]:
    """Return the mean age of the rollouts of each batch, in learner steps.

    As logged; else what TRL's schedule says, 0 … S again and again, beginning where clipping is
    impossible; half of S for rows that average a whole cycle; else S, as if every batch were S old.
    """
    logged = np.where(
        np.isfinite(columns["staleness_mean"]), columns["staleness_mean"], columns["staleness_max"]
    )
    if np.isfinite(logged).any() or run.source.get("stack") != "trl":
        return np.where(np.isfinite(logged), logged, float(max_staleness))
    if (run.source.get("window") or 1) > 1:
        return np.full(len(clip), max_staleness / 2)
    cycle = max_staleness + 1
    place = columns["step"] % cycle
    share = [
        np.nanmean(clip[place == k]) if np.isfinite(clip[place == k]).any() else math.inf
        for k in range(cycle)
    ]
    return np.asarray((place - int(np.argmin(share))) % cycle, dtype=np.float64)


def _fresh_as_0(age_S: NDArray[np.float64], sigma_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ages with 0 for batches that did not drift, among others that did.

    An age that is told for many batches at once, or only as S, calls those stale that were sampled
    by the policy itself; at age 0 nothing is clipped, which would be held against their drift.
    """
    fresh = sigma_S < ROUNDED_SIGMA
    some_drifted = bool((sigma_S >= ROUNDED_SIGMA).any())
    return np.where(fresh, 0.0, age_S) if some_drifted else age_S


def _steps(step_S: NDArray[np.float64], run: RunInfo) -> int:
    """Return how many learner steps the log covers."""
    if not step_S.size:
        return 0
    return int(step_S[-1] - step_S[0]) + int(run.source.get("window") or 1)


def _ending(
    columns: Mapping[str, NDArray[np.float64]], run: RunInfo
) -> tuple[Outcome | None, float | None, float | None]:
    """Judge a log by its rewards (theory.md §6): the verdict, the start's reward, and the last."""
    known = ~np.isnan(columns["reward_mean"])
    rewards = columns["reward_mean"][known]
    spread = columns["reward_std"][known]
    spread = spread[np.isfinite(spread)]
    ages = np.nan_to_num(columns["staleness_mean"][known], nan=0.0)
    versions = np.maximum(columns["step"][known] - np.round(ages), 0).astype(int)
    judged = outcome_of(rewards.tolist(), spread.tolist(), versions.tolist())
    if judged is None:
        return None, None, None
    found, start = judged
    if columns["broken"].any():
        found = Outcome(verdict="diverged", reason="a logged reward, loss or gradient is no number")
    return found, start.reward, float(rewards[-LAST_REWARDS:].mean())
