"""What a run is told: one pydantic model behind command line, web form, stored JSON and errors.

Imports neither torch nor transformers, so the dashboard can draw its form from it.
"""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, Self, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from storage.commandline import BadInput

from .losses import LOSSES
from .own_files import own_file_faults
from .policy_settings import PolicySettings

MOST_SAMPLED_STEPS = 400


class TrainerConfig(PolicySettings):
    """The setting of one run; field descriptions are the help text, bounds the allowed range."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learning_rate: float = Field(
        gt=0, le=10, description="learning rate of the optimizer after warm-up"
    )
    max_staleness: int = Field(
        ge=0, le=4096, description="S: age in learner steps that a rollout may reach; 0 = on-policy"
    )
    steps: int = Field(ge=1, le=100_000_000, description="T: planned number of learner steps")
    schedule: Literal["cyclic", "constant", "queue"] = Field(
        default="cyclic",
        description="cyclic: behavior weights refreshed every S+1 steps; constant: always S old; "
        "queue: other processes generate while the learner updates, at most S old",
    )
    rollout_workers: int = Field(
        default=1, ge=1, le=256, description="queue: processes that generate"
    )
    engine: Literal["local", "ray"] = Field(
        default="local",
        json_schema_extra={"web": False},
        description="queue: what generates, processes of this machine or actors of a Ray cluster",
    )
    loss: Literal["grpo", "dr_grpo", "gspo", "cispo", "tis", "decoupled"] = Field(
        default="grpo",
        description="objective: grpo clips the importance ratio of each token, dr_grpo too but "
        "normalises by neither length nor standard deviation, gspo clips that of the whole answer, "
        "cispo and tis cap the weight and keep every gradient, decoupled clips against the policy "
        "at the first update on a batch",
    )
    updates_per_batch: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="learner steps taken on each batch; its rollouts age by one with every step",
    )
    kl_coefficient: float = Field(
        default=0.0, ge=0, le=100, description="weight of the KL penalty to the starting policy"
    )
    clip_epsilon: float | None = Field(
        default=0.2,
        gt=0,
        lt=1,
        json_schema_extra={"depends_on": "loss"},
        description="clip range of the importance ratio below 1 (gspo: 0.0003 unless given; cispo "
        "and tis have none)",
    )
    clip_epsilon_high: float | None = Field(
        default=None,
        gt=0,
        le=100,
        json_schema_extra={"depends_on": "loss"},
        description="clip range above 1 (default: as clip_epsilon; gspo 0.0004, cispo 4, tis 1)",
    )
    prompts: int = Field(default=16, ge=1, le=65536, description="prompts per learner step")
    group_size: int = Field(default=8, ge=2, le=4096, description="G: rollouts per prompt")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="seed of every random choice")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="optimizer")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="momentum (adamw and sgd)")
    adam_beta2: float = Field(default=0.95, ge=0, lt=1, description="second-moment decay of adamw")
    weight_decay: float = Field(
        default=0.0, ge=0, le=1, description="decoupled weight decay (adamw)"
    )
    max_grad_norm: float = Field(
        default=1.0, gt=0, le=1e6, description="gradients are scaled down to at most this norm"
    )
    warmup_steps: int = Field(
        default=10, ge=0, le=1_000_000, description="linear learning-rate warm-up, in steps"
    )
    ramp_from: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="let the learning rate grow geometrically from here to learning_rate, which it "
        "reaches at the last step",
    )
    evaluate_every: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="steps between evaluations of the current policy (default: max(25, S+1))",
    )
    evaluation_rollouts: int = Field(
        default=256, ge=2, le=1_000_000, description="rollouts of each evaluation"
    )
    kl_to_start_every: int = Field(
        default=10, ge=1, le=1_000_000, description="steps between measurements of KL to the start"
    )
    bias_every: int = Field(
        default=5,
        ge=0,
        le=1_000_000,
        description="stale steps between samples of the paired clip bias; 0 = never",
    )
    bias_study: str | None = Field(
        default=None,
        pattern=r"^\d+(,\d+)*$",
        max_length=120,
        json_schema_extra={"allowed": "whole numbers with commas between, each at most steps"},
        description="lags at which the gradient bias is measured at the last policy: 0,1,2,4,8",
    )
    bias_shards: int = Field(
        default=20, ge=16, le=4096, description="K: shards of independent prompts in that study"
    )
    bias_prompts: int = Field(
        default=320, ge=1, le=1_000_000, description="prompts per shard in that study"
    )
    sample_every: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="steps between those of which a few rollouts are kept for reading; 0 = never "
        "(default: max(50, steps/40))",
    )
    samples_kept: int = Field(
        default=8, ge=1, le=64, description="rollouts kept of each such step, whole groups first"
    )
    checkpoint_every: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="steps between checkpoints from which the run can be resumed; 0 = never "
        "(default: at most one a minute, and when it is stopped)",
    )
    stop_on_collapse: bool = Field(
        default=True,
        description="end a run 100 batches after the onset of a confirmed collapse, and extend one "
        "whose reward is down at the end; otherwise it takes exactly the planned steps",
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        json_schema_extra={"allowed": "auto | cpu | mps | cuda | cuda:N"},
        description="where to train: auto, cpu, mps, cuda or cuda:N",
    )
    threads: int = Field(
        default=1, ge=1, le=1024, description="CPU threads; same seed and threads, same numbers"
    )
    name: str | None = Field(default=None, max_length=120, description="name shown in lists")
    group: str | None = Field(default=None, max_length=120, description="runs that belong together")

    @model_validator(mode="before")
    @classmethod
    def _with_the_clip_range_of_its_loss(cls, values: Any) -> Any:
        """Fill in the clip range that was not given, so that what is stored says it."""
        if not isinstance(values, dict):
            return values
        loss = LOSSES.get(str(values.get("loss") or "grpo"))
        if loss is None:
            return values
        given = {name: value for name, value in values.items() if value is not None}
        range_of_loss: dict[str, float | None] = {}
        if "clip_epsilon" not in given:
            range_of_loss["clip_epsilon"] = loss.epsilon_low
            if "clip_epsilon_high" not in given and loss.epsilon_high != loss.epsilon_low:
                range_of_loss["clip_epsilon_high"] = loss.epsilon_high
        return values | range_of_loss

    @model_validator(mode="after")
    def _ranges_fit(self) -> Self:
        low, high = self.clip_epsilon, self.clip_epsilon_high
        if low is not None and not LOSSES[self.loss].clips_below:
            raise ValueError(
                f"clip_epsilon: {low} is not allowed with the loss {self.loss}, which "
                "clips nothing below 1; allowed: leave it out, clip_epsilon_high is its range"
            )
        if low is not None and high is not None and high < low:
            raise ValueError(
                f"clip_epsilon_high: {high} is below clip_epsilon {low}; "
                "allowed: at least clip_epsilon"
            )
        if self.rollout_workers > 1 and self.schedule != "queue":
            raise ValueError(
                f"rollout_workers: {self.rollout_workers} is not allowed with the schedule "
                f"{self.schedule}, whose learner generates by itself; allowed: 1"
            )
        if self.engine == "ray" and self.schedule != "queue":
            raise ValueError(
                f"engine: 'ray' is not allowed with the schedule {self.schedule}, whose learner "
                "generates by itself; allowed: local"
            )
        if self.weight_decay > 0 and self.optimizer == "sgd":
            raise ValueError(
                f"weight_decay: {self.weight_decay} is not allowed with the optimizer sgd, which "
                "would ignore it; allowed: 0"
            )
        if self.updates_per_batch > self.max_staleness + 1:
            raise ValueError(
                f"updates_per_batch: {self.updates_per_batch} makes rollouts "
                f"{self.updates_per_batch - 1} learner steps old, max_staleness is "
                f"{self.max_staleness}; allowed: at most max_staleness + 1"
            )
        if self.ramp_from is not None and self.ramp_from > self.learning_rate:
            raise ValueError(
                f"ramp_from: {self.ramp_from:g} is above learning_rate {self.learning_rate:g}; "
                "allowed: 0 < ramp_from <= learning_rate"
            )
        if max(self.study_lags, default=0) > self.steps:
            raise ValueError(
                f"bias_study: {self.bias_study!r} is not allowed; allowed: lags of at most steps, "
                f"{self.steps}"
            )
        return self

    @property
    def study_lags(self) -> tuple[int, ...]:
        """Lags of the bias study, in learner steps, ascending; none without a study."""
        return tuple(sorted({int(lag) for lag in (self.bias_study or "").split(",") if lag}))

    @property
    def epsilon_low(self) -> float:
        """Clip range below 1; inf where the loss clips nothing there."""
        return math.inf if self.clip_epsilon is None else self.clip_epsilon

    @property
    def epsilon_high(self) -> float:
        """Clip range above 1; the same as below unless it was given."""
        return self.epsilon_low if self.clip_epsilon_high is None else self.clip_epsilon_high

    @property
    def evaluation_interval(self) -> int:
        """Learner steps between two evaluations of the current policy (theory.md §6)."""
        return self.evaluate_every or max(25, self.max_staleness + 1)

    @property
    def sample_interval(self) -> int | None:
        """Learner steps between two of which rollouts are kept; None for never.

        A run keeps its samples evenly spread and no more than ``MOST_SAMPLED_STEPS`` of them,
        however often it was asked to.
        """
        if self.sample_every == 0:
            return None
        if self.sample_every is None:
            return max(50, -(-self.steps // 40))
        return max(self.sample_every, -(-self.steps // MOST_SAMPLED_STEPS))

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of learner step ``step`` (from 0): linear warm-up, then constant or rising.

        A ramp ends at ``learning_rate`` at the last planned step and stays there.
        """
        rate = self.learning_rate
        if self.ramp_from is not None:
            share = min(1.0, step / max(1, self.steps - 1))
            rate = self.ramp_from * (self.learning_rate / self.ramp_from) ** share
        return rate * min(1.0, (step + 1) / (self.warmup_steps + 1))


