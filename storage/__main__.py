"""Command line of the archive: ``python -m storage COMMAND``, see ``--help``."""

import argparse
from collections.abc import Sequence

from . import copy_command, exchange_command, look_command, manage_command
from .commandline import A_RUN, Parser, add_common_options, be_command, parse
from .importers.reading import FORMATS
from .importers.stacks import STACKS
from .store import Store

_COMMANDS = {
    "list": look_command.list_runs,
    "show": look_command.show_run,
    "check": manage_command.check,
    "archive": manage_command.archive,
    "delete": manage_command.delete,
    "tag": manage_command.tag,
    "note": manage_command.note,
    "export": exchange_command.export,
}
_OF_ALL_RUNS = ("list", "check")


def main(argv: Sequence[str]) -> int:
    """Run one command of ``python -m storage`` and return its exit code."""
    options = parse(_parser(), argv)
    if options.command == "migrate":
        return manage_command.migrate(options)
    if options.command == "copy":
        return copy_command.copy(options)
    if options.command == "import":
        return exchange_command.import_log(options)
    if options.command == "show":
        options.last = look_command.count(options.last)
    store = Store.open(options.db, create=options.db is None and options.command in _OF_ALL_RUNS)
    try:
        if "run" in options:
            options.run = store.run_id_of(options.run)
        return int(_COMMANDS[options.command](store, options))
    finally:
        store.close()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m storage", description="Look into the archive of runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {}
    for name, words in (
        ("list", "the runs, newest first"),
        ("show", "one run: configuration, outcome and its newest steps"),
        ("import", "make a run of another trainer's log, or bring it up to date"),
        ("export", "write a run into a file: CSV, Parquet or JSON"),
        ("tag", "give a run these tags and no others"),
        ("note", "write a note on a run"),
        ("archive", "put a run away, out of the lists; nothing is deleted"),
        ("delete", "remove runs for good"),
        ("check", "find and name inconsistencies"),
        ("migrate", "bring an older archive to this code's schema"),
    ):
        made[name] = commands.add_parser(name, help=words, description=words)
        add_common_options(made[name])
    copy_command.add_parser(commands)
    for name in ("show", "archive", "tag", "note", "export"):
        made[name].add_argument("run", help=A_RUN)
    made["list"].add_argument("--archived", action="store_true", help="the archived ones too")
    words = "mend what can be mended, after a copy of the archive was made"
    made["check"].add_argument("--repair", action="store_true", help=words)
    made["show"].add_argument("--last", default="1", metavar="N", help="newest steps to show (1)")
    made["archive"].add_argument("--undo", action="store_true", help="bring it back")
    made["delete"].add_argument("runs", nargs="+", metavar="run", help=A_RUN)
    made["delete"].add_argument("--yes", action="store_true", help="do not ask")
    made["tag"].add_argument("words", nargs="*", metavar="word", help="tags; none takes all away")
    made["note"].add_argument("text", help="the note; empty takes it away")
    made["export"].add_argument("--to", required=True, metavar="FILE", help=".csv, .parquet, .json")
    made["export"].add_argument("--force", action="store_true", help="write over a file")
    _add_import_options(made["import"])
    return parser


def _add_import_options(command: argparse.ArgumentParser) -> None:
    words = (
        "JSONL log, trainer_state.json of a checkpoint, TensorBoard event files or their folder, "
        "or database of a trackio project; several are files of one run"
    )
    command.add_argument("paths", nargs="+", metavar="path", help=words)
    command.add_argument(
        "--format", default="auto", metavar="X", help=f"auto | {' | '.join(FORMATS)} (auto)"
    )
    command.add_argument("--run", metavar="NAME", help="which run of a trackio project")
    command.add_argument(
        "--follow", action="store_true", help="go on as the log grows, until interrupted"
    )
    command.add_argument(
        "--stack",
        metavar="NAME",
        help=f"who wrote it, if its keys do not tell: {' | '.join(STACKS)}",
    )
    command.add_argument("--name", help="name shown in lists (the file's)")
    command.add_argument("--group", help="runs that belong together")
    command.add_argument(
        "--set",
        action="extend",
        nargs="+",
        metavar="K=V",
        help="settings the log does not hold: learning_rate, max_staleness (learner steps), steps, "
        "…, or the stack's own names; knob is its staleness in its own unit",
    )


if __name__ == "__main__":
    be_command(main)
