"""A person's own reward function in a process of its own, so that one that hangs can be ended.

A signal or a thread could not do it: code in C hears neither, code in Python may catch both, and
some reward functions use the alarm signal themselves. Killing a process always works, and one that
crashes takes no run along. Calls go in and judgments come out over a socket; when it ends, for
whatever reason, so does the process. What the function prints goes to standard error.

Both ends are here, and neither imports torch.
"""

import contextlib
import inspect
import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from storage.commandline import BadInput
from storage.terminal import make_output_visible

from .judging import RewardFailed, judgments
from .own_files import Prompt, reward_function

STDERR = 2
LEAST_TO_BEGIN = 60.0
"""Seconds that the process may always take to begin: how long that takes is not the function's."""
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from trainer.reward_process import serve; serve(int(sys.argv[2]), sys.argv[3])"
)


class RewardProcess:
    """Calls ``module:function`` in another process, which begins with the first call."""

    def __init__(self, reward: str, *, seconds: float, threads: int) -> None:
        """``seconds`` is how long each call of the function may take, and importing it at least."""
        self._reward, self._seconds, self._threads = reward, seconds, threads
        self._connection: Connection | None = None

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """Return what the function does, one number per completion.

        Raises:
            RewardFailed: it raised, took too long, returned something else, or its process died.
        """
        if self._connection is None:
            self._begin()
            self._answer("importing the reward", max(self._seconds, LEAST_TO_BEGIN))
        message = pickle.dumps((list(prompts), list(completions)))
        with contextlib.suppress(OSError):  # it has died, which reading from it will tell
            self._open.send_bytes(message)
        what = f"the reward of {len(completions)} completions"
        values: list[float] = self._answer(what, self._seconds)
        return values

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("the process of the reward has not begun")
        return self._connection

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", START),
                    *(json.dumps(sys.path), str(theirs.fileno()), self._reward),
                ],
                env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # deaf to the terminal's interrupt, as the run ends it
            )
        self._connection = Connection(ours.detach())
        self._end = weakref.finalize(self, _end, self._process, self._connection)

    def _answer(self, what: str, seconds: float) -> Any:
        """Wait for an answer, and end the process if none comes in time."""
        try:
            if not self._open.poll(seconds):
                self._end()
                raise RewardFailed(
                    f"{what} took longer than {seconds:g} s, and was ended; make it faster, or "
                    f"allow more than {seconds:g} by reward_timeout"
                )
            answer = pickle.loads(self._open.recv_bytes())
        except (EOFError, OSError):
            self._end()
            code = self._process.returncode
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise RewardFailed(f"{what}: its process ended {how}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _end(process: "subprocess.Popen[bytes]", connection: Connection) -> None:
    """End a process and what it started; it has a moment to do so once its connection is gone."""
    connection.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
    with contextlib.suppress(ProcessLookupError):  # nobody is left in its group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# -- the other end ----------------------------------------------------------------------------


def serve(descriptor: int, reward: str) -> None:
    """Judge what comes in until the connection ends, and then end this process at once."""
    make_output_visible()
    connection = Connection(descriptor)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                calls.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    try:
        judge = _judge(reward_function(reward))
    except BadInput as error:
        connection.send_bytes(_packed(RewardFailed(str(error)), error))
        return
    connection.send_bytes(pickle.dumps(None))
    while True:
        prompts, completions = pickle.loads(calls.get())
        try:
            answer = pickle.dumps(judgments(judge, prompts, completions))
        except RewardFailed as error:
            answer = _packed(error, error)
        connection.send_bytes(answer)


def _packed(answer: RewardFailed, cause: Exception) -> bytes:
    """Return an error with its traceback as a note: the objects in it may be the person's own."""
    answer.add_note("".join(traceback.format_exception(cause)))
    return pickle.dumps(answer)


def _judge(function: Callable[..., Any]) -> Callable[[Sequence[str], Sequence[str]], Any]:
    accepted = _accepted_keys(function)

    def judge(prompts: Sequence[str], completions: Sequence[str]) -> Any:
        columns = _columns(prompts)
        if accepted is not None:
            columns = {key: column for key, column in columns.items() if key in accepted}
        texts = [str(prompt) for prompt in prompts]
        return function(prompts=texts, completions=list(completions), **columns)

    return judge


def _accepted_keys(function: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names that a function takes by keyword; None for any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in functions have no signature
        return None
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters)


def _columns(prompts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the other keys of the prompts' lines as columns; None where a line lacks one."""
    rows = [prompt.keys if isinstance(prompt, Prompt) else {} for prompt in prompts]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
