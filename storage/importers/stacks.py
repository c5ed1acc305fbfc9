"""What asynchronous-RL stacks call their settings, and what their staleness is in learner steps.

One table, ``STACKS``. A stack counts staleness in versions of the weights; a version is some number
n of optimizer updates, so a rollout that is a versions old is up to a·n updates old when its batch
is begun and (a + 1)·n − 1 at the batch's last update: that is S. What a stack's documentation does
not say is None here, with the reason in ``unknown``. Conversions are in ``staleness.py``, metric
names in ``metric_names.py``, copyable settings in ``snippets.py``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..commandline import BadInput

Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """A further setting that the conversion of staleness needs, as the stack calls it.

    ``default`` is the stack's, or 1 where it follows from the batch and must be told. A word that
    is no option of the stack has ``is_option`` False, and ``words`` say how to find its number.
    """

    default: float
    words: str
    is_option: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One stack: its names for the settings, and its staleness in learner steps.

    ``learner_steps`` takes the knob and its companions to S, the largest age of a rollout in
    learner steps. ``updates_per_version`` is n, by which logged ages are converted. ``knob_low`` is
    the smallest knob, ``settings_beside`` what asynchronous mode takes besides, ``placeless``
    names options of which only the last part of the path is known.
    """

    name: str
    title: str
    syntax: Literal["python", "overrides", "flags", "toml"]
    learning_rate: str
    clip_epsilon_low: str | None
    clip_epsilon_high: str | None
    group_size: str | None
    steps: str | None
    knob: str
    default_knob: float | None
    knob_unit: str
    learner_steps: Callable[[float, Numbers], int]
    updates_per_version: Callable[[Numbers], float]
    companions: Mapping[str, Companion] = field(default_factory=dict)
    knob_low: int = 0
    callee: str = ""
    settings_beside: Mapping[str, str] = field(default_factory=dict)
    placeless: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def default_staleness(self) -> int | None:
        """S in learner steps at the stack's defaults; None when the knob has no default."""
        if self.default_knob is None:
            return None
        beside = {name: each.default for name, each in self.companions.items()}
        return self.learner_steps(self.default_knob, beside)


def _aged(knob: float, updates: float) -> int:
    """Return (a + 1)·n − 1, the age at the last of n updates of a batch that is a versions old."""
    return math.ceil((knob + 1) * updates - 1e-9) - 1


def _one(_: Numbers) -> float:
    return 1.0


def _named(*names: str) -> Callable[[Numbers], float]:
    """Return the product of some companions."""
    return lambda given: math.prod(given[name] for name in names)


def _versions(*names: str, queued: int = 0) -> Callable[[float, Numbers], int]:
    """Return knob → S for a knob in versions of so many updates; ``queued`` more lie in a queue."""
    return lambda knob, given: _aged(knob + queued, _named(*names)(given))


def _updates_per_batch(words: str) -> dict[str, Companion]:
    return {
        "updates_per_batch": Companion(
            default=1, words=f"optimizer updates per batch: {words}", is_option=False
        )
    }


_VERL = {
    "syntax": "overrides",
    "learning_rate": "actor_rollout_ref.actor.optim.lr",
    "clip_epsilon_low": "actor_rollout_ref.actor.clip_ratio_low",
    "clip_epsilon_high": "actor_rollout_ref.actor.clip_ratio_high",
    "group_size": "actor_rollout_ref.rollout.n",
}

