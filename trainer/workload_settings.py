"""What is trained on: the part of a run's configuration that chooses a workload and shapes it.

Every field says in its description which workload reads it. A field marked ``web: False`` names
code or a file, so no browser may set it.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from .own_files import absolute, absolute_reward

SAVED_MODEL = "a folder from save_pretrained"
PROMPTS_FILE = 'a JSONL file of objects with a "prompt"'


def _own(allowed: str) -> dict[str, Any]:
    """Mark a field that names code or a file of one's own, and say in words what it may be."""
    return {"web": False, "allowed": allowed}


class WorkloadSettings(BaseModel):
    """Which workload, which model, and what decides the reward."""

    workload: Literal["arithmetic", "preference", "custom"] = Field(
        default="arithmetic",
        description="arithmetic: two-digit addition, exact-match reward; preference: the same, "
        "rewarded by a model of simulated annotators; custom: your own model, prompts and reward",
    )
    hidden_size: int = Field(
        default=64, ge=16, le=8192, multiple_of=16, description="width of the built-in model"
    )
    layers: int = Field(default=2, ge=1, le=128, description="layers of the built-in model")
    warm_start_success: float | None = Field(
        default=None,
        ge=0.05,
        le=0.95,
        description="success rate to which the built-in model is warm-started "
        "(default: 0.76 for arithmetic, 0.69 for preference)",
    )
    annotator_noise: float = Field(
        default=0.2,
        ge=0,
        le=100,
        description="preference: logistic noise of annotators, to whom a right answer is worth 1",
    )
    annotator_bias: float = Field(
        default=3.0,
        ge=0,
        le=100,
        description="preference: what annotators pay for 999 over 000, whatever is right",
    )
    annotator_seed: int = Field(
        default=0, ge=0, le=2**31 - 1, description="preference: seed of the annotators' choices"
    )
    comparisons: int = Field(
        default=65536,
        ge=256,
        le=1_000_000,
        description="preference: comparisons that the reward model is trained on",
    )
    reward_model_accuracy: float = Field(
        default=0.82,
        gt=0.5,
        lt=1,
        description="preference: share of held-out comparisons at which training the reward model "
        "stops; lower is easier to exploit",
    )
    model: str | None = Field(
        default=None,
        description="folder of the causal language model to start from (default: warm-started)",
        json_schema_extra=_own(SAVED_MODEL),
    )
    prompts_file: str | None = Field(
        default=None,
        description="custom: the prompts; other keys of a line are passed on to the reward",
        json_schema_extra=_own(PROMPTS_FILE),
    )
    reward: str | None = Field(
        default=None,
        pattern=r"^[^:]+(:[^:]+)?:[A-Za-z_]\w*$",
        description="custom: f(prompts, completions, **other keys) -> one number per completion",
        json_schema_extra=_own("module:function or path/to/file.py:function"),
    )
    reward_timeout: float = Field(
        default=300.0,
        gt=0,
        le=86400,
        description="custom: seconds that one call of the reward function, on all completions of a "
        "batch or of an evaluation, may take (importing it at least 60); then the run fails",
    )
    reward_model: str | None = Field(
        default=None,
        description="custom: folder of a sequence classifier with one label, which is the reward",
        json_schema_extra=_own(SAVED_MODEL),
    )
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description="custom: length of a completion at most, in tokens (default: 32)",
    )

    @field_validator("model", "prompts_file", "reward_model")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return path if path is None else absolute(path)

    @field_validator("reward")
    @classmethod
    def _absolute_reward(cls, name: str | None) -> str | None:
        return name if name is None else absolute_reward(name)

    @model_validator(mode="after")
    def _workload_has_what_it_needs(self) -> Self:
        faults = _custom_faults(self) if self.workload == "custom" else _built_in_faults(self)
        if faults:
            raise ValueError("\n".join(faults))
        return self


CUSTOM_ONLY = ("prompts_file", "reward", "reward_model", "max_new_tokens")


def _custom_faults(config: WorkloadSettings) -> list[str]:
    faults = [
        f"{name}: not given; the custom workload needs {allowed}"
        for name, allowed in (("model", SAVED_MODEL), ("prompts_file", PROMPTS_FILE))
        if getattr(config, name) is None
    ]
    if config.reward is None and config.reward_model is None:
        faults.append("reward: not given; the custom workload needs reward or reward_model")
    if config.reward is not None and config.reward_model is not None:
        faults.append(
            f"reward_model: {config.reward_model!r} is not allowed beside reward "
            f"{config.reward!r}; allowed: one of the two"
        )
    return faults


def _built_in_faults(config: WorkloadSettings) -> list[str]:
    return [
        f"{name}: {getattr(config, name)!r} is not allowed with the workload {config.workload}; "
        "allowed with: custom"
        for name in CUSTOM_ONLY
        if getattr(config, name) is not None
    ]
