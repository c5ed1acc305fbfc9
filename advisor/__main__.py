"""Command line of the advisor: ``python -m advisor COMMAND``, see ``--help``."""

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from storage.commandline import (
    A_RUN,
    BadInput,
    Parser,
    add_common_options,
    be_command,
    parse,
    print_json,
    tell,
)
from storage.engine import database_url
from storage.importers.stacks import STACKS, stack_named
from storage.records import RunStatus
from storage.store import Store
from storage.words import in_a_line
from trainer.config import TrainerConfig
from trainer.config_options import add_config_options

from .advice import Advice, Question, checked_risk
from .alerts_command import add_alerts_options
from .alerts_command import run as run_alerts
from .answer import answer, ask, calibration_of, fitting_calibration, gather
from .compare_command import add_compare_options
from .compare_command import run as run_compare
from .diagnosis import diagnose
from .experiments.guard_command import add_guard_options
from .experiments.guard_command import run as run_guard
from .experiments.laws_command import add_laws_options
from .experiments.laws_command import run as run_laws
from .experiments.probe_command import add_probe_options
from .experiments.probe_command import run as run_probe
from .experiments.validation_command import add_validation_options
from .experiments.validation_command import run as run_validation
from .experiments.watch_command import add_watch_options
from .experiments.watch_command import run as run_watch
from .plan_command import add_plan_options
from .plan_command import run as run_plan
from .regime import Diagnosis, Regime
from .settings_for import settings_for
from .wording import at_most, probe_command, span

ALARM = 3
RATES = {
    "max_learning_rate": "max_learning_rate",
    "suggested_learning_rate": "suggested_learning_rate",
    "edge": "edge (half fail)",
    "low": "edge, at least (95%)",
    "high": "edge, at most (95%)",
}
"""What the rates of an answer are called in its text: of what low and high are, it has to say."""
EXIT_CODES = {
    Regime.STABLE: 0,
    Regime.COLLAPSED: 1,
    Regime.DIVERGED: 1,
    Regime.STALENESS_LIMITED: ALARM,
    Regime.HORIZON_LIMITED: ALARM,
    Regime.STEP_LIMITED: ALARM,
    Regime.INSUFFICIENT_DATA: 4,
}


def main(argv: Sequence[str]) -> int:
    """Run one command of ``python -m advisor`` and return its exit code."""
    options = parse(_parser(), argv)
    commands = {
        "recommend": _recommend,
        "probe": run_probe,
        "validate": run_validation,
        "diagnose": _diagnose,
        "compare": run_compare,
        "watch": run_watch,
        "alerts": run_alerts,
        "laws": run_laws,
        "plan": run_plan,
        "guard": run_guard,
    }
    return commands[options.command](options)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m advisor", description="Say what the measurements mean.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    words = "the largest safe learning rate of a setting"
    recommend = commands.add_parser("recommend", help=words, description=words)
    add_common_options(recommend)
    recommend.add_argument(
        "--risk", default="0.05", metavar="X", help="accepted P(unsafe); 0 < risk < 1 (0.05)"
    )
    source = recommend.add_mutually_exclusive_group()
    source.add_argument("--run", metavar="RUN", help=f"take this run alone as evidence: {A_RUN}")
    source.add_argument("--group", metavar="G", help="take the runs of this group")
    source.add_argument("--calibration", metavar="ID", help="take this probe alone as evidence")
    source.add_argument("--literature", action="store_true", help="published settings only")
    recommend.add_argument(
        "--settings-for", metavar="STACK", help=f"write the answer for {' | '.join(STACKS)}"
    )
    add_config_options(recommend, skip=("seed", "threads", "device", "engine", "name", "group"))
    words = "measure a setting with short runs from its starting weights"
    probe = commands.add_parser("probe", help=words, description=words)
    add_common_options(probe)
    add_probe_options(probe)
    words = "try the advice on settings it was not tuned on"
    validate = commands.add_parser("validate", help=words, description=words)
    add_common_options(validate)
    add_validation_options(validate)
    words = "the regime of a run, with its reasons"
    judge = commands.add_parser("diagnose", help=words, description=words)
    add_common_options(judge)
    judge.add_argument("run", help=A_RUN)
    words = "what differs between runs, and how each ended"
    compare = commands.add_parser("compare", help=words, description=words)
    add_common_options(compare)
    add_compare_options(compare)
    words = "judge live runs, store what changes, and alert"
    watch = commands.add_parser("watch", help=words, description=words)
    add_common_options(watch)
    add_watch_options(watch)
    words = "which alerts were raised, and how each delivery went"
    alerts = commands.add_parser("alerts", help=words, description=words)
    add_common_options(alerts)
    add_alerts_options(alerts)
    words = "the paper's three laws on archived runs, with their intervals"
    laws = commands.add_parser("laws", help=words, description=words)
    add_common_options(laws)
    add_laws_options(laws)
    words = "the short runs to make in another trainer, whose logs calibrate its setting"
    planned = commands.add_parser("plan", help=words, description=words)
    add_common_options(planned)
    add_plan_options(planned)
    words = "a run under the governor, which lowers its learning rate where it must"
    guard = commands.add_parser("guard", help=words, description=words)
    add_common_options(guard)
    add_guard_options(guard)
    return parser


