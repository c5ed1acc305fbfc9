"""How every command of Etalon reads its options and prints its answer: one contract for all three.

What a command prints goes through ``tell`` or ``print_json``: names, notes and messages of an
archive, and keys of a log, say nothing to the terminal. What else its process prints, such as a
traceback, ``terminal`` takes care of.

Exit codes: 0 done, 1 the run failed or collapsed, 2 bad input with one clear line per fault and
nothing on standard output, 130 interrupted. ``--json`` prints exactly one JSON object.
"""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, NoReturn

from .errors import StorageError
from .terminal import make_output_visible
from .words import visible

BAD_INPUT = 2
INTERRUPTED = 130

A_RUN = "its id, the beginning (4 letters or more) or last part of that, or its name, if one fits"

_DEL = "\x7f"
_LOOKS_NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)


class BadInput(ValueError):
    """Input that a person can correct: one line per fault with field, value and allowed range."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))


class Parser(argparse.ArgumentParser):
    """An argument parser that raises BadInput instead of printing its usage and exiting."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Turn argparse's complaint into one line."""
        raise BadInput(message)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command takes."""
    parser.add_argument(
        "--db",
        metavar="URL",
        help="archive: a file, sqlite:///FILE or postgresql+psycopg://… "
        "(default: ETALON_DB, else etalon.db in ETALON_HOME; a password belongs in ETALON_DB)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse arguments, taking ``--name -1e-4`` as a value and naming the nearest option of a typo.

    Raises:
        BadInput: an argument is unknown, given twice, missing its value, or not allowed.
    """
    words = _join_negative_values(argv)
    if faults := [*_not_text(words), *_before_the_command(parser, words), *_twice(parser, words)]:
        raise BadInput(*faults)
    found, unknown = parser.parse_known_args(words)
    if unknown:
        known = {text for action in _all_actions(parser) for text in action.option_strings}
        raise BadInput(*_unknown_arguments(unknown, known))
    return found


def _join_negative_values(argv: Sequence[str]) -> list[str]:
    """Write ``--x -1e-4`` as ``--x=-1e-4``: argparse takes a lone ``-1e-4`` for an option."""
    joined: list[str] = []
    for word in argv:
        previous = joined[-1] if joined else ""
        if _LOOKS_NEGATIVE.match(word) and previous.startswith("--") and "=" not in previous:
            joined[-1] = f"{previous}={word}"
        else:
            joined.append(word)
    return joined


def _not_text(words: Sequence[str]) -> list[str]:
    """Name the words that hold bytes of no text, which no database takes either."""
    return [f"{word!r}: not readable as text" for word in words if not is_text(word)]


def is_text(word: str) -> bool:
    """Whether a word can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _before_the_command(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    has_commands = any(isinstance(a, argparse._SubParsersAction) for a in parser._actions)
    if not has_commands or not words or not words[0].startswith("-"):
        return []
    if words[0] in ("-h", "--help"):
        return []
    return [f"{_name(words[0])}: options come after the command; see {parser.prog} --help"]


def _gathers(action: argparse.Action) -> bool:
    return isinstance(action, argparse._AppendAction)  # "extend" is one too


def _twice(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Name the options given more than once: which of the two was meant, only the person knows.

    Those that gather what they are given may be.
    """
    gathering = {
        name for each in _all_actions(parser) if _gathers(each) for name in each.option_strings
    }
    names = [_name(word) for word in words if word.startswith("--")]
    names = [name for name in names if name not in gathering]
    return [
        f"{name}: given twice; give it once"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def _name(word: str) -> str:
    return word.split("=", maxsplit=1)[0]


def _all_actions(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    for action in parser._actions:  # argparse has no public list of a parser's options
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _all_actions(sub)


USUAL_NAMES = {"--lr": "--learning-rate", "--epsilon": "--clip-epsilon", "-n": "--steps"}
"""What options are called elsewhere, where another of ours would look nearer."""


def _unknown_arguments(words: Sequence[str], known: set[str]) -> Iterable[str]:
    """One line for each word that no option takes; a word after an unknown option is its value."""
    for before, word in zip(["", *words], words, strict=False):
        name = _name(word)
        if before.startswith("-") and "=" not in before and not word.startswith("-"):
            continue
        usual = USUAL_NAMES.get(name)
        near = [usual] if usual in known else get_close_matches(name, known, n=1)
        if name in known:
            yield f"{name}: not an option of this command; see --help"
        elif near:
            yield f"{name}: unknown argument; did you mean {near[0]}?"
        else:
            yield f"{name}: unknown argument; see --help"


def be_command(command: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command with the arguments of this process, whatever it prints made visible."""
    make_output_visible()
    sys.exit(run_command(command, sys.argv[1:]))


def run_command(command: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run a command; errors that a person can mend become an exit code and one line each."""
    try:
        code = command(argv)
        sys.stdout.flush()  # here, where what goes wrong with it can still be told
        return code
    except (BadInput, StorageError) as error:
        tell(error, file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        tell("interrupted; everything up to the last step is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, say `head`, has gone
        _discard_output()
        return 0
    except OSError as error:  # a full disk, a folder that may not be written, a name too long
        tell(error, file=sys.stderr)
        _discard_output()
        return BAD_INPUT


def _discard_output() -> None:
    """Send nowhere what is still buffered: at exit Python would try to write it once more."""
    with suppress(OSError):  # standard output may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(*texts: object, **how: Any) -> None:
    """Print as ``print`` does, with what would steer a terminal made ``visible``."""
    print(*(visible(str(text)) for text in texts), **how)


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object; a non-finite number becomes null with its ``…_reason`` beside it."""
    words = json.dumps(_plain(answer), allow_nan=False)  # ASCII, with control characters escaped
    print(words.replace(_DEL, "\\u007f"))  # but this one


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain: dict[str, Any] = {}
        for key, item in value.items():
            plain[str(key)] = _plain(item)
            if isinstance(item, float) and not math.isfinite(item):
                plain.setdefault(f"{key}_reason", f"computed {item}")
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
