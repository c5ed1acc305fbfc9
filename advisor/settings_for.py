"""A setting in the words of the stack that is to train with it."""

from storage.importers.snippets import settings
from trainer.config import TrainerConfig


def settings_for(stack: str, config: TrainerConfig) -> str:
    """Return a configuration as lines of a stack's own, S in its unit.

    Raises:
        BadInput: the stack is unknown, or S is out of its range.
    """
    return settings(
        stack.replace("-", "_"),
        learning_rate=config.learning_rate,
        max_staleness=config.max_staleness,
        steps=config.steps,
        clip_epsilon=config.clip_epsilon,
        clip_epsilon_high=config.epsilon_high,
        loss=config.loss,
        group_size=config.group_size,
        prompts=config.prompts,
    )
