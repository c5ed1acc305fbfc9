"""Rollouts: completions that the behavior policy samples, and how any policy scores them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from .judging import Judge, judgments
from .recomputation import checkpointed_layers, recomputed


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
    None where one version that the schedule knows sampled them all.
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

    @property
    def decisive_P_G(self) -> Tensor:  # noqa: N802 – an array, with its axes
        """The reward that matters: gold where there is one, else the reward (theory.md §6)."""
        return self.rewards_P_G if self.gold_P_G is None else self.gold_P_G

    def rows(self, chosen: slice | Tensor) -> "Rollouts":
        """Return what ``score`` reads of some rows; unless groups are whole, each is its own."""
        group_size = self.rewards_P_G.shape[1]
        ends = (chosen.start, chosen.stop) if isinstance(chosen, slice) else (1, 1)
        whole = all(end % group_size == 0 for end in ends)
        members = group_size if whole else 1
        return replace(
            self,
            prompt_ids_B_L=self.prompt_ids_B_L[chosen],
            prompt_mask_B_L=self.prompt_mask_B_L[chosen],
            completion_ids_B_T=self.completion_ids_B_T[chosen],
            mask_B_T=self.mask_B_T[chosen],
            behavior_log_probs_B_T=self.behavior_log_probs_B_T[chosen],
            rewards_P_G=self.rewards_P_G.reshape(-1)[chosen].view(-1, members),
        )

    def first(self, prompts: int) -> "Rollouts":
        """Return the rollouts of the first ``prompts`` prompts."""
        rows = prompts * self.rewards_P_G.shape[1]
        return Rollouts(
            prompts=self.prompts[:prompts],
            completions=self.completions[:rows],
            prompt_ids_B_L=self.prompt_ids_B_L[:rows],
            prompt_mask_B_L=self.prompt_mask_B_L[:rows],
            completion_ids_B_T=self.completion_ids_B_T[:rows],
            mask_B_T=self.mask_B_T[:rows],
            behavior_log_probs_B_T=self.behavior_log_probs_B_T[:rows],
            rewards_P_G=self.rewards_P_G[:prompts],
            gold_P_G=None if self.gold_P_G is None else self.gold_P_G[:prompts],
            versions_B_T=None if self.versions_B_T is None else self.versions_B_T[:rows],
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
) -> Rollouts:
    """Sample ``group_size`` completions per prompt at temperature 1 and reward them.

    The prompt is read once per group; its key–value cache is then repeated for the members. Where
    ``newest`` changes the weights between two tokens, the cache stays that of the weights which
    filled it, and log-probabilities are those that really sampled.

    Args:
        model: the behavior policy.
        tokenizer: its tokenizer, padding on the left.
        task: what an answer is worth and how long it may be.
        prompts: P prompts.
        group_size: G.
        generator: every random choice comes from it; it lives on the model's device.
        newest: called before the model is, puts the weights into it that are to sample the next
            token, and returns their version.
    """
    encoded = tokenizer(list(prompts), return_tensors="pt", padding=True)
    device = generator.device
    ids_P_L = encoded["input_ids"].to(device)
    mask_P_L = encoded["attention_mask"].to(device)
    versions: list[int] = []

    def forward(*inputs: Tensor, **settings: Any) -> Any:
        if newest is not None:
            versions.append(newest())
        return model(*inputs, **settings)

    ids_B_T, log_probs_B_T, mask_B_T = _continue(
        forward, tokenizer, ids_P_L, mask_P_L, group_size, task.max_new_tokens, generator
    )
    texts = tokenizer.batch_decode(ids_B_T.masked_fill(mask_B_T == 0, tokenizer.eos_token_id))
    completions = [text.split(tokenizer.eos_token, 1)[0] for text in texts]
    repeated = [prompt for prompt in prompts for _ in range(group_size)]
    rewards_P_G = judged(task.rewards, repeated, completions, device).view(-1, group_size)
    gold_P_G = None
    if task.gold is not None:
        gold_P_G = judged(task.gold, repeated, completions, device).view(-1, group_size)
    return Rollouts(
        prompts=list(prompts),
        completions=completions,
        prompt_ids_B_L=ids_P_L.repeat_interleave(group_size, dim=0),
        prompt_mask_B_L=mask_P_L.repeat_interleave(group_size, dim=0),
        completion_ids_B_T=ids_B_T,
        mask_B_T=mask_B_T,
        behavior_log_probs_B_T=log_probs_B_T,
        rewards_P_G=rewards_P_G,
        gold_P_G=gold_P_G,
        versions_B_T=torch.tensor(versions, device=device).expand_as(ids_B_T) if versions else None,
    )


def judged(
    judge: Judge, prompts: list[str], completions: list[str], device: torch.device
) -> Tensor:
    """Return one fp32 value per completion; see ``judgments``."""
    values = judgments(judge, prompts, completions)
    return torch.tensor(values, dtype=torch.float32, device=device)


def _continue(
    model: Callable[..., Any],
    tokenizer: Any,
    ids_P_L: Tensor,
    mask_P_L: Tensor,
    group_size: int,
    max_new_tokens: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sampled ids, their log-probabilities and their mask, each [P·G, T]."""
    padded = not bool(mask_P_L.all())
    mask = mask_P_L if padded else None
    positions = positions_of(mask_P_L) if padded else None
    out = model(ids_P_L, attention_mask=mask, position_ids=positions, use_cache=True)
    cache = out.past_key_values
    cache.batch_repeat_interleave(group_size)
    logits = out.logits[:, -1].repeat_interleave(group_size, dim=0)
    if padded:
        mask = mask_P_L.repeat_interleave(group_size, dim=0)
    alive = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    ids, log_probs, masks = [], [], []
    for last in range(max_new_tokens - 1, -1, -1):
        log_prob_B_V = logits.log_softmax(dim=-1)
        if bool(log_prob_B_V.isnan().any()):
            raise NonFinitePolicy("the policy's probabilities are not numbers")
        token = torch.multinomial(log_prob_B_V.exp(), 1, generator=generator)
        token = token.where(alive.unsqueeze(1), token.new_tensor(tokenizer.pad_token_id))
        ids.append(token)
        log_probs.append(log_prob_B_V.gather(1, token))
        masks.append(alive)
        alive = alive & (token.squeeze(1) != tokenizer.eos_token_id)
        if last == 0 or not bool(alive.any()):
            break
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = mask.sum(dim=1, keepdim=True) - 1
        out = model(
            token,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        logits = out.logits[:, -1]
    mask_B_T = torch.stack(masks, dim=1).float()
    return torch.cat(ids, dim=1), torch.cat(log_probs, dim=1) * mask_B_T, mask_B_T


def positions_of(mask_B_L: Tensor) -> Tensor:
    """Return position ids that count real tokens only, so that left padding changes nothing."""
    return (mask_B_L.cumsum(dim=1) - 1).clamp_min(0)


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
        entropy = -(log_prob_B_T_V.exp() * log_prob_B_T_V).sum(dim=2)
    return chosen * batch.mask_B_T, entropy * batch.mask_B_T


def _logits(model: nn.Module, batch: Rollouts) -> Tensor:
    """Return the logits before each response token, [B, T, V], every row read by itself."""
    ids = torch.cat([batch.prompt_ids_B_L, batch.completion_ids_B_T], dim=1)
    mask = positions = None
    if not bool(batch.prompt_mask_B_L.all()):
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
    mask_P_L = batch.prompt_mask_B_L[::group_size]
    padded = not bool(mask_P_L.all())
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
