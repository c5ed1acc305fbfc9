"""Rollouts: completions that the behavior policy samples, and how any policy scores them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from .decoding import Decoded, decode, look_every, positions_of
from .judging import Judge, judgments
from .recomputation import checkpointed_layers, recomputed
from .transfer import on_host


class NonFinitePolicy(ArithmeticError):
    """The policy's probabilities are not numbers, so nothing can be sampled from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked and how an answer is rewarded.

    ``sample_prompts(n, generator)`` draws n prompts; ``rewards(prompts, completions)`` judges a
    whole batch, one value per completion: it is what the learner is trained on. ``gold``, where
    there is one, judges the same batch by what was really wanted; it never reaches the learner.
    ``chance_reward`` is what guessing earns of the reward that matters (gold where there is one):
    the floor below which a policy cannot fall (theory.md §6); None where nobody knows it.
    ``facts`` is what is worth knowing about the task in the run's record.
    """

    name: str
    chance_reward: float | None
    max_new_tokens: int
    sample_prompts: Callable[[int, torch.Generator], list[str]]
    rewards: Judge
    gold: Judge | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """A batch of P prompts with G completions each, B = P·G rows, prompt by prompt.

    ``behavior_log_probs_B_T`` are log π_φ of the sampled tokens as the sampler saw them;
    ``mask_B_T`` is 1 up to and with the end-of-sequence token. ``gold_P_G`` is None where the task
    has no gold reward. ``versions_B_T`` are the learner steps whose weights sampled each token,
    None where one version that the schedule knows sampled them all. ``padded`` says whether a
    prompt may be padded, so that nobody has to ask the device.
    """

    prompts: list[str]
    completions: list[str]
    prompt_ids_B_L: Tensor
    prompt_mask_B_L: Tensor
    completion_ids_B_T: Tensor
    mask_B_T: Tensor
    behavior_log_probs_B_T: Tensor
    rewards_P_G: Tensor
    gold_P_G: Tensor | None = None
    versions_B_T: Tensor | None = None
    padded: bool = True

    @property
    def decisive_P_G(self) -> Tensor:  # noqa: N802 – an array, with its axes
        """The reward that matters: gold where there is one, else the reward (theory.md §6)."""
        return self.rewards_P_G if self.gold_P_G is None else self.gold_P_G

    def rows(self, chosen: slice | Tensor) -> "Rollouts":
        """Return what ``score`` reads of some rows; unless groups are whole, each is its own."""
        if isinstance(chosen, slice) and chosen == slice(0, len(self.mask_B_T)):
            return self
        group_size = self.rewards_P_G.shape[1]
        mask_B_L = self.prompt_mask_B_L[chosen]
        ends = (chosen.start, chosen.stop) if isinstance(chosen, slice) else (1, 1)
        whole = all(end % group_size == 0 for end in ends)
        members = group_size if whole else 1
        return replace(
            self,
            prompt_ids_B_L=self.prompt_ids_B_L[chosen],
            prompt_mask_B_L=mask_B_L,
            completion_ids_B_T=self.completion_ids_B_T[chosen],
            mask_B_T=self.mask_B_T[chosen],
            behavior_log_probs_B_T=self.behavior_log_probs_B_T[chosen],
            rewards_P_G=self.rewards_P_G.reshape(-1)[chosen].view(-1, members),
            padded=self.padded and not bool(mask_B_L.all()),
        )

    def first(self, prompts: int) -> "Rollouts":
        """Return the rollouts of the first ``prompts`` prompts."""
        rows = prompts * self.rewards_P_G.shape[1]
        mask_B_L = self.prompt_mask_B_L[:rows]
        return Rollouts(
            prompts=self.prompts[:prompts],
            completions=self.completions[:rows],
            prompt_ids_B_L=self.prompt_ids_B_L[:rows],
            prompt_mask_B_L=mask_B_L,
            completion_ids_B_T=self.completion_ids_B_T[:rows],
            mask_B_T=self.mask_B_T[:rows],
            behavior_log_probs_B_T=self.behavior_log_probs_B_T[:rows],
            rewards_P_G=self.rewards_P_G[:prompts],
            gold_P_G=None if self.gold_P_G is None else self.gold_P_G[:prompts],
            versions_B_T=None if self.versions_B_T is None else self.versions_B_T[:rows],
            padded=self.padded and not bool(mask_B_L.all()),
        )

    def to(self, device: torch.device) -> "Rollouts":
        """Return the same rollouts with their tensors on a device."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        moved = {n: v.to(device) for n, v in values.items() if isinstance(v, Tensor)}
        return Rollouts(**(values | moved))


