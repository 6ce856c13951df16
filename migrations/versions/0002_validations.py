"""Validations of versions, append-only like all evidence.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "validations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("model_sha256", sa.Text),
        sa.Column("suite_sha256", sa.Text, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("pass_rate", sa.Float, nullable=False),
        sa.Column("wrong_allows", sa.Integer, nullable=False),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("by_key", sa.Text, nullable=False),
        sa.Column("commitment", sa.Text, nullable=False),
    )
    op.create_index("validations_by_version", "validations", ["version", "id"])
    if op.get_bind().dialect.name == "sqlite":
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER validations_no_{act.lower()} BEFORE {act} ON validations "
                f"BEGIN SELECT RAISE(ABORT, 'validations is append-only: {act} refused'); END"
            )
        return
    for act, each in (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER validations_no_{act.lower()} BEFORE {act} ON validations "
            f"FOR EACH {each} EXECUTE FUNCTION phasegate_refuse()"
        )


def downgrade() -> None:
    op.drop_table("validations")
