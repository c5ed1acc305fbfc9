"""What a log must hold to say where staleness limits, stack by stack, and how to make it hold it.

Two metrics say it: the active-clip fraction and a KL, both of the *current* policy from the
*behavior* policy; with ages they say it best. ``clip`` and ``drift`` are the keys that a stack logs
for them, None with the reason where it has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The metrics of one stack that count, and what must be set for them to be logged.

    ``settings`` are options of the stack beside those of the run itself, ``told`` what ``import``
    must be told with ``--set``, ``log_file`` where the stack writes the log.
    """

    clip: tuple[str, ...]
    drift: str | None
    age: str | None
    log_file: str
    lacks: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)


_PROXIMAL = (
    "its KL and clip fraction are measured from the proximal policy, which sees no staleness"
)
_TENSORBOARD = "TensorBoard event files, by their folder"
_EVERY_STEP = {
    "lr_scheduler_type": '"constant"',
    "logging_steps": "1",
    "save_strategy": '"steps"',
}

WANTED: Mapping[str, Wanted] = {
    "trl": Wanted(
        clip=("clip_ratio/low_mean", "clip_ratio/high_mean"),
        drift=None,
        age=None,
        log_file="trainer_state.json of the newest checkpoint",
        lacks="TRL GRPOTrainer logs no KL from the behavior policy, so drift is taken as η·age^α "
        "and the interval is wider; use_vllm=False, else clip_ratio is against the proximal policy",
        settings={**_EVERY_STEP, "use_vllm": "False"},
    ),
    "trl_async": Wanted(
        clip=("clip_ratio/low_mean", "clip_ratio/high_mean"),
        drift="kl",
        age="sample/staleness_mean",
        log_file="trainer_state.json of the newest checkpoint",
        settings=_EVERY_STEP,
    ),
    **dict.fromkeys(
        ("verl", "verl_fully_async"),
        Wanted(
            clip=("actor/pg_clipfrac",),
            drift="actor/ppo_kl",
            age="training/off_policy/trajectory_staleness/mean",
            log_file="$VERL_FILE_LOGGER_PATH, JSON lines",
            lacks=f"without algorithm.rollout_correction.bypass_mode {_PROXIMAL}; import with "
            "--set bypass_mode=true a run that was made with it",
            settings={
                "algorithm.rollout_correction.bypass_mode": "True",
                "actor_rollout_ref.rollout.calculate_log_probs": "True",
                "trainer.logger": """'["console","file"]'""",
            },
            told={"bypass_mode": "true"},
        ),
    ),
    "prime_rl": Wanted(
        clip=(),
        drift="mismatch_kl/all/mean",
        age="off_policy/mean",
        log_file="metrics.jsonl of the trainer and of the orchestrator, both in one import",
        lacks="prime-rl masks by a difference of probabilities and logs no ratio-clip fraction, so "
        "only M2 ≤ 0.04 bounds the rate from below",
    ),
    "tinker": Wanted(
        clip=(),
        drift="optim/kl_sample_train_v2",
        age="sampling_client/step_mean",
        log_file="metrics.jsonl",
        lacks="tinker-cookbook logs no clip fraction, so only M2 ≤ 0.04 bounds the rate from below",
    ),
    "openrlhf": Wanted(clip=(), drift=None, age=None, log_file=_TENSORBOARD, lacks=_PROXIMAL),
    "areal": Wanted(
        clip=(),
        drift="ppo_actor/update/compute_logp/kl_div_dual/avg",
        age="ppo_actor/update/version_stats/sample_staleness_theta_avg",
        log_file=_TENSORBOARD,
        lacks="AReaL measures its clip fraction from the proximal policy, which sees no staleness, "
        "so only M2 ≤ 0.04 bounds the rate from below",
        settings={"stats_logger.tensorboard.path": "tensorboard"},
    ),
    "nemo_rl": Wanted(
        clip=(),
        drift=None,
        age="train/avg_trajectory_age",
        log_file=_TENSORBOARD,
        lacks="NeMo-RL logs no clip fraction, and its ratios are against the proximal policy",
    ),
    "skyrl": Wanted(
        clip=(), drift=None, age="async/staleness_mean", log_file=_TENSORBOARD, lacks=_PROXIMAL
    ),
    "slime": Wanted(
        clip=("train/pg_clipfrac",),
        drift="train/ppo_kl",
        age=None,
        log_file=_TENSORBOARD,
        lacks=f"without --use-rollout-logprobs {_PROXIMAL}; import with "
        "--set use_rollout_logprobs=true a run that was made with it",
        settings={"--use-rollout-logprobs": "", "--use-tensorboard": ""},
        told={"use_rollout_logprobs": "true"},
    ),
}


def takes_behavior_for_proximal(stack: str | None, config: Mapping[str, Any]) -> bool:
    """Whether a run was told to measure its ratios from the policy that sampled (``told``)."""
    told = WANTED[stack].told if stack else {}
    return bool(told) and all(config.get(name) is True for name in told)


def supported() -> tuple[str, ...]:
    """Name the stacks whose logs can say where staleness limits."""
    return tuple(name for name, wanted in WANTED.items() if wanted.clip or wanted.drift)


def lacking(stack: str | None) -> str:
    """Say why a log of this stack tells nothing of staleness, and what to log instead."""
    if stack is None:
        return (
            "the stack of the log is not known, so no drift is understood; import with --stack, or "
            "log approx_kl and the clip fractions against the behavior policy under a stack's names"
        )
    wanted = WANTED[stack]
    keys = [key for key in (*wanted.clip, wanted.drift, wanted.age) if key]
    words = (
        f"log {', '.join(keys)}"
        if wanted.clip or wanted.drift
        else ("Etalon's own probe of the setting, or another stack, can say it")
    )
    return f"{wanted.lacks}; {words}" if wanted.lacks else words
