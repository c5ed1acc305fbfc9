"""Small real records for tests; every field that matters is given by the test itself."""

from pathlib import Path
from typing import Any

from advisor.run_facts import RunFacts
from storage.records import Evaluation, RunInfo, RunStatus, StepMetrics
from storage.store import Store, new_run_id
from trainer.config import TrainerConfig, checked_config

NOON = 1_700_000_000.0
EARLY = 30
"""Warm-up of 10 steps, and momentum of 0.9 remembered for 2/(1 − 0.9) = 20 more: ``a_config``."""
RADII = {"0.0005": 0.008, "0.001": 0.011, "0.003": 0.015, "0.01": 0.029, "0.03": 0.1, "0.1": 0.7}


def a_config(**changes: Any) -> TrainerConfig:
    return checked_config({"learning_rate": 2e-4, "max_staleness": 3, "steps": 300, **changes})


def a_run(config: TrainerConfig | None = None, **changes: Any) -> RunInfo:
    config = config or a_config()
    values = {
        "id": new_run_id(),
        "name": "a run",
        "created_at": NOON,
        "workload": config.workload,
        "config": config.model_dump(mode="json"),
        "parameters": 134_000,
    }
    return RunInfo(**(values | changes))


def a_step(run_id: str, step: int, **changes: Any) -> StepMetrics:
    return StepMetrics(run_id=run_id, step=step, **({"time": NOON + step} | changes))


def an_evaluation(run_id: str, step: int, reward: float, **changes: Any) -> Evaluation:
    values = {"time": NOON + step, "rollouts": 512, "reward_std": 0.4}
    return Evaluation(run_id=run_id, step=step, reward=reward, **(values | changes))


def some_facts(config: TrainerConfig | None = None, **changes: Any) -> RunFacts:
    """Summarise a run that finished healthy and of which everything was measured."""
    values = {
        "run_id": new_run_id(),
        "name": "a run",
        "config": config or a_config(),
        "steps": 300,
        "verdict": "healthy",
        "unsafe": False,
        "onset": None,
        "reward_start": 0.78,
        "reward_final": 0.9,
        "drift_p95": 0.05,
        "displacement": 1.0,
        "displacement_at_onset": None,
        "displacement_at_slide": None,
        "largest_step": 0.01,
        "drift_law": (300.0, 0.5),
        "clip_p95": 0.0,
        "radii": RADII,
        "parameters": 134_000,
    }
    return RunFacts(**(values | changes))


def fill(store: Store, run: RunInfo, *, steps: int, drift: float = 0.05) -> None:
    """Add a run whose displacement grows as √t and whose clipping grows with age."""
    store.create_run(run)
    staleness = int(run.config["max_staleness"])
    rate = float(run.config["learning_rate"])
    store.append_evaluation(an_evaluation(run.id, 0, 0.78))
    for t in range(steps):
        age = t % (staleness + 1)
        store.append_step(
            a_step(
                run.id,
                t,
                learning_rate=rate,
                staleness_mean=float(age),
                staleness_max=float(age),
                sampled_at_step=t - age,
                update_norm=80.0,
                cycle_drift=drift * age / max(1, staleness),
                displacement=rate * 300 * (t + 1) ** 0.5,
                approx_kl=1e-3 * age,
                log_ratio_rms=0.05 * age,
                clip_fraction_low=0.01 * age if staleness else None,
                clip_fraction_high=0.005 * age if staleness else None,
                ess_fraction=1.0 - 0.01 * age,
                sequence_ess_fraction=1.0 - 0.03 * age,
                grad_norm=5.0,
                entropy=0.2,
                reward_mean=0.8,
                clipping_radii=RADII if staleness else None,
            )
        )


def seeded_store(folder: Path) -> Store:
    """Open a file archive with the two runs of ``seed``."""
    return seed(Store.open(str(folder / "seeded.db")))


def seed(store: Store) -> Store:
    """Add one finished and one collapsed run of forty steps each."""
    finished = a_run(
        id="20231114-221320-000001",
        status=RunStatus.FINISHED,
        outcome="healthy",
        ended_at=NOON + 60,
    )
    fill(store, finished, steps=40)
    collapsed = a_run(
        a_config(learning_rate=4e-3),
        id="20231114-221320-000002",
        status=RunStatus.COLLAPSED,
        outcome="collapsed",
        collapse_step=12,
        ended_at=NOON + 60,
    )
    fill(store, collapsed, steps=40, drift=0.5)
    return store
