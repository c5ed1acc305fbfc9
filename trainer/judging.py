"""What a reward function is, and how what it returned becomes one number per completion.

Imports neither torch nor transformers: the process of a person's own reward function needs neither.
"""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

Judge = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""``(prompts, completions)``, two lists of equal length, to one value per completion."""


class RewardFailed(RuntimeError):
    """The reward raised, took too long, or returned something else than numbers."""


def judgments(judge: Judge, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return one number per completion; a NaN or ±inf of the judge is kept as such.

    Raises:
        RewardFailed: the judge raised, or did not return one number per completion.
    """
    try:
        found: Any = judge(prompts, completions)
        values = found.tolist() if hasattr(found, "tolist") else found
    except RewardFailed:
        raise
    except Exception as error:
        raise RewardFailed(f"the reward raised {type(error).__name__}: {error}") from error
    if not isinstance(values, (list, tuple)):
        raise RewardFailed(
            f"the reward returned {_shown(values)}; it must return a list, one number for each "
            f"of {len(completions)} completions"
        )
    if len(values) != len(completions):
        raise RewardFailed(
            f"the reward returned {len(values)} values for {len(completions)} completions; "
            "it must return one number for each"
        )
    for value, completion in zip(values, completions, strict=True):
        if not isinstance(value, Real):
            raise RewardFailed(
                f"the reward returned {_shown(value)} for the completion {completion!r}; it must "
                "return a number"
            )
    return [float(value) for value in values]


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:60] + '…'} ({type(value).__name__})"
