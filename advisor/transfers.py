"""Carry a limit of a probe to another S, T, batch, width or clip range, and widen it, or refuse.

Pure. Each rule is an assumption of its own; how true the advice stays is in docs/transfer.md.
"""

import math
from collections.abc import Sequence

from storage.words import counted
from trainer.config import TrainerConfig
from trainer.losses import LOSSES

from .limits import RateLimit, alpha_of
from .segments import FRESH_ABOVE, Segment

REFUSED_BEYOND = 4.0
"""S + 1 may differ from what was probed by at most this factor, unless fresh rollouts say more."""


class RefusedTransfer(ValueError):
    """What was measured says nothing about the setting that is asked."""


def transfer(
    limit: RateLimit, probed: TrainerConfig, asked: TrainerConfig, segments: Sequence[Segment]
) -> RateLimit:
    """Carry a survival limit to another S, T, batch, width or clip range.

    Assumptions: within a cycle the weights drift as k^α, so where staleness binds the edge goes as
    S^−α; noise lets the edge grow with the square root of the batch; Adam moves a layer's output as
    far at a rate ∝ 1/width; a drift reaches the clip in proportion to ln(1 + ε), below in
    proportion to −ln(1 − ε). A rule that lowers the edge is applied in full and widens it; one that
    raises it counts half, at most to where fresh rollouts were held, and does not widen: what was
    safe stays so in an easier setting.

    Raises:
        RefusedTransfer: no rule leads there.
    """
    limit = _to_staleness(limit, probed, asked, segments)
    if asked.steps > probed.steps:
        further = math.log(asked.steps / probed.steps)
        limit = limit.moved(1.0, 0.1 * further, f"probed for {counted(probed.steps, 'step')}")
    batches = asked.prompts * asked.group_size / (probed.prompts * probed.group_size)
    limit = _by_rule(limit, math.sqrt(batches), 0.6, "√batch rule")
    _check_width_rule(probed, asked)
    if probed.optimizer == "adamw":
        limit = _by_rule(limit, probed.hidden_size / asked.hidden_size, 0.4, "1/width rule")
    elif asked.hidden_size != probed.hidden_size:
        limit = limit.moved(1.0, 0.4, "another width")
    if limit.binding == "staleness":
        _check_clip_rule(probed, asked)
        limit = _by_rule(limit, _clip_factor(probed, asked), 0.4, "clip-range rule")
    return limit


def _clip_factor(probed: TrainerConfig, asked: TrainerConfig) -> float:
    """Return how much further a drift may go; of two sides that of the lesser counts."""
    factor = math.log1p(asked.epsilon_high) / math.log1p(probed.epsilon_high)
    if LOSSES[probed.loss].clips_below and LOSSES[asked.loss].clips_below:
        factor = min(factor, math.log1p(-asked.epsilon_low) / math.log1p(-probed.epsilon_low))
    return factor


def _check_width_rule(probed: TrainerConfig, asked: TrainerConfig) -> None:
    """Refuse another width with adapters: of their two factors only one is as wide as the layer.

    Raises:
        RefusedTransfer: adapters are trained, and the widths differ.
    """
    if probed.lora_rank is not None and probed.hidden_size != asked.hidden_size:
        raise RefusedTransfer(
            "adapters are trained, and no rule carries their limits from hidden_size "
            f"{probed.hidden_size} to {asked.hidden_size}"
        )


def _check_clip_rule(probed: TrainerConfig, asked: TrainerConfig) -> None:
    """Refuse another clip range where none is reached by drift, so that no rule says what it does.

    Raises:
        RefusedTransfer: the loss has no clipping radius, and the ranges differ.
    """
    ranges = [(each.epsilon_low, each.epsilon_high) for each in (probed, asked)]
    if ranges[0] != ranges[1] and not LOSSES[probed.loss].has_clipping_radius:
        raise RefusedTransfer(
            f"the loss {probed.loss} has no clipping radius, so no rule carries a staleness limit "
            f"from clip_epsilon_high {probed.epsilon_high:g} to {asked.epsilon_high:g}"
        )


def _by_rule(limit: RateLimit, factor: float, price: float, why: str) -> RateLimit:
    """Apply a rule: in full and widened by price·|ln factor| downwards, by half upwards."""
    if factor == 1:
        return limit
    if factor > 1:
        return limit.moved(min(math.sqrt(factor), FRESH_ABOVE), 0.0, f"half of the {why}")
    return limit.moved(factor, price * abs(math.log(factor)), why)


def _to_staleness(
    limit: RateLimit, probed: TrainerConfig, asked: TrainerConfig, segments: Sequence[Segment]
) -> RateLimit:
    old, new = probed.max_staleness, asked.max_staleness
    if old == new:
        return limit
    if old == 0:
        raise RefusedTransfer(
            "it was probed with fresh rollouts only, so where staleness limits is not measured"
        )
    if new > old and (new + 1) / (old + 1) > REFUSED_BEYOND:
        raise RefusedTransfer(
            f"it was probed at S = {old}; S = {new} is more than {REFUSED_BEYOND:g} times beyond"
        )
    if limit.binding != "staleness" and new < old:
        return limit.moved(1.0, 0.0, f"staleness does not bind at S = {old} already")
    alpha = alpha_of(segments)
    factor = math.pow(old / max(new, 1), alpha)
    return _by_rule(limit, factor, 0.4, f"rule drift ∝ k^{alpha:.2f}, from S = {old}")
