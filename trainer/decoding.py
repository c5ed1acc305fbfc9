"""Decoding: completions drawn token by token, without waiting for the device in between.

A GPU runs behind the processor that tells it what to do; every look at a value makes the processor
wait until the GPU has caught up, and then the GPU wait for the next word. ``decode`` looks only at
whether every completion has ended, and on a GPU only now and then; what was drawn after the end is
the caller's to cut off.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

LOOK_EVERY = 16
"""Tokens between two looks on an accelerator: a look costs about as much as a token."""


class Decoded(NamedTuple):
    """Sampled ids, their log-probabilities, and which are part of the completion, [B, T] each."""

    ids_B_T: Tensor
    log_probs_B_T: Tensor
    alive_B_T: Tensor


def look_every(device: torch.device) -> int:
    """Return after how many tokens to look: on a CPU, where it costs nothing, after each."""
    return 1 if device.type == "cpu" else LOOK_EVERY


@torch.no_grad()
def decode(
    model: Callable[..., Any],
    ids_P_L: Tensor,
    mask_P_L: Tensor | None,
    *,
    group_size: int,
    max_new_tokens: int,
    pad: int,
    end: int,
    generator: torch.Generator,
    look_every: int | None,
) -> Decoded:
    """Continue each of P prompts ``group_size`` times at temperature 1, B = P·G rows.

    The prompt is read once per group; its key–value cache is then repeated for the members. Where
    the model's probabilities are not numbers, the log-probabilities are NaN from there on.

    Args:
        model: called like a causal language model of transformers.
        ids_P_L: the prompts, padded on the left.
        mask_P_L: 0 on their padding; None where there is none.
        group_size: G.
        max_new_tokens: the most tokens of a completion.
        pad: the id that follows the end of a completion.
        end: the id that ends one.
        generator: every random choice comes from it.
        look_every: tokens between two looks at whether there is anything left to draw; with None
            the most tokens are drawn in any case, and the device is never waited for.
    """
    mask = mask_P_L
    positions = None if mask_P_L is None else positions_of(mask_P_L)
    out = model(
        ids_P_L,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,  # of a long prompt and a large vocabulary all would fill the memory
    )
    cache = out.past_key_values
    cache.batch_repeat_interleave(group_size)
    logits = out.logits[:, -1].repeat_interleave(group_size, dim=0)
    if mask_P_L is not None:
        mask = mask_P_L.repeat_interleave(group_size, dim=0)
    alive = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    ids, log_probs, lives = [], [], []
    for count in range(1, max_new_tokens + 1):
        log_prob_B_V = logits.float().log_softmax(dim=-1)
        token = drawn(log_prob_B_V, generator).masked_fill(~alive.unsqueeze(1), pad)
        chosen = log_prob_B_V.gather(1, token)
        ids.append(token)
        log_probs.append(chosen)
        lives.append(alive)
        alive = alive & (token.squeeze(1) != end)
        look = look_every is not None and count % look_every == 0
        if count == max_new_tokens or (look and not bool(alive.any() & ~chosen.isnan().any())):
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
    return Decoded(torch.cat(ids, dim=1), torch.cat(log_probs, dim=1), torch.stack(lives, dim=1))


def drawn(log_prob_B_V: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one id per row, [B, 1], the one that ``torch.multinomial`` would draw, without waiting.

    The first of V exponential clocks of rates p to ring is each with probability p.
    ``torch.multinomial`` does the same, but first has the device say whether p is valid.
    """
    clocks_B_V = torch.empty_like(log_prob_B_V).exponential_(generator=generator)
    return log_prob_B_V.exp().div_(clocks_B_V).argmax(dim=-1, keepdim=True)


def positions_of(mask_B_L: Tensor) -> Tensor:
    """Return position ids that count real tokens only, so that left padding changes nothing."""
    return (mask_B_L.cumsum(dim=1) - 1).clamp_min(0)
