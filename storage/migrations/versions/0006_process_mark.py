"""What tells the process of a run from any other of its id, whatever the clock says.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("process_mark", sa.Text()))


def downgrade() -> None:
    op.drop_column("runs", "process_mark")
