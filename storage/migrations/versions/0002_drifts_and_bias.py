"""Drift over lags, bias estimates, and the radii of the importance weights.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drifts",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("lag", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("norm", sa.Float(), nullable=True),
        sa.Column("rate_sum", sa.Float(), nullable=True),
        sa.Column("non_finite", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "step", "lag"),
    )
    op.create_table(
        "bias_probes",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("staleness", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("correction", sa.String(length=16), nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("shards", sa.Integer(), nullable=False),
        sa.Column("rollouts", sa.Integer(), nullable=False),
        sa.Column("learning_rate", sa.Float(), nullable=True),
        sa.Column("drift", sa.Float(), nullable=True),
        sa.Column("log_ratio_rms", sa.Float(), nullable=True),
        sa.Column("clip_fraction", sa.Float(), nullable=True),
        sa.Column("bias_squared", sa.Float(), nullable=True),
        sa.Column("bias_squared_stderr", sa.Float(), nullable=True),
        sa.Column("norm_squared", sa.Float(), nullable=True),
        sa.Column("norm_squared_stderr", sa.Float(), nullable=True),
        sa.Column("harmful", sa.Float(), nullable=True),
        sa.Column("harmful_stderr", sa.Float(), nullable=True),
        sa.Column("cosine", sa.Float(), nullable=True),
        sa.Column("cosine_stderr", sa.Float(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("non_finite", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "step", "staleness", "correction"),
    )
    op.add_column("steps", sa.Column("weight_radii", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("steps", "weight_radii")
    op.drop_table("bias_probes")
    op.drop_table("drifts")