def changed(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those given in their place; None counts as not given.

    A clip range belongs to its loss: it does not go along to another.
    """
    given = {name: value for name, value in given.items() if value is not None}
    loss = settings.get("loss") or "grpo"
    left_out = ("clip_epsilon", "clip_epsilon_high") if given.get("loss", loss) != loss else ()
    return {name: v for name, v in settings.items() if name not in left_out} | given


def web_fields() -> tuple[str, ...]:
    """Return the settings that a browser may set: none that names code or a file."""
    return tuple(n for n, f in TrainerConfig.model_fields.items() if _extra(f).get("web", True))


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def bounded_config(values: Mapping[str, Any]) -> TrainerConfig:
    """Build a configuration from what was given; fields that are None count as not given.

    Neither a file nor code that it names is looked at: for a setting that is only asked about.

    Raises:
        BadInput: one line per fault, each with field, value and allowed range.
    """
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return TrainerConfig.model_validate(given)
    except ValidationError as error:
        faults = [line for fault in error.errors() for line in _fault(dict(fault)).splitlines()]
        raise BadInput(*faults) from None


def checked_config(values: Mapping[str, Any]) -> TrainerConfig:
    """Build the configuration of a run that shall begin, whose own files and reward can be used.

    Raises:
        BadInput: one line per fault, each with field, value and allowed range.
    """
    config = bounded_config(values)
    names = ("model", "reward_model", "prompts_file", "reward")
    if faults := own_file_faults(**{name: getattr(config, name) for name in names}):
        raise BadInput(*faults)
    return config


def _fault(fault: Mapping[str, Any]) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name = str(fault["loc"][0])
    if name not in TrainerConfig.model_fields:
        near = get_close_matches(name, TrainerConfig.model_fields, n=1)
        known = ", ".join(TrainerConfig.model_fields)
        return f"{name}: not a setting; " + (
            f"did you mean {near[0]}?" if near else f"allowed: {known}"
        )
    allowed = allowed_range(name)
    if fault["type"] == "missing":
        return f"{name}: not given; allowed: {allowed}"
    return f"{name}: {fault['input']!r} is not allowed; allowed: {allowed}"


def allowed_range(name: str) -> str:
    """Say which values a field takes, in words for an error message or a form."""
    field = TrainerConfig.model_fields[name]
    if choices := choices_of(field):
        return " | ".join(choices)
    if allowed := _extra(field).get("allowed"):
        return str(allowed)
    kind = kind_of(field)
    if kind is bool:
        return "true | false"
    if kind is str:
        return "at most 120 characters"
    whole = "whole number, " if kind is int else ""
    low, high = bounds_of(field)
    return f"{whole}{low}{name}{high}" + (", a multiple of 16" if name == "hidden_size" else "")


def depends_on(name: str) -> str | None:
    """Return the setting on which the default of a field depends; None for a default of its own."""
    found = _extra(TrainerConfig.model_fields[name]).get("depends_on")
    return None if found is None else str(found)


def bounds_of(field: FieldInfo) -> tuple[str, str]:
    """Return the lower and upper bound of a number as text, such as ``("0 < ", " <= 10")``."""
    low = high = ""
    for bound in field.metadata:
        if isinstance(bound, Gt):
            low = f"{bound.gt} < "
        elif isinstance(bound, Ge):
            low = f"{bound.ge} <= "
        elif isinstance(bound, Lt):
            high = f" < {bound.lt}"
        elif isinstance(bound, Le):
            high = f" <= {bound.le}"
    return low, high


def kind_of(field: FieldInfo) -> type:
    """Return the plain type of a field: str, int, float or bool; ``X | None`` counts as X."""
    members = [m for m in get_args(field.annotation) if m is not type(None)]
    kind: Any = members[0] if members and not choices_of(field) else field.annotation
    return kind if isinstance(kind, type) else str


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """Return the words a field may be, or nothing when it is not a choice."""
    members = get_args(field.annotation)
    return tuple(members) if members and all(isinstance(m, str) for m in members) else ()