def _recommend(options: argparse.Namespace) -> int:
    faults = [
        f"{name}: not given; say for which --{name.replace('_', '-')} the rate shall hold"
        for name in ("max_staleness", "steps")
        if getattr(options, name) is None
    ]
    if faults:
        raise BadInput(*faults)
    risk = checked_risk(options.risk)
    if options.settings_for is not None:
        stack_named(options.settings_for.replace("-", "_"))
    settings = {n: getattr(options, n, None) for n in TrainerConfig.model_fields if n != "group"}
    if _is_new(options.db):  # told before an archive is made: what is at fault leaves nothing
        ask(settings=settings, evidence=[], risk=risk)
    named = any(x is not None for x in (options.run, options.group, options.calibration))
    with closing(Store.open(options.db, create=options.db is None and not named)) as store:
        probed = (
            calibration_of(store, options.calibration) if options.calibration is not None else None
        )
        none = options.literature or probed is not None
        run_id = None if options.run is None else store.run_id_of(options.run)
        found = [] if none else gather(store, group=options.group, run_id=run_id)
        if options.group is not None and not found:
            raise BadInput(f"group: {options.group!r} has no run in the archive; see storage list")
        question = ask(settings=settings, evidence=found, risk=risk, found=probed)
        if not none and not named:
            probed = fitting_calibration(store, question.setting)
        advice = answer(store, question, found, probed)
    written = _settings(options.settings_for, question, advice)
    if options.json:
        print_json(advice.as_json() | written)
    else:
        tell(_advice_text(advice), *(text for text in written.values() if text), sep="\n")
        if not advice.calibrated:
            tell(f"to measure it: {probe_command(question.setting)}")
    return 0


def _settings(stack: str | None, question: Question, advice: Advice) -> dict[str, str | None]:
    """Return the advised setting in the options of a stack, if one was asked for."""
    if stack is None:
        return {}
    rate = advice.suggested_learning_rate or advice.max_learning_rate
    if rate is None:
        return {"settings": None, "settings_reason": "no rate is advised"}
    told = {**question.setting.model_dump(), "learning_rate": at_most(rate)}
    return {"settings": settings_for(stack, TrainerConfig.model_validate(told))}


def _is_new(db: str | None) -> bool:
    """Whether the archive is a file that is not there yet."""
    url = database_url(db)
    return url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists()


def _advice_text(advice: Advice) -> str:
    lines = [advice.reason]
    for name, label in RATES.items():
        value = getattr(advice, name)
        shown = f"- ({advice.reasons.get(name)})"
        if value is not None:
            shown = f"{value:.3g}".replace("e-0", "e-")
        lines.append(f"{label:<24} {shown}")
    lines.append(f"{'binding':<24} {advice.binding}")
    lines.append(f"{'regime':<24} {advice.regime} ({advice.reasons['regime']})")
    return "\n".join([*lines, *(in_a_line(f"evidence: {each}") for each in advice.evidence)])


def _diagnose(options: argparse.Namespace) -> int:
    with closing(Store.open(options.db, create=False)) as store:
        run = store.run(store.run_id_of(options.run))
        found = diagnose(store, run.id)
    if options.json:
        print_json(found.as_json())
    else:
        tell(_diagnosis_text(found))
    damaged = run.status == RunStatus.FINISHED and run.outcome == "damaged"
    ended_badly = found.regime in (Regime.COLLAPSED, Regime.DIVERGED)
    alarm = damaged or (found.alarm and not ended_badly)
    return ALARM if alarm else EXIT_CODES[found.regime]


def _diagnosis_text(found: Diagnosis) -> str:
    lines = [f"{found.regime}: {found.reason}"]
    if found.change is not None:
        lines.append(f"to change: {found.change}")
    lines += [f"{f.name}: {f.evidence}; {f.advice}" for f in found.red_flags]
    kappas = {
        "staleness": found.kappa_staleness,
        "horizon": found.kappa_horizon,
        "slide": found.kappa_slide,
        "local step": found.kappa_local,
    }
    lines.append("how much of each limit is used, where 1 is all of it:")
    for name, kappa in kappas.items():
        lines.append(f"  {name:<11}{span(kappa):<16}{kappa.reason or 'measured on this run'}")
    return "\n".join(lines)


if __name__ == "__main__":
    be_command(main)
