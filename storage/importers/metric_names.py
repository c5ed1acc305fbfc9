"""What each stack calls a metric, which column that is, and against which policy a drift counts.

Three policies exist: the behavior policy that sampled, the proximal one whose log-probabilities
are computed anew when a batch begins, and the current one. Only drift of the current policy from
the *behavior* policy sees staleness and may fill a drift column; every other drift stays under its
own key, with its reference kept beside it. ``kl`` and "clip ratio" mean different things in
different stacks, so no key is understood without its stack.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Reference = Literal["behavior", "proximal", "reference_model"]

DRIFT_COLUMNS = (
    "approx_kl",
    "kl_to_start",
    "log_ratio_rms",
    "clip_fraction_low",
    "clip_fraction_high",
    "outside_clip_fraction",
    "clipped_gradient_mass",
    "ess_fraction",
    "sequence_ess_fraction",
    "m2",
)
"""Columns that must not be filled from a key whose reference is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a stack's key stands for; without a column it is kept under its own key.

    ``shape`` says how the number becomes the column's: ``as_is``; ``versions``, an age to be turned
    into learner steps; ``versions_ahead``, one that was counted a micro-batch before it is learned
    from; ``behind_batch``, a version of the weights whose age is the number of the batch minus it;
    ``half_square``, ½·mean Δ² of which the rms is wanted.
    """

    column: str | None = None
    reference: Reference | None = None
    note: str = ""
    shape: Literal["as_is", "versions", "versions_ahead", "behind_batch", "half_square"] = "as_is"


def _to(column: str) -> Metric:
    return Metric(column=column)


def _against(reference: Reference, *keys: str, note: str = "") -> dict[str, Metric]:
    """Keys that are kept as they are, measured against this policy."""
    return {key: Metric(reference=reference, note=note) for key in keys}


def _kept(*keys: str) -> dict[str, Metric]:
    """Keys that are known, have no column and no reference."""
    return {key: Metric() for key in keys}


def _clip(column: str | None) -> Metric:
    return Metric(column=column, reference="behavior")


MEAN_AGE = Metric(column="staleness_mean", shape="versions")
LARGEST_AGE = Metric(column="staleness_max", shape="versions")
ENGINE = "of the proximal policy: staleness and the difference of two engines"

_TRL = {
    "loss": _to("loss"),
    "grad_norm": _to("grad_norm"),
    "learning_rate": _to("learning_rate"),
    "entropy": _to("entropy"),
    "reward": _to("reward_mean"),
    "reward_std": _to("reward_std"),
    "completions/mean_length": _to("response_length"),
    "clip_ratio/low_mean": _clip("clip_fraction_low"),
    "clip_ratio/high_mean": _clip("clip_fraction_high"),
    **{f"clip_ratio/{name}": _clip(None) for name in ("low_min", "high_max", "region_mean")},
    **_kept("frac_reward_zero_std", "num_tokens", "step_time", "epoch", "policy_loss"),
    **_kept(*(f"completions/{end}_length" for end in ("min", "max"))),
    **_kept(*(f"completions/{end}_terminated_length" for end in ("mean", "min", "max"))),
    **_kept("completions/clipped_ratio", "train_runtime", "train_loss", "total_flos"),
    **_kept("train_samples_per_second", "train_steps_per_second"),
    **_against("behavior", "cispo_clip_ratio", "vespo/phi_seq_mean"),
}

_CORRECTION = (
    *("kl", "k3_kl", "chi2_token", "chi2_seq"),
    *("log_ppl_diff", "log_ppl_abs_diff", "ppl_ratio"),
)
_WEIGHTS = (
    *("mean", "std", "min", "max", "eff_sample_size"),
    *("ratio_fraction_high", "ratio_fraction_low", "oob_ratio"),
)

_VERL = {
    "actor/grad_norm": _to("grad_norm"),
    "actor/lr": _to("learning_rate"),
    "actor/pg_loss": _to("loss"),
    "actor/entropy": _to("entropy"),
    "critic/score/mean": _to("reward_mean"),
    "training/off_policy/trajectory_staleness/mean": MEAN_AGE,
    "training/off_policy/trajectory_staleness/max": LARGEST_AGE,
    **_kept("training/off_policy/trajectory_staleness/min", "training/off_policy/evicted_samples"),
    **_kept("critic/score/max", "critic/score/min"),
    **_kept(*(f"critic/rewards/{end}" for end in ("mean", "max", "min"))),
    **_kept(*(f"critic/advantages/{end}" for end in ("mean", "max", "min"))),
    **_against(
        "proximal",
        "actor/ppo_kl",
        "actor/pg_clipfrac",
        "actor/pg_clipfrac_lower",
        note="the behavior policy only in bypass_mode",
    ),
    **_against("behavior", *(f"rollout_corr/{name}" for name in _CORRECTION), note=ENGINE),
    **_against("behavior", *(f"rollout_corr/rollout_is_{n}" for n in _WEIGHTS), note=ENGINE),
    **_against(
        "behavior",
        *(f"training/rollout_probs_diff_{end}" for end in ("mean", "max", "std")),
        "training/rollout_actor_probs_pearson_corr",
        note=ENGINE,
    ),
    **_kept("rollout_corr/training_ppl", "rollout_corr/rollout_ppl"),
}

_AREAL = "ppo_actor/update"

METRICS: Mapping[str, Mapping[str, Metric]] = {
    "trl": {
        **_TRL,
        **_against("reference_model", "kl"),
        **_against(
            "behavior",
            *(f"sampling/sampling_logp_difference/{end}" for end in ("mean", "max")),
            *(f"sampling/importance_sampling_ratio/{end}" for end in ("min", "mean", "max")),
            note=ENGINE,
        ),
    },
    "trl_async": {
        **_TRL,
        "kl": _clip("approx_kl"),
        "ratio": _clip(None),
        "sample/staleness_mean": Metric(column="staleness_mean", shape="versions_ahead"),
        "sample/staleness_max": Metric(column="staleness_max", shape="versions_ahead"),
        **_kept("sample/dropped_stale_total", "sample/time_in_queue_s"),
        "perf/rollout_wait_s": _to("seconds_wait"),
        **_kept("sample/rollout_queue_size", "sample/trained_tokens_mean"),
        **_kept(*(f"sample/forwarded_tokens_{end}" for end in ("mean", "max"))),
    },
    "verl": _VERL,
    "verl_fully_async": {
        **_VERL,
        **_kept(
            *(
                f"fully_async/count/{name}"
                for name in (
                    "stale_samples_processed",
                    "stale_trajectory_processed",
                    "dropped_stale_samples",
                    "current_param_version",
                    "total_generated_samples",
                )
            )
        ),
    },
    "openrlhf": {
        "train/actor_grad_norm": _to("grad_norm"),
        "train/actor_lr": _to("learning_rate"),
        "train/policy_loss": _to("loss"),
        "train/reward": _to("reward_mean"),
        "train/response_length": _to("response_length"),
        "train/entropy_loss": _to("entropy"),  # the mean entropy, not a loss
        **_against("proximal", "train/ppo_kl", "train/ppo_clip_ratio"),
        **_against("behavior", "train/vllm_kl", note=ENGINE),
        **_against("reference_model", "train/kl"),
    },
    "areal": {
        f"{_AREAL}/grad_norm": _to("grad_norm"),
        f"{_AREAL}/lr": _to("learning_rate"),
        f"{_AREAL}/actor_loss": _to("loss"),
        f"{_AREAL}/entropy/avg": _to("entropy"),
        "ppo_actor/task_reward/avg": _to("reward_mean"),
        f"{_AREAL}/version_stats/sample_staleness_theta_avg": MEAN_AGE,
        f"{_AREAL}/version_stats/sample_staleness_theta_max": LARGEST_AGE,
        **_kept("ppo_actor/eps_clip", f"{_AREAL}/rs_filtered_fraction"),
        **_against(
            "proximal",
            *(
                f"{_AREAL}/{name}/avg"
                for name in ("importance_weight", "approx_kl", "clip_ratio", "dual_clip_ratio")
            ),
        ),
        **_against(
            "behavior",
            *(f"{_AREAL}/{n}/avg" for n in ("behave_imp_weight", "behave_approx_kl")),
            note=ENGINE,
        ),
        f"{_AREAL}/compute_logp/kl_div_dual/avg": _clip("approx_kl"),  # r − 1 − ln r
        f"{_AREAL}/compute_logp/kl_div_taylor/avg": Metric(
            column="log_ratio_rms", reference="behavior", shape="half_square", note="½·mean Δ²"
        ),
        **_against("behavior", f"{_AREAL}/compute_logp/kl_div_direct/avg", note="k1"),
    },
    "prime_rl": {
        "optim/lr": _to("learning_rate"),
        "optim/grad_norm": _to("grad_norm"),
        "loss/mean": _to("loss"),
        "entropy/all/mean": _to("entropy"),
        "mismatch_kl/all/mean": _clip("approx_kl"),
        "off_policy/mean": MEAN_AGE,
        "off_policy/max": LARGEST_AGE,
        **_kept(
            *(f"off_policy/in_{at}/{e}" for at in ("flight", "queue") for e in ("mean", "max"))
        ),
        **_kept("off_policy/dropped"),
        **_against("behavior", "masked_mismatch_kl/mean", "unmasked_mismatch_kl/mean"),
        **_against("behavior", "kl_ent_ratio/mean", "is_masked/mean"),
        **_against("behavior", "is_masked_low", "is_masked_high"),
    },
    "nemo_rl": {
        "train/lr": _to("learning_rate"),
        "train/grad_norm": _to("grad_norm"),
        "train/loss": _to("loss"),
        "train/approx_entropy": _to("entropy"),
        "train/reward": _to("reward_mean"),
        "train/avg_trajectory_age": MEAN_AGE,
        **_kept("train/buffer_size", "train/policy_kl_error", "train/js_divergence_error"),
        **_kept("train/is_oob_ratio"),
        **_against(
            "behavior",
            *(
                f"train/{name}"
                for name in (
                    "gen_kl_error",
                    "token_mult_prob_error",
                    "sampling_importance_ratio",
                )
            ),
            note=ENGINE,
        ),
        **_against("proximal", *(f"train/probs_ratio{end}" for end in ("", "_min", "_max"))),
        **_against("proximal", *(f"train/probs_ratio_clamped{e}" for e in ("", "_min", "_max"))),
        **_against("reference_model", "train/kl_penalty"),
    },
    "skyrl": {
        "policy/grad_norm": _to("grad_norm"),
        "policy/policy_lr": _to("learning_rate"),
        "policy/policy_loss": _to("loss"),
        "policy/policy_entropy": _to("entropy"),
        "reward/avg_raw_reward": _to("reward_mean"),
        "async/staleness_mean": MEAN_AGE,
        "async/staleness_max": LARGEST_AGE,
        "async/num_groups_dropped": _to("dropped_groups"),
        **_kept("async/staleness_min", "async/staleness_ratio"),
        **_kept("async/staleness_violation_count", "async/keep_rate"),
        **_against(
            "proximal",
            "policy/loss_metrics/clip_ratio",
            "policy/loss_metrics/tis_token_clip_high_ratio",
            note="the behavior policy when log-probabilities are not recomputed",
        ),
        **_against(
            "behavior",
            *(
                f"policy/{part}rollout_{of}logprobs_abs_diff_{end}"
                for part, of in (("", "train_"), ("minibatch_", ""))
                for end in ("mean", "std", "max", "min")
            ),
            note=ENGINE,
        ),
        **_against("reference_model", "policy/policy_kl"),
    },
    "slime": {
        "train/grad_norm": _to("grad_norm"),
        "train/lr-pg_0": _to("learning_rate"),
        "train/pg_loss": _to("loss"),
        "train/entropy_loss": _to("entropy"),  # the mean entropy, not a loss
        "rollout/raw_reward": _to("reward_mean"),
        **_against(
            "proximal",
            "train/ppo_kl",
            "train/pg_clipfrac",
            note="the behavior policy only with --use-rollout-logprobs",
        ),
        **_against("behavior", "train/train_rollout_logprob_abs_diff", note=ENGINE),
        **_against("behavior", "train/ois", "train/tis", "train/tis_abs", note=ENGINE),
        **_against("behavior", "train/tis_clipfrac", note=ENGINE),
        **_against("reference_model", "kl_loss", "train/kl_loss"),
    },
    "tinker": {
        "optim/lr": _to("learning_rate"),
        "optim/entropy": _to("entropy"),
        "env/all/reward/total": _to("reward_mean"),
        "sampling_client/step_mean": Metric(column="staleness_mean", shape="behind_batch"),
        "sampling_client/step_min": Metric(column="staleness_max", shape="behind_batch"),
        "optim/kl_sample_train_v2": Metric(
            column="log_ratio_rms", reference="behavior", shape="half_square", note="½·mean Δ²"
        ),
        **_against("behavior", "optim/kl_sample_train_v1", note="k1"),
        **_kept("sampling_client/step_max", "training_client/step", "progress/batch"),
        **_kept("progress/done_frac", "kl_pre_post_v1", "kl_pre_post_v2"),
    },
}
"""For each stack its keys, as its own logger writes them."""
