"""Versions: which are registered, how they were validated, and what a rollout's candidate says.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None

RETAINED = ("candidate_advisories",)
APPEND_ONLY = ("versions", "validations", *RETAINED)


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
    for table in APPEND_ONLY:
        if op.get_bind().dialect.name == "sqlite":
            _refuse_on_sqlite(table)
        else:
            _refuse_on_postgresql(table)


def downgrade() -> None:
    op.drop_column("plane", "chosen_version")
    for column in ("candidate_since_us", "candidate_share", "candidate_mode"):
        op.drop_column("rollouts", column)
    for table in APPEND_ONLY:
        op.drop_table(table)


def _refuse_on_sqlite(table: str) -> None:
    retained = "WHEN NOT COALESCE((SELECT is_open FROM retention_gate), FALSE) "
    for act, unless in (("UPDATE", ""), ("DELETE", retained if table in RETAINED else "")):
        op.execute(
            f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} {unless}"
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {act} refused'); END"
        )


def _refuse_on_postgresql(table: str) -> None:
    refuse = "phasegate_refuse"
    delete = "phasegate_refuse_unless_retained" if table in RETAINED else refuse
    for act, each, function in (
        ("UPDATE", "ROW", refuse),
        ("TRUNCATE", "STATEMENT", refuse),
        ("DELETE", "ROW", delete),
    ):
        op.execute(
            f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} "
            f"FOR EACH {each} EXECUTE FUNCTION {function}()"
        )
