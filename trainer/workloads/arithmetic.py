"""Two-digit addition with an exact-match reward: verifiable, and small enough for a laptop.

A prompt is "12+34=", its answer "46" and then the end of the sequence; sums have two or three
digits, so every right answer fits in three tokens.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from ..config import TrainerConfig
from ..rollout import Task
from ..warm_start import Recipe, warm_started

MAX_NEW_TOKENS = 3
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
VOCABULARY = (*SPECIAL, *"0123456789+=")
SUPERVISED_BATCH = 128
BAND = (0.73, 0.80)
"""Success rates of the starting policy: there is something to learn, and something to lose."""
HALF_BAND = 0.03
"""How far a success rate that was asked for may be missed."""
BUILT_FOR_WIDTH = 64
LEARNING_RATE = 3e-3
TESTED_PROBLEMS = 2048
TESTED_PROBLEMS_LARGE = 512  # a test of 2 048 costs a large model as much as six steps
LARGE_FROM_WIDTH = 256


def arithmetic(
    config: TrainerConfig, home: Path, progress: Callable[[str], None]
) -> tuple[Task, Path]:
    """Return the task and the folder of its warm-started policy, or of the person's own."""
    task = Task(
        name="arithmetic",
        chance_reward=len(VOCABULARY) ** -MAX_NEW_TOKENS,
        max_new_tokens=MAX_NEW_TOKENS,
        sample_prompts=sample_prompts,
        rewards=exact_match,
    )
    return task, starting_policy(config, BAND, home, progress)


def starting_policy(
    config: TrainerConfig,
    band: tuple[float, float],
    home: Path,
    progress: Callable[[str], None],
) -> Path:
    """Return the folder of the person's own model, else of one warm-started into the band."""
    if config.model is not None:
        return Path(config.model)
    if config.warm_start_success is not None:
        band = (
            round(config.warm_start_success - HALF_BAND, 6),
            round(config.warm_start_success + HALF_BAND, 6),
        )
    return warm_started(recipe(config.hidden_size, config.layers, band), home, progress)


def sample_prompts(count: int, generator: torch.Generator) -> list[str]:
    """Draw problems whose two terms are uniform in 10…99."""
    terms = torch.randint(10, 100, (count, 2), generator=generator, device=generator.device)
    return [f"{a}+{b}=" for a, b in terms.tolist()]


def exact_match(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return, for each completion, 1 for the exact sum and 0 for anything else."""
    return [float(c == _sum(p)) for p, c in zip(prompts, completions, strict=True)]


def _sum(prompt: str) -> str:
    left, right = prompt.rstrip("=").split("+")
    return str(int(left) + int(right))


def recipe(hidden_size: int, layers: int, band: tuple[float, float] = BAND) -> Recipe:
    """Describe the warm start to a success rate within the band.

    The learning rate falls as 1/width above 64, at which Adam moves the outputs of a layer equally
    far whatever its width (arXiv 2203.03466).
    """
    answered = _answered_problems()
    tested = torch.randperm(len(answered), generator=torch.Generator().manual_seed(1))

    problems = TESTED_PROBLEMS if hidden_size < LARGE_FROM_WIDTH else TESTED_PROBLEMS_LARGE
    learning_rate = LEARNING_RATE * min(1.0, BUILT_FOR_WIDTH / hidden_size)

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(answered), (SUPERVISED_BATCH,), generator=generator)
        return -_answer_log_probs(model, answered[chosen]).mean()

    @torch.no_grad()
    def success_rate(model: nn.Module) -> float:
        """Exact probability of the right answer, averaged over a fixed set of problems."""
        chosen = answered[tested[:problems]]
        return float(_answer_log_probs(model, chosen).sum(dim=1).exp().mean())

    return Recipe(
        identity={
            "workload": "arithmetic",
            "version": 1,
            "hidden_size": hidden_size,
            "layers": layers,
            "vocabulary": "".join(VOCABULARY),
            "band": band,
            "learning_rate": learning_rate,
            "tested_problems": problems,
            "torch": torch.__version__,
        },
        build=lambda: (build_model(hidden_size, layers), build_tokenizer()),
        loss=loss,
        success_rate=success_rate,
        low=band[0],
        high=band[1],
        learning_rate=learning_rate,
    )


def build_tokenizer() -> Any:
    """Build the character tokenizer: one token per digit and sign."""
    vocabulary = {token: i for i, token in enumerate(VOCABULARY)}
    raw = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(pattern="", behavior="isolated")
    raw.decoder = decoders.Fuse()
    pad, bos, eos, unk = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        padding_side="left",
    )


def build_model(hidden_size: int, layers: int) -> nn.Module:
    """Build a random Qwen2 causal LM; 64 wide and 2 layers deep it has 134 k parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # transformers initialises from the global generator
        model: nn.Module = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(VOCABULARY),
                hidden_size=hidden_size,
                intermediate_size=4 * hidden_size,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=64,
                pad_token_id=VOCABULARY.index("<pad>"),
                bos_token_id=VOCABULARY.index("<s>"),
                eos_token_id=VOCABULARY.index("</s>"),
                tie_word_embeddings=True,
            )
        )
    return model.eval()


def _answered_problems() -> Tensor:
    """Return all 8 100 problems with their answers as token ids, [8100, 9]."""
    eos = VOCABULARY.index("</s>")
    rows = []
    for a in range(10, 100):
        for b in range(10, 100):
            ids = [VOCABULARY.index(sign) for sign in f"{a}+{b}={a + b}"]
            rows.append(ids + [eos] * (6 + MAX_NEW_TOKENS - len(ids)))
    return torch.tensor(rows)


def _answer_log_probs(model: nn.Module, answered_N_L: Tensor) -> Tensor:
    """Return log π of each of the three answer tokens, [N, 3]."""
    logits: Tensor = model(
        answered_N_L[:, :-1], logits_to_keep=MAX_NEW_TOKENS, use_cache=False
    ).logits
    chosen = answered_N_L[:, -MAX_NEW_TOKENS:].unsqueeze(2)
    return logits.log_softmax(dim=2).gather(2, chosen).squeeze(2)