@torch.no_grad()
def sample_rollouts(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    prompts: Sequence[str],
    group_size: int,
    generator: torch.Generator,
    newest: Callable[[], int] | None = None,
    unpadded: Callable[[Tensor], Sequence[Tensor]] | None = None,
) -> Rollouts:
    """Sample ``group_size`` completions per prompt at temperature 1 and reward them.

    Where ``newest`` changes the weights between two tokens, the cache stays that of the weights
    which filled it, and log-probabilities are those that really sampled. The device is waited for
    once, for the completions, and on the way only as ``look_every`` says.

    Args:
        model: the behavior policy.
        tokenizer: its tokenizer, padding on the left.
        task: what an answer is worth and how long it may be.
        prompts: P prompts.
        group_size: G.
        generator: every random choice comes from it; it lives on the model's device.
        newest: called before the model is, puts the weights into it that are to sample the next
            token, and returns their version.
        unpadded: continues the ids of prompts without padding as ``decode`` would, with the same
            generator, and returns what makes a ``Decoded``.

    Raises:
        NonFinitePolicy: the probabilities are not numbers.
        RewardFailed: a reward is not one number per completion.
    """
    device = generator.device
    encoded = tokenizer(list(prompts), padding=True)
    padded = any(0 in mask for mask in encoded["attention_mask"])
    ids_P_L, mask_P_L = (
        torch.tensor(encoded[name]).to(device, non_blocking=True)
        for name in ("input_ids", "attention_mask")
    )
    versions: list[int] = []

    def forward(*inputs: Tensor, **settings: Any) -> Any:
        if newest is not None:
            versions.append(newest())
        return model(*inputs, **settings)

    if unpadded is not None and not padded:
        decoded = Decoded(*unpadded(ids_P_L))
    else:
        decoded = decode(
            forward,
            ids_P_L,
            mask_P_L if padded else None,
            group_size=group_size,
            max_new_tokens=task.max_new_tokens,
            pad=tokenizer.pad_token_id,
            end=tokenizer.eos_token_id,
            generator=generator,
            look_every=look_every(device),
        )
    ids_B_T, log_probs_B_T, alive_B_T, texts = _ended(decoded, tokenizer)
    mask_B_T = alive_B_T.float()
    completions = [text.split(tokenizer.eos_token, 1)[0] for text in texts]
    repeated = [prompt for prompt in prompts for _ in range(group_size)]
    rewards_P_G = judged(task.rewards, repeated, completions, device).view(-1, group_size)
    gold_P_G = None
    if task.gold is not None:
        gold_P_G = judged(task.gold, repeated, completions, device).view(-1, group_size)
    versions_B_T = None
    if versions:
        versions_T = torch.tensor(versions[: ids_B_T.shape[1]]).to(device, non_blocking=True)
        versions_B_T = versions_T.expand_as(ids_B_T)
    return Rollouts(
        prompts=list(prompts),
        completions=completions,
        prompt_ids_B_L=ids_P_L.repeat_interleave(group_size, dim=0),
        prompt_mask_B_L=mask_P_L.repeat_interleave(group_size, dim=0),
        completion_ids_B_T=ids_B_T,
        mask_B_T=mask_B_T,
        behavior_log_probs_B_T=log_probs_B_T * mask_B_T,
        rewards_P_G=rewards_P_G,
        gold_P_G=gold_P_G,
        versions_B_T=versions_B_T,
        padded=padded,
    )


