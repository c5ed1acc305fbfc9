"""Try inputs that coverage leads to: ``python tools/fuzz.py [KIND …] [--seconds N]``.

Each kind is a property of ``tests/anything.py``, tried in a process of its own for so many seconds.
An input that ends in an error which is not declared is printed with its traceback, ends it, and is
kept in ``runs/fuzz``.
"""

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
KINDS = ("logs", "configurations", "command_lines", "questions", "links")
FOUND = PROJECT / "runs" / "fuzz"
SEEDS, LONGEST, EVERY = 64, 8192, 100


def main() -> int:
    """Try every kind that was asked for; 1 when one of them found an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all")
    parser.add_argument("--seconds", type=int, default=300, help="for each kind (300)")
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.corpus:
        _try(given.kinds[0], given.seconds, given.corpus)
    failed = False
    for kind in given.kinds or KINDS:
        print(f"{kind}:", flush=True)
        with tempfile.TemporaryDirectory() as corpus:
            for seed in range(SEEDS):
                content = random.Random(seed).randbytes(LONGEST // 2)
                (Path(corpus) / str(seed)).write_bytes(content)
            words = [kind, "--seconds", str(given.seconds), "--corpus", corpus]
            done = subprocess.run([sys.executable, __file__, *words], cwd=PROJECT, check=False)
        if done.returncode != 0:
            print(f"{kind}: what was found is in {FOUND}", flush=True)
            failed = True
    return int(failed)


def _try(kind: str, seconds: int, corpus: str) -> None:
    """Hand this process over to libFuzzer, which ends it."""
    import atheris

    sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]
    with atheris.instrument_imports(include=["storage", "trainer", "advisor"]):
        from anything import PATIENT, PROPERTIES
    make = PATIENT(PROPERTIES[kind]).hypothesis.fuzz_one_input
    made = itertools.count(1)

    def tried(content: bytes) -> None:
        if make(content) is not None and (count := next(made)) % EVERY == 0:
            print(f"  {count} inputs", flush=True)  # bytes that make no input are not counted

    atheris.Setup([__file__, *options(seconds, FOUND), corpus], tried)
    atheris.Fuzz()


def options(seconds: int, found: Path) -> list[str]:
    """Return what libFuzzer is told; ``found`` is the folder for inputs that fail or are slow."""
    found.mkdir(parents=True, exist_ok=True)
    return [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={found}/",
        "-len_control=0",
        "-verbosity=0",
    ]


if __name__ == "__main__":
    sys.exit(main())
