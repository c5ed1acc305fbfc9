"""Rollouts to read, extremes over blocks of steps, tags, and where a run was imported from.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("source", sa.Text()))
    op.create_table(
        "samples",
        _of_a_run(),
        sa.Column("step", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("completion", sa.Text(), nullable=False),
        sa.Column("reward", sa.Float()),
        sa.Column("gold", sa.Float()),
        sa.Column("advantage", sa.Float()),
        sa.Column("staleness", sa.Integer()),
        sa.Column("ratio", sa.Float()),
        sa.Column("non_finite", sa.Text()),
    )
    op.create_table(
        "rollups",
        _of_a_run(),
        sa.Column("metric", sa.String(length=32), primary_key=True),
        sa.Column("block", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("low", sa.Float()),
        sa.Column("low_step", sa.Integer()),
        sa.Column("high", sa.Float()),
        sa.Column("high_step", sa.Integer()),
        sa.Column("mean", sa.Float()),
        sa.Column("not_finite_step", sa.Integer()),
    )
    op.create_table("tags", _of_a_run(), sa.Column("tag", sa.String(length=64), primary_key=True))


def downgrade() -> None:
    for table in ("tags", "rollups", "samples"):
        op.drop_table(table)
    op.drop_column("runs", "source")


def _of_a_run() -> sa.Column[str]:
    return sa.Column(
        "run_id",
        sa.String(length=64),
        sa.ForeignKey("runs.id", ondelete="CASCADE"),
        primary_key=True,
    )
