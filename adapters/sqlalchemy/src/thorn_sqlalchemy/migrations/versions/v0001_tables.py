"""The initial tables."""

from __future__ import annotations

from alembic import op

from thorn_core.stores.sql.schema import TABLES
from thorn_core.stores.sql.wording import Wording
from thorn_sqlalchemy.engines import DIALECTS

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    context = op.get_context()
    prefix, schema = context.opts["thorn_prefix"], context.opts["thorn_schema"]
    wording = Wording(DIALECTS[context.dialect.name], "?", prefix, schema)
    for statement in wording.ddl(TABLES):
        op.execute(statement)
