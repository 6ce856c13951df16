"""Registered versions, the candidate of a rollout, and what it says.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_REFUSED = {"candidate_advisories": "phasegate_refuse_unless_retained", "versions": "phasegate_refuse"}


def upgrade() -> None:
    op.create_table(
        "versions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("commitment", sa.Text, nullable=False),
    )
    op.create_index("ix_versions_version", "versions", ["version"])
    op.create_table(
        "candidate_advisories",
        sa.Column("decision_id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("decision", sa.Text),
        sa.Column("p_allow", sa.Float),
        sa.Column("p_require_attestation", sa.Float),
        sa.Column("p_deny", sa.Float),
        sa.Column("confidence", sa.Float),
        sa.Column("coverage", sa.Float),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("latency_ms", sa.Float, nullable=False),
        sa.Column("started", sa.Boolean, nullable=False),
        sa.Column("cached", sa.Boolean, nullable=False),
        sa.Column("agrees", sa.Boolean),
        sa.Column("commitment", sa.Text, nullable=False),
    )
    op.add_column("rollouts", sa.Column("candidate_mode", sa.Text))
    op.add_column("rollouts", sa.Column("candidate_share", sa.Float))
    op.add_column("rollouts", sa.Column("candidate_since_us", sa.BigInteger))
    op.add_column("plane", sa.Column("chosen_version", sa.Text))
    for table, delete in _REFUSED.items():
        if op.get_bind().dialect.name == "sqlite":
            _refuse_on_sqlite(table)
        else:
            _refuse_on_postgresql(table, delete)


def downgrade() -> None:
    op.drop_column("plane", "chosen_version")
    op.drop_column("rollouts", "candidate_since_us")
    op.drop_column("rollouts", "candidate_share")
    op.drop_column("rollouts", "candidate_mode")
    op.drop_table("candidate_advisories")
    op.drop_table("versions")


def _refuse_on_sqlite(table: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: UPDATE refused'); END"
    )
    unless = "WHEN NOT COALESCE((SELECT is_open FROM retention_gate), FALSE) "
    op.execute(
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
        f"{unless if table == 'candidate_advisories' else ''}"
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: DELETE refused'); END"
    )


def _refuse_on_postgresql(table: str, delete: str) -> None:
    for act, each, function in (
        ("UPDATE", "ROW", "phasegate_refuse"),
        ("TRUNCATE", "STATEMENT", "phasegate_refuse"),
        ("DELETE", "ROW", delete),
    ):
        op.execute(
            f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} "
            f"FOR EACH {each} EXECUTE FUNCTION {function}()"
        )
