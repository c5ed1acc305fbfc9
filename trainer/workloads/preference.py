"""Two-digit addition rewarded by a model of what simulated annotators prefer.

The policy is the warm start of the arithmetic workload. Annotators compare its answers, a reward
model is fitted to their choices, and GRPO optimises that model's score, which is not what anybody
wanted: the exact reward is kept as gold and shows when the score is being exploited.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForSequenceClassification

from ..bradley_terry import Comparisons, fit, pair_accuracy, prefers_first
from ..cache import cached_folder, content_key, read_card
from ..config import TrainerConfig
from ..policy import choose_device, load_policy
from ..randomness import generator
from ..reward_model import RewardModel
from ..rollout import Task
from .annotators import Annotators, compare
from .arithmetic import (
    MAX_NEW_TOKENS,
    VOCABULARY,
    build_tokenizer,
    exact_match,
    sample_prompts,
    starting_policy,
)

BAND = (0.66, 0.72)
"""Success rates of the starting policy: lower than for arithmetic, so that the reward model has
mistakes to learn from and gold has room to rise before it falls."""
CARD = "reward_model.json"
HIDDEN_SIZE = 64
LAYERS = 3  # two layers hardly learn to tell a right sum from a wrong one, whatever the data
INITIALIZER_RANGE = 0.06  # the usual 0.02 is for wide models: at 64 it attends to nothing for long
HELD_OUT_COMPARISONS = 2048
KNOWN_ACCURACIES = ("pair_accuracy", "right_accuracy", "annotator_accuracy")


def preference(
    config: TrainerConfig, home: Path, progress: Callable[[str], None]
) -> tuple[Task, Path]:
    """Return the task and the folder of its starting policy; the reward model is made if needed."""
    start = starting_policy(config, BAND, home, progress)
    folder = cached_folder(
        home / "reward_models",
        CARD,
        identity(config, start),
        lambda making: _make(config, start, making, progress),
    )
    task = Task(
        name="preference",
        chance_reward=len(VOCABULARY) ** -MAX_NEW_TOKENS,
        max_new_tokens=MAX_NEW_TOKENS,
        sample_prompts=sample_prompts,
        rewards=RewardModel(folder, choose_device(config.device)),
        gold=exact_match,
        facts={"reward_model": folder.name, **_worth_knowing(read_card(folder, CARD))},
    )
    return task, start


def identity(config: TrainerConfig, start: Path) -> dict[str, Any]:
    """Return everything that the reward model depends on."""
    return {
        "workload": "preference",
        "version": 1,
        "policy": content_key(start),
        "annotator_noise": config.annotator_noise,
        "annotator_bias": config.annotator_bias,
        "annotator_seed": config.annotator_seed,
        "comparisons": config.comparisons,
        "reward_model_accuracy": config.reward_model_accuracy,
        "hidden_size": HIDDEN_SIZE,
        "layers": LAYERS,
        "torch": torch.__version__,
    }


def _worth_knowing(card: Mapping[str, Any]) -> dict[str, Any]:
    return {name: card[name] for name in KNOWN_ACCURACIES}


def _make(
    config: TrainerConfig, start: Path, making: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Have answers compared, fit the reward model, and save it; return how well it predicts."""
    device = torch.device("cpu")  # small, and the same reward model on every machine
    policy, tokenizer = load_policy(start, device)
    draws = generator(device, config.annotator_seed, 2)
    annotators = Annotators(
        right=exact_match,
        noise=config.annotator_noise,
        bias=config.annotator_bias,
        largest_digits=MAX_NEW_TOKENS,
    )
    progress("reward model: annotators compare answers")
    train, test, held_out = (
        compare(annotators, policy, tokenizer, count, part, draws)
        for count, part in (
            (config.comparisons, "train"),
            (HELD_OUT_COMPARISONS, "test"),
            (HELD_OUT_COMPARISONS, "held out"),
        )
    )
    _build_empty(making)
    model = RewardModel(making, device)
    steps = fit(model, train, test, config.reward_model_accuracy, draws, progress)
    model.model.save_pretrained(making)
    found = {"steps": steps, **_accuracies(model, held_out)}
    progress(f"reward model: done, held-out pair accuracy {found['pair_accuracy']:.3f}")
    return found


def _build_empty(folder: Path) -> None:
    """Save an untrained reward model: Qwen2, 64 wide, 3 layers, 199 k parameters."""
    tokenizer = build_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)  # transformers initialises from the global generator
        model: Any = Qwen2ForSequenceClassification(
            Qwen2Config(
                vocab_size=len(VOCABULARY),
                hidden_size=HIDDEN_SIZE,
                intermediate_size=4 * HIDDEN_SIZE,
                num_hidden_layers=LAYERS,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=64,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                num_labels=1,
                initializer_range=INITIALIZER_RANGE,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _accuracies(model: RewardModel, held_out: Comparisons) -> dict[str, Any]:
    """Return how well held-out choices are predicted, and how well right answers are told.

    ``pair_accuracy`` is on the annotators' choices; on the pairs with exactly one right answer
    ``right_accuracy`` is the share where the model scores it higher, ``annotator_accuracy`` the
    share where the annotator preferred it; None if there is no such pair.
    """
    predicted = prefers_first(model, held_out)
    better = torch.tensor(exact_match(held_out.prompts, held_out.preferred))
    worse = torch.tensor(exact_match(held_out.prompts, held_out.rejected))
    decided = better != worse
    return {
        "pair_accuracy": pair_accuracy(model, held_out),
        "right_accuracy": _share((predicted == (better > worse))[decided]),
        "annotator_accuracy": _share((better > worse)[decided]),
    }


def _share(yes: Tensor) -> float | None:
    return float(yes.float().mean()) if len(yes) else None
