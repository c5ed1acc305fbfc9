"""What each metric is called on screen, in which unit, and how to read it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """How a column of ``StepMetrics`` is shown.

    ``reading`` says in words, ``bad`` in one (``high``, ``low`` or None) which direction is bad.
    """

    label: str
    unit: str
    reading: str
    bad: str | None = None


GLOSSARY: dict[str, Metric] = {
    "reward_mean": Metric(
        "batch reward",
        "",
        "Mean reward of the batch, at the step whose weights sampled it.",
        bad="low",
    ),
    "gold_reward_mean": Metric(
        "batch gold reward", "", "The reward that is really wanted, where it is known.", bad="low"
    ),
    "learning_rate": Metric(
        "learning rate η", "", "Rate of this learner step: warm-up, then constant."
    ),
    "staleness_max": Metric(
        "staleness", "learner steps", "Age of the oldest rollout. Higher is worse.", bad="high"
    ),
    "cycle_drift": Metric(
        "within-cycle drift",
        "parameter units",
        "‖θ − φ‖, how far the learner is from the weights that sampled. Higher is worse.",
        bad="high",
    ),
    "displacement": Metric(
        "displacement",
        "parameter units",
        "‖θ − θ₀‖, how far the learner is from its start: what the horizon is measured in.",
    ),
    "approx_kl": Metric(
        "KL behavior → policy",
        "nats per token",
        "Drift in function space. Higher is worse; sampler–trainer KL below 0.01 is usual.",
        bad="high",
    ),
    "kl_to_start": Metric(
        "KL start → policy", "nats per token", "How far the policy is from its start."
    ),
    "log_ratio_rms": Metric(
        "log-ratio rms", "nats", "Typical size of log π/φ per token. Higher is worse.", bad="high"
    ),
    "clip_fraction_low": Metric(
        "clipped low",
        "share of tokens",
        "Tokens with A < 0 whose gradient the clip removes. Higher is worse; 0.05 % is published "
        "as healthy, 1 % as degraded, tiny models bear several percent.",
        bad="high",
    ),
    "clip_fraction_high": Metric(
        "clipped high", "share of tokens", "The same for tokens with A > 0.", bad="high"
    ),
    "clipped_gradient_mass": Metric(
        "clipped gradient mass",
        "share",
        "Share of the gradient that the clip removes; a few tokens can carry half of it.",
        bad="high",
    ),
    "ess_fraction": Metric(
        "token ESS",
        "share",
        "Effective sample size per token. Lower is worse; insensitive.",
        bad="low",
    ),
    "sequence_ess_fraction": Metric(
        "sequence ESS",
        "share",
        "Effective sample size per sequence. Lower is worse; alarm at 0.3.",
        bad="low",
    ),
    "grad_norm": Metric("gradient norm", "", "Norm of the raw gradient, before it is clipped."),
    "gradient_cosine": Metric(
        "gradient cosine",
        "",
        "Cosine with the gradient of the step before: near 0 diffusive, above 0.5 ballistic drift.",
    ),
    "entropy": Metric(
        "entropy", "nats per token", "Entropy of the policy. A fall to 30 % of its level is a flag."
    ),
    "update_norm": Metric("update norm", "per unit of η", "‖Δθ‖/η of this step."),
    "loss": Metric("loss", "", "The surrogate's value; says nothing about progress."),
    "m2": Metric(
        "M2",
        "nats²",
        "Second moment of the log-ratio. Higher is worse; 0.04 is a limit.",
        bad="high",
    ),
    "zero_variance_groups": Metric(
        "groups without signal",
        "groups",
        "Groups whose rewards are all equal: no gradient.",
        bad="high",
    ),
}


def label_of(name: str) -> str:
    """Return a metric's name on screen."""
    return GLOSSARY[name].label if name in GLOSSARY else name.replace("_", " ")


def axis_title(name: str) -> str:
    """Return the title of a metric's axis: its unit, or its name when it has none.

    The chart's own title names the metric, and both together are longer than a small axis.
    """
    unit = GLOSSARY[name].unit if name in GLOSSARY else ""
    return unit or label_of(name)
