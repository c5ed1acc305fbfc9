"""Whether the condition of a rule holds for a run as it was last seen. Pure.

A condition holds, does not, or is not known: κ without a low end, a horizon that nobody can tell, a
run that ended. What is not known neither raises an alert nor ends one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from storage.records import RunInfo, RunStatus

from ..overview import planned_steps
from ..red_flags import FLAGS
from ..regime import Diagnosis, Regime
from .rules import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A run at one look: ``status`` as derived, ``silent`` the seconds that its heartbeat stands.

    ``is_gone`` says that its process has ended; of one on another host nobody here knows.
    ``diagnosis`` is None of a run that is not alive, ``step`` of one without a learner step.
    """

    run: RunInfo
    status: RunStatus
    step: int | None
    silent: float
    is_gone: bool
    diagnosis: Diagnosis | None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a rule can be about, such as one κ: whether it holds; None is not known."""

    subject: str
    holds: bool | None
    message: str


def concerns(rule: Rule, sight: Sight) -> bool:
    """Whether a rule is about this run: by its kind, and by every filter that is given."""
    run = sight.run
    return (
        run.kind in rule.kinds
        and (not rule.groups or any(fnmatchcase(run.group or "", each) for each in rule.groups))
        and (not rule.names or any(fnmatchcase(run.name, each) for each in rule.names))
        and (not rule.tags or not set(rule.tags).isdisjoint(sight.tags))
    )


def findings(rule: Rule, sight: Sight) -> Iterator[Finding]:
    """Return what a rule finds of a run, one finding for each subject."""
    return _READ[rule.condition](rule, sight)


def _regime(rule: Rule, sight: Sight) -> Iterator[Finding]:
    """Of a run that is not judged only its end is known."""
    found = sight.diagnosis
    if found is None or found.regime is Regime.INSUFFICIENT_DATA:
        now, why, otherwise = sight.run.outcome, f"the run has {sight.run.outcome}", None
    else:
        change = "" if found.change is None else f"; to change: {found.change}"
        now, why, otherwise = str(found.regime), f"{found.reason}{change}", False
    for subject in rule.regime or ():
        holds = True if now == subject else otherwise
        yield Finding(subject=subject, holds=holds, message=f"{subject}: {why}")


def _kappa(rule: Rule, sight: Sight) -> Iterator[Finding]:
    limit, found = rule.kappa_above or 0.0, sight.diagnosis
    for subject in rule.kappa:
        name = f"kappa_{subject.removesuffix('_step')}"  # κ_local is that of the local step
        low = None if found is None else getattr(found, name).low
        yield Finding(
            subject=subject,
            holds=None if low is None else low > limit,
            message=f"κ_{subject} is at least {low or 0.0:.2g}, above {limit:g}",
        )


def _horizon_left(rule: Rule, sight: Sight) -> Iterator[Finding]:
    """By the low end: the earliest step at which the horizon may be used up."""
    horizon = None if sight.diagnosis is None else sight.diagnosis.horizon_step
    low = None if horizon is None or horizon.value is None else horizon.low
    words = "the horizon may be used up at step {when:,.0f}, {left:,.0f} steps from now"
    yield _ahead("horizon", low, rule.horizon_left or 0, sight, words)


def _collapse(rule: Rule, sight: Sight) -> Iterator[Finding]:
    """By the best estimate: the step at which runs of this setting collapsed, at this drift."""
    value = None if sight.diagnosis is None else sight.diagnosis.horizon_step.value
    words = "a collapse is forecast at step {when:,.0f}, {left:,.0f} steps from now"
    yield _ahead("collapse", value, rule.collapse_within or 0, sight, words)


def _ahead(subject: str, when: float | None, within: int, sight: Sight, words: str) -> Finding:
    """Say whether a step comes within so many, and before the run is over anyway."""
    planned, steps = planned_steps(sight.run), (sight.step or 0) + 1
    if when is None:
        return Finding(subject=subject, holds=None, message="")
    left = when - steps
    holds = left < within and (planned is None or when < planned)
    return Finding(
        subject=subject, holds=holds, message=words.format(when=when, left=max(0.0, left))
    )


def _silent(rule: Rule, sight: Sight) -> Iterator[Finding]:
    """A run counts as lost by its process where that is known to have ended, else by silence."""
    is_lost = sight.status is RunStatus.LOST
    longest, seconds = rule.silent_seconds or 0.0, f"no sign of life for {sight.silent:,.0f} s"
    if is_lost and sight.is_gone:
        holds, message = True, f"{seconds} and its process is gone: the run is lost"
    elif is_lost or sight.status is RunStatus.RUNNING:
        holds, message = sight.silent >= longest, seconds
    else:
        holds, message = None, ""
    yield Finding(subject="heartbeat", holds=holds, message=message)


def _ended(rule: Rule, sight: Sight) -> Iterator[Finding]:
    run = sight.run
    finished = sight.status is RunStatus.FINISHED
    how = "damaged" if finished and run.outcome == "damaged" else str(sight.status)
    why = run.outcome_reason or (run.error or "").strip().rpartition("\n")[2]
    for subject in rule.ended or ():
        holds = None if sight.status is RunStatus.LOST else how == subject
        yield Finding(
            subject=subject, holds=holds, message=f"the run ended {how}{': ' if why else ''}{why}"
        )


def _red_flags(rule: Rule, sight: Sight) -> Iterator[Finding]:
    wanted = FLAGS if "any" in (rule.red_flags or ()) else rule.red_flags or ()
    up = {} if sight.diagnosis is None else {flag.name: flag for flag in sight.diagnosis.red_flags}
    for subject in wanted:
        flag = up.get(subject)
        message = "" if flag is None else f"{flag.name}: {flag.evidence}; {flag.advice}"
        holds = None if sight.diagnosis is None else flag is not None
        yield Finding(subject=subject, holds=holds, message=message)


_READ: Mapping[str, Callable[[Rule, Sight], Iterator[Finding]]] = {
    "regime": _regime,
    "kappa_above": _kappa,
    "horizon_left": _horizon_left,
    "collapse_within": _collapse,
    "silent_seconds": _silent,
    "ended": _ended,
    "red_flags": _red_flags,
}
