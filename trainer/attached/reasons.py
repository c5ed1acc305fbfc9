"""Why a row of a recorded training may lack a column."""

from storage.importers.metric_names import METRICS
from storage.records import METRIC_NAMES

from ..meter import CLIP_METRICS, STRUCTURAL
from .meters import OF_THE_POLICY, OF_THE_WEIGHTS, UNSEEN

MEASURED = (*OF_THE_POLICY, *OF_THE_WEIGHTS, "learning_rate", "sampled_at_step", "grad_norm")
TIMES = ("seconds_generate", "seconds_learn", "seconds_measure")


def reasons_of(stack: str, window: int, *, sees_policy: bool, unclipped: bool) -> dict[str, str]:
    """Say of every column that a row may lack why.

    Args:
        stack: ``trl`` or ``trl_async``.
        window: learner steps between two logs of TRL.
        sees_policy: whether the shoulder is shown what the loss is computed from.
        unclipped: whether every rollout is fresh, so that nothing can be clipped.
    """
    logged = {metric.column for metric in METRICS[stack].values()}
    reasons = {
        name: f"TRL logs it every {window} learner steps" if name in logged else "not logged by TRL"
        for name in METRIC_NAMES
        if name == "grad_norm" or name not in (*MEASURED, *TIMES)
    }
    reasons["reward_mean"] = "TRL logs it where it generates, averaged over logging_steps"
    reasons |= dict.fromkeys(OF_THE_POLICY, "the log-probabilities of the sampler were not seen")
    reasons |= dict.fromkeys(("staleness_mean", "staleness_max"), UNSEEN)
    reasons["sampled_at_step"] = f"{UNSEEN}, or it was more than one version"
    reasons["grad_norm"] = (
        f"not seen where max_grad_norm is 0 or weights are sharded; {reasons['grad_norm']}"
    )
    if not sees_policy:
        why = "this trainer computes its loss where nobody can look on"
        reasons |= dict.fromkeys(OF_THE_POLICY, why)
    if unclipped:
        reasons |= dict.fromkeys((*CLIP_METRICS, "clipping_radii", "weight_radii"), STRUCTURAL)
    return reasons
