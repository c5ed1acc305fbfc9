"""From logs of runs of one setting to advice: where staleness limits, and what came of the runs.

Pure. The clip fraction and the drift of the batches that a run has logged say at which rate
κ_staleness is 1, with the interval that the clip criterion leaves; outcomes of the runs, where
there are any, move and narrow it as they move a probe's limits. A log holds no displacement, so a
horizon limit is not known from it, and the answer says so.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from storage.words import counted
from trainer.losses import LOSSES

from .advice import Advice, Question
from .calibration import clip_criterion
from .clip_curve import NINETY
from .limits import ONE_SIDED_LOG_SD, RateLimit, rate_at, unsafe_probability
from .logged import pooled, safe_rate
from .posterior import Outcome, shift_of
from .recommendation import best_rate, deciding_runs, left_out, trial_of
from .regime import Estimate, regime_of, unknown
from .run_facts import RunFacts
from .wording import rate as written

LEAST_LOG_SD = 0.15
COUNTED_SHARE = 0.5
"""A survivor narrows the clip criterion only if it went this share of the asked horizon."""
SHORTER = 0.25
"""A limit of t < T steps lies up to (T/t)^0.5 higher: the middle of that, and as much doubt."""
LONGER = 0.1
"""Doubt per ln of how much longer than the logs the asked horizon is, as in ``transfers``."""
MOST_ABOVE_TRIED = 2.0
NO_HORIZON = (
    "drift in logs says nothing of R_crit, of which ended runs of this setting or a probe tell"
)
NO_UPDATE = "a log holds no size of an update, so the local step is not measured"


def staleness_limit(question: Question, runs: Sequence[RunFacts]) -> RateLimit | str:
    """Return the rate at which staleness limits, or the reason why the logs do not say.

    Args:
        question: S and T are read off it.
        runs: of one setting, with what their logs tell (``RunFacts.logged``).
    """
    setting = question.setting
    if setting.max_staleness == 0:
        return "S = 0: every rollout is fresh, so staleness limits nothing"
    if LOSSES[setting.loss].clips != "token":
        return (
            f"the loss {setting.loss} clips no single tokens, and a log says of nothing else when "
            "it takes gradients away"
        )
    logs = [run.logged for run in runs if run.logged is not None and run.logged.unit is not None]
    if not logs:
        missing = (run.logged.missing for run in runs if run.logged and run.logged.missing)
        return next(missing, "no stale batch is logged yet")
    same_unit = [log for log in logs if log.unit == logs[0].unit]
    long = [run for run in runs if run.steps >= COUNTED_SHARE * setting.steps]
    parameters = next((run.parameters for run in runs if run.parameters is not None), None)
    criterion = clip_criterion(long, parameters)
    limit = _limit(safe_rate(pooled(same_unit), criterion, setting.max_staleness))
    longest = max(run.steps for run in runs)
    if isinstance(limit, str) or setting.steps <= longest:
        return limit
    return limit.moved(
        1.0, LONGER * math.log(setting.steps / longest), f"logged for {counted(longest, 'step')}"
    )


def _limit(found: Estimate) -> RateLimit | str:
    if found.value is not None and found.low is not None and found.high is not None:
        half = math.log(found.high / found.low) / 2
        return RateLimit(
            binding="staleness",
            median=math.sqrt(found.low * found.high),
            log_sd=max(LEAST_LOG_SD, half / NINETY),
            reason=f"the clip takes hold within a cycle at {written(found.value)} "
            f"({written(found.low)} … {written(found.high)}): {found.reason}",
        )
    if found.low is not None:
        words = f"clipping and drift stay below their criterion up to {written(found.low)}"
        return _bounded("low", 2 * found.low, f"{words}: {found.reason}")
    if found.high is not None:
        words = f"the clip takes hold within a cycle below {written(found.high)}"
        return _bounded("high", found.high / 2, f"{words}: {found.reason}")
    return found.reason or "the log does not say"


def _bounded(bound: str, median: float, reason: str) -> RateLimit:
    return RateLimit(
        binding="staleness", median=median, log_sd=ONE_SIDED_LOG_SD, bound=bound, reason=reason
    )


def learned_limit(question: Question, runs: Sequence[RunFacts]) -> RateLimit | str:
    """Return the staleness limit as outcomes of the runs have moved it, or why there is none.

    Where drift and clipping bound it from one side, as a published level does, outcomes tell both
    sides only if some run was safe and some was not; else it stays a bound.
    """
    limit = staleness_limit(question, runs)
    if isinstance(limit, str):
        return limit
    outcomes = []
    for run in runs:
        there = None if run.unsafe is None else _carried(limit, question, run, runs)
        if there is not None:
            rate = run.config.learning_rate
            outcomes.append(Outcome(learning_rate=rate, limits=[there], unsafe=bool(run.unsafe)))
    shift = shift_of([limit], outcomes)
    if shift is None:
        return limit
    moved = shift.applied(limit)
    if limit.bound is None:
        return moved
    if shift.safe and shift.unsafe:
        return replace(moved, reason=f"{moved.reason}, and safe and unsafe ones tell the edge")
    return replace(moved, bound=limit.bound)


def _carried(
    limit: RateLimit, question: Question, run: RunFacts, runs: Sequence[RunFacts]
) -> RateLimit | None:
    """Carry the limit to the S and the length of a run; None where staleness limits nothing."""
    asked, own = question.setting, run.config
    if own.max_staleness == 0:
        return None
    if own.max_staleness != asked.max_staleness:
        there = Question(setting=own, risk=question.risk)
        at = staleness_limit(there, runs)
        if isinstance(at, str):
            return None
        limit = at
    trial = trial_of(run)
    shorter = max(0.0, math.log(asked.steps / (trial.steps or asked.steps)))
    return limit.moved(math.exp(SHORTER * shorter), SHORTER * shorter, "of a shorter run")


def advise_from_logs(question: Question, runs: Sequence[RunFacts]) -> Advice | str:
    """Answer a question from logged runs; a text says why their logs do not limit the rate."""
    same = deciding_runs(question, runs)
    limit = learned_limit(question, same)
    if isinstance(limit, str):
        return limit
    tried = max((run.config.learning_rate for run in same), default=limit.median)
    bound = limit.bound
    largest = None
    if bound != "high":
        largest = min(rate_at([limit], question.risk), MOST_ABOVE_TRIED * tried)
    own = question.learning_rate
    kappas = _kappas(limit, own or largest or limit.median)
    regime, regime_reason = regime_of(kappas)
    decided = [run for run in same if run.unsafe is not None]
    suggested, why = (
        best_rate(decided, largest) if decided else (None, "no logged run has an outcome yet")
    )
    reasons = {
        "max_learning_rate": limit.reason,
        "suggested_learning_rate": why,
        "edge": limit.reason,
        "high": limit.reason,
        "low": limit.reason,
        "unsafe_probability": "no learning rate was given to judge (--learning-rate)"
        if own is None
        else f"only {_bound(limit)} of the edge is known: {limit.reason}",
        "forecast_collapse_step": NO_HORIZON,
        "crossover_staleness": NO_HORIZON,
        "most_learning_staleness": "only a probe times generation and learning",
        "regime": regime_reason,
    }
    return Advice(
        max_learning_rate=largest,
        suggested_learning_rate=suggested,
        edge=rate_at([limit], 0.5) if bound is None else None,
        low=rate_at([limit], 0.05) if bound != "high" else None,
        high=rate_at([limit], 0.95) if bound != "low" else None,
        binding="staleness",
        regime=regime,
        unsafe_probability=None if own is None or bound else unsafe_probability([limit], own),
        forecast_collapse_step=None,
        kappa_staleness=kappas["staleness"],
        kappa_horizon=kappas["horizon"],
        kappa_local=kappas["local_step"],
        crossover_staleness=None,
        reason=_sentence(question, same, limit, largest, own)
        + left_out(question, runs, same, undecided=False),
        calibrated=True,
        evidence=tuple(logged_label(run) for run in same),
        reasons=reasons,
    )


def _kappas(limit: RateLimit, rate: float) -> dict[str, Estimate]:
    """Return κ at a rate: η over the rate at which staleness limits; the others are not logged."""
    half = NINETY * limit.log_sd
    at = rate / limit.median
    stale = Estimate(
        value=at if limit.bound is None else None,
        low=at * math.exp(-half) if limit.bound != "low" else None,
        high=at * math.exp(half) if limit.bound != "high" else None,
        is_bound=limit.bound is not None,
        reason=limit.reason,
    )
    return {
        "staleness": stale,
        "horizon": unknown(NO_HORIZON),
        "local_step": unknown(NO_UPDATE),
    }


def logged_label(run: RunFacts) -> str:
    """Name a logged run as evidence."""
    config = run.config
    ended = run.verdict or "no outcome yet"
    return (
        f"run {run.run_id} ({run.name}): η={config.learning_rate:g}, S={config.max_staleness}, "
        f"{counted(run.steps, 'step')} logged: {ended}"
    )


def _sentence(
    question: Question,
    runs: Sequence[RunFacts],
    limit: RateLimit,
    largest: float | None,
    own: float | None,
) -> str:
    setting = question.setting
    longest = max(run.steps for run in runs)
    where = f"at S = {setting.max_staleness} over {counted(setting.steps, 'step')}"
    words = (
        f"No rate can be advised {where}"
        if largest is None
        else f"Up to {written(largest)} {where} the risk of an unsafe run stays within "
        f"{100 * question.risk:.3g}% as far as staleness goes"
    )
    if limit.bound is None:
        words += f"; half of such runs fail at {written(rate_at([limit], 0.5))}"
    words += f" ({counted(len(runs), 'logged run')}, the longest of {counted(longest, 'step')}). "
    words += f"The binding limit is staleness: {limit.reason}. "
    words += f"The horizon is not measured: {NO_HORIZON}."
    if own is not None:
        words += f" {_distance(own, limit)}"
    return words


def _distance(own: float, limit: RateLimit) -> str:
    """Say how far a rate is from the edge."""
    if limit.bound is not None:
        return f"How far {written(own)} is from the edge is not known: only {_bound(limit)} is."
    edge = rate_at([limit], 0.5)
    away = max(edge / own, own / edge)
    return f"{written(own)} lies a factor of {away:.2g} {'below' if own <= edge else 'above'} it."


def _bound(limit: RateLimit) -> str:
    return "an upper bound" if limit.bound == "high" else "a lower bound"
