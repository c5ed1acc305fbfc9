"""How the policy computes, how much of a batch at once, and what of it is trained.

The part of a run's configuration that a large model needs; the built-in ones need none of it.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from .workload_settings import WorkloadSettings


class PolicySettings(WorkloadSettings):
    """Precision, memory, and adapters."""

    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="numbers that the policy computes with, generating and learning alike; "
        "weights, log-probabilities and drift are fp32 in both",
    )
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=2**32,
        description="rollouts scored at once; a smaller number needs less memory and gives the "
        "gradient of the whole batch all the same (default: all)",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="compute activations again in the backward pass instead of keeping them: less "
        "memory, about a third more time",
    )
    lora_rank: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="train low-rank adapters of this rank only, the model itself stays as it is "
        "(default: all weights are trained); needs peft",
    )
    lora_alpha: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="lora: the product of the two adapters is scaled by lora_alpha/lora_rank "
        "(default: twice lora_rank)",
    )
    lora_targets: str = Field(
        default="all-linear",
        pattern=r"^[\w.-]+(,[\w.-]+)*$",
        max_length=500,
        json_schema_extra={"allowed": "all-linear, or names of modules with commas between"},
        description="lora: which layers get adapters: q_proj,v_proj",
    )
    save_policy: bool = Field(
        default=False,
        description="keep the last policy in ETALON_HOME/policies/RUN, by save_pretrained",
    )

    @model_validator(mode="after")
    def _adapters_have_a_rank(self) -> Self:
        if self.lora_rank is None and self.lora_alpha is not None:
            raise ValueError(
                f"lora_alpha: {self.lora_alpha:g} is not allowed without lora_rank, which it is "
                "divided by; allowed: leave it out"
            )
        return self

    @property
    def lora_scale(self) -> float:
        """What the product of two adapters is multiplied by; 0 without adapters."""
        if self.lora_rank is None:
            return 0.0
        return 2.0 if self.lora_alpha is None else self.lora_alpha / self.lora_rank
