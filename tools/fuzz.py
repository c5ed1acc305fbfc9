"""Try inputs that coverage leads to: ``python tools/fuzz.py [KIND …] [--seconds N]``.

Each kind is a property of ``tests/anything.py``, tried in a process of its own for so many seconds.
An input that ends in an error which is not declared is printed with its traceback, and ends it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
KINDS = ("logs", "configurations", "command_lines", "questions", "links")


def main() -> int:
    """Try every kind that was asked for; 1 when one of them found an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all")
    parser.add_argument("--seconds", type=int, default=300, help="for each kind (300)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        _try(given.kinds[0], given.seconds)
    failed = False
    for kind in given.kinds or KINDS:
        print(f"{kind}:", flush=True)
        words = [sys.executable, __file__, kind, "--here", "--seconds", str(given.seconds)]
        failed |= subprocess.run(words, cwd=PROJECT, check=False).returncode != 0
    return int(failed)


def _try(kind: str, seconds: int) -> None:
    """Hand the process over to libFuzzer, which ends it."""
    import atheris

    sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]
    with atheris.instrument_imports(include=["storage", "trainer", "advisor"]):
        from anything import PATIENT, PROPERTIES
    tried = PATIENT(PROPERTIES[kind]).hypothesis.fuzz_one_input
    options = [
        f"-max_total_time={seconds}",
        "-max_len=8192",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([__file__, *options], tried)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