def _ended(decoded: Decoded, tokenizer: Any) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Cut off what was drawn after the end of the longest completion, and read them all."""
    host = on_host(
        {
            "ids": decoded.ids_B_T,
            "alive": decoded.alive_B_T,
            "not_numbers": decoded.log_probs_B_T.isnan().any(),
        }
    )
    if host["not_numbers"]:
        raise NonFinitePolicy("the policy's probabilities are not numbers")
    length = int(host["alive"].any(dim=0).sum())
    ids_B_T, log_probs_B_T, alive_B_T = (each[:, :length].contiguous() for each in decoded)
    dead_B_T = ~host["alive"][:, :length]
    texts = tokenizer.batch_decode(
        host["ids"][:, :length].masked_fill(dead_B_T, tokenizer.eos_token_id)
    )
    return ids_B_T, log_probs_B_T, alive_B_T, texts


def judged(
    judge: Judge, prompts: list[str], completions: list[str], device: torch.device
) -> Tensor:
    """Return one fp32 value per completion; see ``judgments``."""
    numbers = torch.tensor(judgments(judge, prompts, completions), dtype=torch.float32)
    return numbers.to(device, non_blocking=True)


def pieces(batch: Rollouts, at_once: int | None) -> list[slice]:
    """Cut a batch into rows of at most so many at once, whole groups where one fits."""
    rows, group_size = batch.mask_B_T.shape[0], batch.rewards_P_G.shape[1]
    size = min(rows, at_once or rows)
    if size >= group_size:
        size -= size % group_size
    return [slice(start, min(rows, start + size)) for start in range(0, rows, size)]


@torch.no_grad()
def log_probs(model: nn.Module, batch: Rollouts, at_once: int | None) -> Tensor:
    """Return log π(token) of each response token, [B, T], scored at most so many at once."""
    return torch.cat([score(model, batch.rows(rows))[0] for rows in pieces(batch, at_once)])


def score(model: nn.Module, batch: Rollouts) -> tuple[Tensor, Tensor]:
    """Return log π(token) of each response token and the entropy of its distribution.

    Prompts are read once per group, unless activations are to be computed again for the gradient:
    that and a key–value cache do not go together.

    Returns:
        log-probabilities [B, T] in nats, with gradient, and entropies [B, T] in nats, without;
        both 0 on padding.
    """
    group_size = batch.rewards_P_G.shape[1]
    layers = checkpointed_layers(model) if torch.is_grad_enabled() else []
    if layers:
        with recomputed(layers):
            logits_B_T_V = _logits(model, batch)
    elif group_size > 1:
        logits_B_T_V = _group_logits(model, batch, group_size)
    else:
        logits_B_T_V = _logits(model, batch)
    log_prob_B_T_V = logits_B_T_V.float().log_softmax(dim=-1)
    chosen = log_prob_B_T_V.gather(2, batch.completion_ids_B_T.unsqueeze(2)).squeeze(2)
    with torch.no_grad():
        entropy = -log_prob_B_T_V.exp().mul_(log_prob_B_T_V).sum(dim=2)
    return chosen * batch.mask_B_T, entropy * batch.mask_B_T


def _logits(model: nn.Module, batch: Rollouts) -> Tensor:
    """Return the logits before each response token, [B, T, V], every row read by itself."""
    ids = torch.cat([batch.prompt_ids_B_L, batch.completion_ids_B_T], dim=1)
    mask = positions = None
    if batch.padded:
        answers = torch.ones_like(batch.completion_ids_B_T)
        mask = torch.cat([batch.prompt_mask_B_L, answers], dim=1)
        positions = positions_of(mask)[:, :-1]
        mask = mask[:, :-1]
    logits: Tensor = model(
        ids[:, :-1],
        attention_mask=mask,
        position_ids=positions,
        logits_to_keep=batch.completion_ids_B_T.shape[1],
        use_cache=False,
    ).logits
    return logits


def _group_logits(model: nn.Module, batch: Rollouts, group_size: int) -> Tensor:
    """Return the logits before each response token, [B, T, V], every prompt read once per group.

    The gradient flows through the repeated key–value cache, where it sums over the group.
    """
    mask_P_L, padded = batch.prompt_mask_B_L[::group_size], batch.padded
    out = model(
        batch.prompt_ids_B_L[::group_size],
        attention_mask=mask_P_L if padded else None,
        position_ids=positions_of(mask_P_L) if padded else None,
        logits_to_keep=1,
        use_cache=True,
    )
    first_B_1_V: Tensor = out.logits.repeat_interleave(group_size, dim=0)
    read_B_T = batch.completion_ids_B_T[:, :-1]
    if read_B_T.shape[1] == 0:
        return first_B_1_V
    cache = out.past_key_values
    cache.batch_repeat_interleave(group_size)
    mask = positions = None
    if padded:
        mask = torch.cat([batch.prompt_mask_B_L, torch.ones_like(read_B_T)], dim=1)
        positions = positions_of(mask)[:, -read_B_T.shape[1] :]
    later = model(
        read_B_T,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return torch.cat([first_B_1_V, later.logits], dim=1)
