"""The first schema: runs, steps, evaluations, events, recommendations.

Revision 0001, after none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LONG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "recommendations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("heartbeat_at", sa.Float(), nullable=True),
        sa.Column("heartbeat_count", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("pid_started", sa.Float(), nullable=True),
        sa.Column("stop_requested", sa.Boolean(), nullable=False),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("threads", sa.Integer(), nullable=True),
        sa.Column("parameters", LONG, nullable=True),
        sa.Column("config", sa.Text(), nullable=True),
        sa.Column("workload", sa.Text(), nullable=True),
        sa.Column("group", sa.Text(), nullable=True),
        sa.Column("seed", sa.Integer(), nullable=True),
        sa.Column("code_version", sa.Text(), nullable=True),
        sa.Column("schema_version", sa.Text(), nullable=True),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("chance_reward", sa.Float(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("outcome_reason", sa.Text(), nullable=True),
        sa.Column("collapse_step", sa.Integer(), nullable=True),
        sa.Column("slide_step", sa.Integer(), nullable=True),
        sa.Column("reward_first", sa.Float(), nullable=True),
        sa.Column("reward_best", sa.Float(), nullable=True),
        sa.Column("reward_last", sa.Float(), nullable=True),
        sa.Column("reward_final", sa.Float(), nullable=True),
        sa.Column("gold_reward_first", sa.Float(), nullable=True),
        sa.Column("gold_reward_last", sa.Float(), nullable=True),
        sa.Column("gold_reward_final", sa.Float(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("unmeasured", sa.Text(), nullable=True),
        sa.Column("recommendation_id", sa.Integer(), nullable=True),
        sa.Column("non_finite", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("runs_by_status", "runs", ["status"])

    op.create_table(
        "evaluations",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("rollouts", sa.Integer(), nullable=False),
        sa.Column("reward", sa.Float(), nullable=True),
        sa.Column("reward_std", sa.Float(), nullable=True),
        sa.Column("gold", sa.Float(), nullable=True),
        sa.Column("non_finite", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "step"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_events_run_id", "events", ["run_id"])

    op.create_table(
        "steps",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("learning_rate", sa.Float(), nullable=True),
        sa.Column("staleness_mean", sa.Float(), nullable=True),
        sa.Column("staleness_max", sa.Float(), nullable=True),
        sa.Column("sampled_at_step", sa.Integer(), nullable=True),
        sa.Column("update_norm", sa.Float(), nullable=True),
        sa.Column("cycle_drift", sa.Float(), nullable=True),
        sa.Column("displacement", sa.Float(), nullable=True),
        sa.Column("path_length", sa.Float(), nullable=True),
        sa.Column("approx_kl", sa.Float(), nullable=True),
        sa.Column("kl_to_start", sa.Float(), nullable=True),
        sa.Column("log_ratio_rms", sa.Float(), nullable=True),
        sa.Column("clip_fraction_low", sa.Float(), nullable=True),
        sa.Column("clip_fraction_high", sa.Float(), nullable=True),
        sa.Column("outside_clip_fraction", sa.Float(), nullable=True),
        sa.Column("clipped_gradient_mass", sa.Float(), nullable=True),
        sa.Column("ess_fraction", sa.Float(), nullable=True),
        sa.Column("sequence_ess_fraction", sa.Float(), nullable=True),
        sa.Column("gradient_cosine", sa.Float(), nullable=True),
        sa.Column("grad_norm", sa.Float(), nullable=True),
        sa.Column("entropy", sa.Float(), nullable=True),
        sa.Column("reward_mean", sa.Float(), nullable=True),
        sa.Column("reward_std", sa.Float(), nullable=True),
        sa.Column("gold_reward_mean", sa.Float(), nullable=True),
        sa.Column("response_length", sa.Float(), nullable=True),
        sa.Column("zero_variance_groups", sa.Integer(), nullable=True),
        sa.Column("dropped_groups", sa.Integer(), nullable=True),
        sa.Column("clipping_radii", sa.Text(), nullable=True),
        sa.Column("m2", sa.Float(), nullable=True),
        sa.Column("loss", sa.Float(), nullable=True),
        sa.Column("seconds_generate", sa.Float(), nullable=True),
        sa.Column("seconds_learn", sa.Float(), nullable=True),
        sa.Column("seconds_measure", sa.Float(), nullable=True),
        sa.Column("seconds_wait", sa.Float(), nullable=True),
        sa.Column("tokens", LONG, nullable=True),
        sa.Column("reasons", sa.Text(), nullable=True),
        sa.Column("extra", sa.Text(), nullable=True),
        sa.Column("non_finite", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "step"),
    )


def downgrade() -> None:
    for table in ("steps", "events", "evaluations", "runs", "recommendations"):
        op.drop_table(table)
