"""Counts of large models in every archive: what the first schema lacked when it was younger.

Revision 0005, after 0004. The first schema was changed in its place twice: archives of its first
days have no ``runs.parameters``, and those on PostgreSQL count parameters and tokens in 32 bits.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

LONG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    if not _has("runs", "parameters"):
        op.add_column("runs", sa.Column("parameters", LONG))
    if op.get_bind().dialect.name == "postgresql":  # SQLite's integers have 64 bits anyway
        for table, column in (("runs", "parameters"), ("steps", "tokens")):
            op.alter_column(table, column, type_=LONG)


def downgrade() -> None:
    """Leave the wider columns: the first schema has them since."""


def _has(table: str, column: str) -> bool:
    found = sa.inspect(op.get_bind()).get_columns(table)
    return column in {each["name"] for each in found}
