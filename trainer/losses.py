"""Which importance ratio each loss holds to a range, on which sides, and how far by default.

Knows no torch, so that forms and advice can read it; the formulas are in ``objective``.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """How a loss treats importance ratios.

    ``clips`` says what is held to the range 1 − epsilon_low … 1 + epsilon_high:

    - ``token``: the ratio π_θ/π_φ of each token; a token beyond it loses its gradient.
    - ``answer``: the geometric mean of these ratios over an answer, which loses it as a whole.
    - ``weight``: the ratio of each token as a constant weight; beyond the range the gradient is
      kept and its weight cut down to the end of the range. Nothing is cut below.
    - ``proximal``: the ratio π_θ/π_prox of each token to the policy at the first update on its
      batch; the ratio π_prox/π_φ, which is what staleness moves, weighs the token and has no range.

    ``epsilon_low`` and ``epsilon_high`` are the default range; None where there is no lower end.
    """

    clips: Literal["token", "answer", "weight", "proximal"]
    epsilon_low: float | None
    epsilon_high: float

    @property
    def clips_below(self) -> bool:
        """Whether small ratios are clipped too."""
        return self.epsilon_low is not None

    @property
    def has_clipping_radius(self) -> bool:
        """Whether drift from the behavior policy makes the clip take gradients away."""
        return self.clips in ("token", "answer")


LOSSES = {
    "grpo": Loss(clips="token", epsilon_low=0.2, epsilon_high=0.2),
    "dr_grpo": Loss(clips="token", epsilon_low=0.2, epsilon_high=0.2),
    "gspo": Loss(clips="answer", epsilon_low=3e-4, epsilon_high=4e-4),
    "cispo": Loss(clips="weight", epsilon_low=None, epsilon_high=4.0),
    "tis": Loss(clips="weight", epsilon_low=None, epsilon_high=1.0),
    "decoupled": Loss(clips="proximal", epsilon_low=0.2, epsilon_high=0.2),
}
"""0.2 is PPO's; 3e-4 and 4e-4 are GSPO's own (arXiv 2507.18071); a weight of at most 2 is usual for
truncated importance sampling, and one of at most 5 for CISPO, whose paper names no number."""


def clipped_share(loss: str, low: float | None, high: float | None) -> float | None:
    """Return the active-clip fraction of both ends; None where an end that is clipped is unknown.

    Args:
        loss: its name.
        low: ``clip_fraction_low``, None where it is unknown or nothing is clipped below.
        high: ``clip_fraction_high``, likewise.
    """
    if not LOSSES[loss].clips_below:
        return high
    return None if low is None or high is None else low + high
