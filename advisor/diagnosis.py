"""From the steps of a stored run to the regime that it is in. Reads the store."""

import math
from collections.abc import Sequence

from storage.records import RunInfo
from storage.store import Store
from trainer.config import TrainerConfig

from .calibration import clip_criterion, staleness_kappa
from .constants import constants_of
from .horizon import horizon_kappa, horizon_step, local_kappa, projected_alpha, used_kappa
from .imported import KINDS, config_of_log, facts_of_log, logs_beside
from .red_flags import SERIES as RED_FLAG_SERIES
from .red_flags import RedFlag, red_flags
from .regime import Diagnosis, Regime, change_of, regime_of, unknown
from .run_facts import RunFacts
from .same_setting import differences
from .staleness_radius import staleness_radius
from .stored_facts import ENDED, LEAST_STEPS, NEAREST, config_of, ends_of, facts_of, readable


def diagnose(store: Store, run_id: str) -> Diagnosis:
    """Say in which regime a run is, from its own steps and ended runs of the same setting.

    Only the 40 of them that are nearest in learning rate are read.

    Raises:
        RunNotFound: there is no such run.
    """
    run = store.run(run_id)
    logged = run.kind in KINDS
    config = config_of_log(store, run) if logged else config_of(run)
    if not isinstance(config, TrainerConfig):
        return _nothing(run, config or "its configuration is not one that this version can read")
    facts = (facts_of_log if logged else facts_of)(store, run, config)
    if facts.steps < LEAST_STEPS and run.outcome not in ("collapsed", "diverged"):
        return _nothing(run, f"{facts.steps} learner steps are too few; {LEAST_STEPS} are needed")
    flags = red_flags(ends_of(store, run_id, RED_FLAG_SERIES)[0], run.config)
    others = logs_beside(store, run) if logged else _neighbors(store, run, config)
    return diagnosis_of(facts, others, flags)


def _neighbors(store: Store, this: RunInfo, setting: TrainerConfig) -> list[RunFacts]:
    """Return the ended runs of the same setting that are nearest in learning rate."""
    own = math.log(setting.learning_rate)
    same = [
        (run, config)
        for run, config in readable(store.runs(archived=False))
        if run.id != this.id and run.status in ENDED and not differences(config, setting)
    ]
    near = sorted(same, key=lambda each: abs(math.log(each[1].learning_rate) - own))[:NEAREST]
    facts = [facts_of(store, run, config) for run, config in near]
    return [each for each in facts if each.unsafe is not None]


def diagnosis_of(
    facts: RunFacts, others: Sequence[RunFacts], flags: Sequence[RedFlag]
) -> Diagnosis:
    """Judge a run by its own facts and by ended runs of the same setting, of which it may be one.

    A run that has survived shows, as any other that did, what such runs bear; of a log nobody knows
    which part of a run it is.
    """
    known = [*others, facts] if facts.unsafe is False and facts.logged is None else others
    constants = constants_of(known, learning_rate=facts.config.learning_rate)
    criterion = clip_criterion(known, facts.parameters, facts.config.loss)
    r_batch = staleness_radius(facts, criterion)
    kappas = {
        "staleness": staleness_kappa(facts, r_batch),
        "horizon": horizon_kappa(facts, constants.r_crit),
        "local_step": local_kappa(facts, constants.r_step),
    }
    ended_as = facts.verdict if facts.unsafe is not None else None  # a run that was stopped did not
    slide = horizon_kappa(facts, constants.r_slide)
    if slide.value is not None:
        kappas["slide"] = slide
    regime, reason = regime_of(kappas, ended_as)
    return Diagnosis(
        regime=regime,
        reason=reason,
        kappa_staleness=kappas["staleness"],
        kappa_horizon=kappas["horizon"],
        kappa_slide=slide,
        kappa_used=used_kappa(facts, constants.r_crit),
        kappa_local=kappas["local_step"],
        horizon_step=horizon_step(facts, constants.r_crit),
        evidence=tuple(f"run {each.run_id}: {each.verdict}" for each in others),
        red_flags=tuple(flags),
        change=change_of(
            regime,
            kappas,
            learning_rate=facts.config.learning_rate,
            max_staleness=facts.config.max_staleness,
            steps=facts.config.steps,
            alpha=projected_alpha(facts),
        ),
    )


def _nothing(run: RunInfo, why: str) -> Diagnosis:
    verdict = run.outcome if run.outcome in ("collapsed", "diverged") else None
    regime = Regime(verdict) if verdict else Regime.INSUFFICIENT_DATA
    return Diagnosis(
        regime=regime,
        reason=f"the run has {verdict}" if verdict else why,
        kappa_staleness=unknown(why),
        kappa_horizon=unknown(why),
        kappa_slide=unknown(why),
        kappa_used=unknown(why),
        kappa_local=unknown(why),
        horizon_step=unknown(why),
    )
