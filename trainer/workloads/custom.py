"""A person's own model, prompts and reward."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from storage.commandline import BadInput

from ..config import TrainerConfig
from ..judging import Judge
from ..own_files import Prompt, read_prompts
from ..policy import choose_device
from ..reward_model import RewardModel
from ..reward_process import RewardProcess
from ..rollout import Task

MAX_NEW_TOKENS = 32


def custom(config: TrainerConfig, home: Path, progress: Callable[[str], None]) -> tuple[Task, Path]:
    """Return the task and the folder of the person's own model.

    The chance reward is unknown, so the floor of collapse is the start's mean − 2 deviations.

    Raises:
        BadInput: a file cannot be used.
    """
    if config.model is None or config.prompts_file is None:
        raise BadInput("model: not given; the custom workload needs a model and prompts")
    prompts = read_prompts(config.prompts_file)
    folder = Path(config.model)
    max_new_tokens = config.max_new_tokens or MAX_NEW_TOKENS
    task = Task(
        name="custom",
        chance_reward=None,
        max_new_tokens=max_new_tokens,
        sample_prompts=lambda count, generator: _draw(prompts, count, generator),
        rewards=_judge(config),
        facts={"prompts": len(prompts)},
    )
    return task, folder


def _draw(prompts: Sequence[Prompt], count: int, generator: torch.Generator) -> list[str]:
    """Draw prompts: all different ones as long as there are enough."""
    device, most = generator.device, len(prompts)
    if count <= most:
        chosen = torch.randperm(most, generator=generator, device=device)[:count]
    else:
        chosen = torch.randint(most, (count,), generator=generator, device=device)
    return [prompts[i] for i in chosen.tolist()]


def _judge(config: TrainerConfig) -> Judge:
    if config.reward_model is not None:
        return RewardModel(Path(config.reward_model), choose_device(config.device))
    if config.reward is None:
        raise BadInput("reward: not given; the custom workload needs reward or reward_model")
    return RewardProcess(config.reward, seconds=config.reward_timeout, threads=config.threads)
