"""Which stack the keys of a log betray, and what a key means in a stack."""

import re
from collections.abc import Collection, Mapping

from .metric_names import METRICS, Metric

MARKS: Mapping[str, tuple[str, ...]] = {
    "trl_async": ("sample/staleness_mean", "sample/staleness_max"),
    "trl": (
        *("frac_reward_zero_std", "completions/mean_length", "clip_ratio/low_mean"),
        *("sampling/sampling_logp_difference/", "sampling/importance_sampling_ratio/"),
    ),
    "verl_fully_async": ("fully_async/count/",),
    "verl": ("actor/lr", "actor/pg_", "actor/ppo_kl", "critic/score/", "rollout_corr/"),
    "areal": ("ppo_actor/",),
    "prime_rl": ("mismatch_kl/", "off_policy/mean", "unmasked_mismatch_kl/"),
    "nemo_rl": ("train/gen_kl_error", "train/avg_trajectory_age", "train/approx_entropy"),
    "skyrl": ("policy/policy_loss", "reward/avg_raw_reward", "async/staleness_ratio"),
    "slime": ("train/train_rollout_logprob_abs_diff", "train/lr-pg_0"),
    "openrlhf": ("train/actor_grad_norm", "train/ppo_clip_ratio", "train/vllm_kl"),
    "tinker": ("optim/kl_sample_train_v1", "env/all/reward/total", "sampling_client/"),
}
"""Keys, or beginnings of keys, that only this stack writes; the first stack that has one it is."""


_FAMILIES: Mapping[str, tuple[tuple[str, Metric], ...]] = {
    "trl": ((r"rewards/.+/(mean|std)", Metric()),),
    "trl_async": ((r"rewards/.+/(mean|std)|(perf|batch|rollout)/.+", Metric()),),
    "verl": ((r"training/off_policy/trajectory_(spans|staleness_worst)/.+", Metric()),),
    "verl_fully_async": ((r"fully_async/partial/.+", Metric()),),
    "prime_rl": (
        (r"(un)?masked_mismatch_kl/.+|mismatch_kl/.+|is_masked.*", Metric(reference="behavior")),
        (r"entropy/.+|effective/.+/reward/mean", Metric()),
    ),
    "slime": ((r"(rollout|perf)/.+|step|lr-pg_\d+", Metric()),),
}
"""Keys with a part that is the user's own, such as the name of a reward function."""


def stack_of(keys: Collection[str]) -> str | None:
    """Return the stack that these keys betray; None when none does, and it has to be told."""
    for name, marks in MARKS.items():
        if any(
            key.removeprefix("train/").startswith(marks) or key.startswith(marks) for key in keys
        ):
            return name
    return None


def metric_of(stack: str | None, key: str) -> Metric | None:
    """Return what a key means in a stack, with or without the prefix that trackers add."""
    if stack is None:
        return None
    known = METRICS[stack]
    exact = known.get(key) or known.get(_bare(key)) or known.get(f"train/{key}")
    if exact is not None:
        return exact
    families = _FAMILIES.get(stack, ())
    return next((m for p, m in families if re.fullmatch(f"({p})", _bare(key))), None)


def _bare(key: str) -> str:
    return key.removeprefix("train/")
