"""The gradient bias at the end of a run, against the weights it had some learner steps before.

θ is the last policy, φ = θ_{T−k} for each lag k of ``TrainerConfig.bias_study``: staleness as the
run itself makes it. Fresh gradients are measured once and serve every lag (theory.md §4).
"""

import time
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from storage.records import BiasProbe

from .bias import Bias, bias_of, gram_of, probe_of
from .config import TrainerConfig
from .gradients import CORRECTIONS, Checkpoint, Measured, Plan

CONTROL_STREAM = 1


def study(
    run_id: str,
    config: TrainerConfig,
    checkpoint: Checkpoint,
    versions: Mapping[int, Tensor],
    stop_requested: Callable[[], bool],
) -> Iterator[BiasProbe]:
    """Yield the probes of each lag: one per correction, then the paired clip bias.

    Lag 0 is a control whose true bias is 0; its rollouts have random numbers of their own, while
    other lags share them with the fresh ones.

    Args:
        run_id: the run whose weights these are.
        config: its configuration; ``bias_shards`` and ``bias_prompts`` say how much is measured.
        checkpoint: the policy, frozen at θ_T.
        versions: weights θ_{T−k} by version T − k, with that of T itself.
        stop_requested: asked between lags.
    """
    plan = Plan(
        shards=config.bias_shards,
        prompts=config.bias_prompts,
        group_size=config.group_size,
        seed=config.seed,
    )
    present = versions[config.steps]
    fresh = checkpoint.measure(present, plan, corrections=("clipped",)).vectors["clipped"]
    for lag in config.study_lags:
        if stop_requested():
            return
        started = time.perf_counter()
        behavior = versions[config.steps - lag]
        stale = checkpoint.measure(behavior, plan, stream=0 if lag else CONTROL_STREAM)
        gram = gram_of({**stale.vectors, "fresh": fresh})
        found = {kind: bias_of(gram, kind) for kind in CORRECTIONS}
        found["clip"] = bias_of(gram, "clipped", "unclipped")
        drift = checkpoint.distance(present, behavior)
        seconds = time.perf_counter() - started
        for kind, bias in found.items():
            yield _probe(run_id, config, plan, lag, kind, bias, stale, drift, seconds)


def _probe(
    run_id: str,
    config: TrainerConfig,
    plan: Plan,
    lag: int,
    kind: str,
    bias: Bias,
    stale: Measured,
    drift: float,
    seconds: float,
) -> BiasProbe:
    return probe_of(
        bias,
        run_id=run_id,
        step=config.steps,
        staleness=lag,
        correction=kind,
        time=time.time(),
        rollouts=plan.rollouts,
        learning_rate=config.learning_rate,
        drift=drift,
        log_ratio_rms=stale.log_ratio_rms,
        clip_fraction=stale.clip_fraction,
        seconds=seconds,
    )
