"""A reward model: a sequence classifier with one label whose score is the reward."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from storage.commandline import BadInput

from .policy import loaded, loaded_tokenizer


class RewardModel:
    """Scores prompt + completion, as one text, by the class score at its last token."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load it from a folder that ``save_pretrained`` wrote, in fp32.

        A tokenizer without a padding token pads with its end-of-sequence token.

        Raises:
            BadInput: it cannot be loaded, has more than one label, or neither of the two tokens.
        """
        self.device = device
        self.tokenizer = loaded_tokenizer(folder, "reward_model", padding_side="right")
        self.model: Any = loaded(AutoModelForSequenceClassification, folder, "reward_model")
        self.model.to(device)
        self.model.eval()
        _make_ready(self.model, self.tokenizer, folder)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """Return one score per completion, higher is better; NaN and ±inf are kept.

        Equal pairs are scored once: it is faster, and their scores are equal to the last bit.
        """
        pairs = list(zip(map(str, prompts), completions, strict=True))
        different = list(dict.fromkeys(pairs))
        scores = self.scores(self.encode(*zip(*different, strict=True))).tolist()
        score_of = dict(zip(different, scores, strict=True))
        return [score_of[pair] for pair in pairs]

    def encode(self, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, Tensor]:
        """Return token ids and attention mask of prompt + completion, padded on the right."""
        texts = [f"{p}{c}" for p, c in zip(prompts, completions, strict=True)]
        encoded = self.tokenizer(texts, return_tensors="pt", padding=True)
        return {n: encoded[n].to(self.device) for n in ("input_ids", "attention_mask")}

    def scores(self, encoded: dict[str, Tensor]) -> Tensor:
        """Return the score of every row of what ``encode`` returned; gradients flow."""
        found: Tensor = self.model(**encoded).logits[:, 0].float()
        return found


def _make_ready(model: Any, tokenizer: Any, folder: Path) -> None:
    config = model.config
    if config.num_labels != 1:
        raise BadInput(
            f"reward_model: {str(folder)!r} has {config.num_labels} labels; allowed: 1, whose "
            "score is the reward"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise BadInput(
                f"reward_model: the tokenizer of {str(folder)!r} has neither a padding nor an "
                "end-of-sequence token; allowed: a tokenizer with one of them"
            )
        tokenizer.pad_token = tokenizer.eos_token
    config.pad_token_id = tokenizer.pad_token_id