_LISTED = (
    Stack(
        name="trl",
        title="TRL GRPOTrainer",
        syntax="python",
        callee="GRPOConfig",
        learning_rate="learning_rate",
        clip_epsilon_low="epsilon",
        clip_epsilon_high="epsilon_high",
        group_size="num_generations",
        steps="max_steps",
        knob="steps_per_generation",
        default_knob=1,
        knob_low=1,
        knob_unit="micro-batches sampled at once; S = steps_per_generation·num_iterations/"
        "gradient_accumulation_steps − 1 (its default is gradient_accumulation_steps: S = 0)",
        companions={
            "num_iterations": Companion(default=1, words="passes over each sampled batch"),
            "gradient_accumulation_steps": Companion(
                default=1, words="micro-batches per optimizer update"
            ),
        },
        learner_steps=lambda knob, given: (
            math.ceil(knob * given["num_iterations"] / given["gradient_accumulation_steps"] - 1e-9)
            - 1
        ),
        updates_per_version=_one,
    ),
    Stack(
        name="trl_async",
        title="TRL AsyncGRPOTrainer",
        syntax="python",
        callee="AsyncGRPOConfig",
        learning_rate="learning_rate",
        clip_epsilon_low="epsilon",
        clip_epsilon_high="epsilon_high",
        group_size="num_generations",
        steps="max_steps",
        knob="max_staleness",
        default_knob=4,
        knob_unit="weight versions as a batch leaves the queue, of weight_sync_steps optimizer "
        "updates each; it is learned from one update later (as measured with TRL 1.16)",
        companions={
            "weight_sync_steps": Companion(default=1, words="optimizer updates per weight sync")
        },
        learner_steps=lambda knob, given: _aged(knob, given["weight_sync_steps"]) + 1,
        updates_per_version=_named("weight_sync_steps"),
    ),
    Stack(
        name="verl",
        title="verl",
        **_VERL,  # type: ignore[arg-type]  # plain text, shared by two
        steps="trainer.total_training_steps",
        knob="trainer.v1.sampler.max_off_policy_threshold",
        default_knob=8,
        knob_unit="weight versions",
        companions={
            "trainer.v1.separate_async.parameter_sync_step": Companion(
                default=4, words="batches per weight sync"
            ),
            **_updates_per_batch("mini-batches·ppo_epochs"),
        },
        learner_steps=_versions(
            "trainer.v1.separate_async.parameter_sync_step", "updates_per_batch"
        ),
        updates_per_version=_named(
            "trainer.v1.separate_async.parameter_sync_step", "updates_per_batch"
        ),
        settings_beside={"trainer.v1.trainer_mode": "separate_async"},
    ),
    Stack(
        name="verl_fully_async",
        title="verl fully_async_policy",
        **_VERL,  # type: ignore[arg-type]  # plain text, shared by two
        steps=None,
        knob="async_training.staleness_threshold",
        default_knob=0.1,
        knob_unit="share of one synchronization window of trigger_parameter_sync_step updates",
        companions={
            "async_training.trigger_parameter_sync_step": Companion(
                default=4, words="updates per synchronization window"
            )
        },
        learner_steps=lambda knob, given: math.ceil(
            math.ceil(1 + knob - 1e-9) * given["async_training.trigger_parameter_sync_step"] - 1e-9
        ),
        updates_per_version=_named("async_training.trigger_parameter_sync_step"),
        unknown={"steps": "rollout.total_rollout_steps counts rollouts, not optimizer updates"},
    ),
    Stack(
        name="openrlhf",
        title="OpenRLHF",
        syntax="flags",
        learning_rate="--actor.adam.lr",
        clip_epsilon_low="--actor.eps_clip",
        clip_epsilon_high=None,
        group_size="--rollout.n_samples_per_prompt",
        steps=None,
        knob="--train.async_queue_size",
        default_knob=1,
        knob_low=1,
        knob_unit="rollout batches that wait in the queue; one more is being sampled",
        companions=_updates_per_batch(
            "rollout.batch_size·n_samples_per_prompt·max_epochs/train.batch_size"
        ),
        learner_steps=_versions("updates_per_batch", queued=1),
        updates_per_version=_named("updates_per_batch"),
        settings_beside={"--train.async_enable": ""},
        unknown={
            "clip_epsilon_high": "both sides are given by --actor.eps_clip_low_high LOW HIGH",
            "steps": "--train.num_episodes counts passes over the prompts, not optimizer updates",
        },
    ),
    Stack(
        name="areal",
        title="AReaL",
        syntax="overrides",
        learning_rate="actor.optimizer.lr",
        clip_epsilon_low="actor.eps_clip",
        clip_epsilon_high="actor.eps_clip_higher",
        group_size="gconfig.n_samples",
        steps="total_train_steps",
        knob="rollout.max_head_offpolicyness",
        default_knob=0,
        knob_unit="weight versions; one version is ppo_n_minibatches optimizer updates",
        companions={
            "actor.ppo_n_minibatches": Companion(default=1, words="optimizer updates per batch")
        },
        learner_steps=_versions("actor.ppo_n_minibatches"),
        updates_per_version=_named("actor.ppo_n_minibatches"),
    ),
    Stack(
        name="prime_rl",
        title="prime-rl",
        syntax="toml",
        learning_rate="trainer.optim.lr",
        clip_epsilon_low=None,
        clip_epsilon_high=None,
        group_size="orchestrator.group_size",
        steps="max_steps",
        knob="orchestrator.max_off_policy_steps",
        default_knob=8,
        knob_unit="optimizer updates; one version is one update",
        learner_steps=lambda knob, _: math.ceil(knob - 1e-9),
        updates_per_version=_one,
        unknown=dict.fromkeys(
            ("clip_epsilon_low", "clip_epsilon_high"),
            "prime-rl masks by the difference of probabilities (dppo_mask_low/high, 0.2) and has "
            "no ratio clip",
        ),
    ),
    Stack(
        name="nemo_rl",
        title="NeMo-RL",
        syntax="overrides",
        learning_rate="policy.optimizer.kwargs.lr",
        clip_epsilon_low="loss_fn.ratio_clip_min",
        clip_epsilon_high="loss_fn.ratio_clip_max",
        group_size="grpo.num_generations_per_prompt",
        steps="grpo.max_num_steps",
        knob="grpo.async_grpo.max_trajectory_age_steps",
        default_knob=1,
        knob_unit="training steps",
        settings_beside={"grpo.async_grpo.enabled": "true"},
        companions=_updates_per_batch("prompts·generations/train_global_batch_size"),
        learner_steps=_versions("updates_per_batch"),
        updates_per_version=_named("updates_per_batch"),
    ),
    Stack(
        name="skyrl",
        title="SkyRL",
        syntax="overrides",
        learning_rate="trainer.policy.optimizer_config.lr",
        clip_epsilon_low="eps_clip_low",
        clip_epsilon_high="eps_clip_high",
        group_size="generator.n_samples_per_prompt",
        steps=None,
        knob="trainer.fully_async.max_staleness_steps",
        default_knob=4,
        knob_unit="training steps",
        companions=_updates_per_batch("mini-batches per training step"),
        learner_steps=_versions("updates_per_batch"),
        updates_per_version=_named("updates_per_batch"),
        placeless=("eps_clip_low", "eps_clip_high"),
        unknown={"steps": "SkyRL is given epochs, not optimizer updates"},
    ),
    Stack(
        name="slime",
        title="slime",
        syntax="flags",
        learning_rate="--lr",
        clip_epsilon_low="--eps-clip",
        clip_epsilon_high="--eps-clip-high",
        group_size="--n-samples-per-prompt",
        steps="--num-rollout",
        knob="--update-weights-interval",
        default_knob=None,
        knob_low=1,
        knob_unit="rollouts per weight update, with one rollout sampled ahead (train_async.py)",
        companions={
            "--num-steps-per-rollout": Companion(default=1, words="optimizer updates per rollout")
        },
        learner_steps=lambda knob, given: math.ceil(
            (knob + 1) * given["--num-steps-per-rollout"] - 1e-9
        ),
        updates_per_version=_named("--num-steps-per-rollout"),
        unknown={"default_knob": "its default is not documented; fully-async mode has no bound"},
    ),
    Stack(
        name="tinker",
        title="tinker-cookbook",
        syntax="overrides",
        learning_rate="learning_rate",
        clip_epsilon_low=None,
        clip_epsilon_high=None,
        group_size="group_size",
        steps=None,
        knob="async_config.max_steps_off_policy",
        default_knob=None,
        knob_unit="training steps; one is num_substeps optimizer updates",
        companions={"num_substeps": Companion(default=1, words="optimizer updates per batch")},
        learner_steps=_versions("num_substeps"),
        updates_per_version=_named("num_substeps"),
        placeless=("group_size",),
        unknown={
            "default_knob": "it must be given",
            "steps": "the length of the data set sets it",
            **dict.fromkeys(
                ("clip_epsilon_low", "clip_epsilon_high"), "the clip is part of loss_fn_config"
            ),
        },
    ),
)

STACKS: Mapping[str, Stack] = {stack.name: stack for stack in _LISTED}


def stack_named(name: str) -> Stack:
    """Return a stack of the table.

    Raises:
        BadInput: there is no such stack.
    """
    if name not in STACKS:
        raise BadInput(f"stack: {name!r} is not allowed; allowed: {' | '.join(STACKS)}")
    return STACKS[name]
