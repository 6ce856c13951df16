"""Evidence that holds up: totals, repeated questions, approvals, freezes, ramps, reports and webhooks.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = (
    *("evidence_totals", "observed_situations", "observed_by", "approvals", "freezes"),
    *("reports", "satisfaction", "webhooks", "deliveries"),
)


def upgrade() -> None:
    for table in ("advisories", "candidate_advisories"):
        op.add_column(table, sa.Column("counted", sa.Boolean))
    op.add_column("reviews", sa.Column("second_status", sa.Text))
    op.add_column("reviews", sa.Column("second_verdict", sa.Text))
    op.create_index("reviews_second", "reviews", ["second_status", "priority", "id"])
    op.add_column("verdicts", sa.Column("claimed_us", sa.BigInteger))
    op.add_column("rollouts", sa.Column("ramp", sa.Text))
    _counting()
    _people()
    _telling()
    op.execute(
        "INSERT INTO evidence_totals (rollout, version, epoch, metric, label, instance, n) "
        "SELECT rollout, version, epoch, metric, label, instance, SUM(n) FROM evidence_counters "
        "GROUP BY rollout, version, epoch, metric, label, instance"
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
    op.drop_column("rollouts", "ramp")
    op.drop_column("verdicts", "claimed_us")
    op.drop_index("reviews_second", "reviews")
    op.drop_column("reviews", "second_verdict")
    op.drop_column("reviews", "second_status")
    for table in ("candidate_advisories", "advisories"):
        op.drop_column(table, "counted")


def _counting() -> None:
    texts = ("rollout", "version")
    epoch = ("epoch", sa.Integer)
    _keyed(
        "evidence_totals",
        *((name, sa.Text) for name in texts),
        epoch,
        *((name, sa.Text) for name in ("metric", "label", "instance")),
        value=sa.Column("n", sa.BigInteger, nullable=False),
    )
    window = ("time_window", sa.Integer)
    _keyed(
        "observed_situations",
        *((name, sa.Text) for name in texts),
        epoch,
        window,
        ("situation", sa.LargeBinary),
    )
    _keyed(
        "observed_by",
        *((name, sa.Text) for name in texts),
        epoch,
        window,
        ("who", sa.Text),
        value=sa.Column("n", sa.BigInteger, nullable=False),
    )


def _keyed(table: str, *keys: tuple[str, type], value: "sa.Column[int] | None" = None) -> None:
    columns: list[sa.Column[object]] = [sa.Column(name, kind, primary_key=True) for name, kind in keys]
    op.create_table(table, *columns, *([] if value is None else [value]))


def _people() -> None:
    op.create_table(
        "approvals",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("to_phase", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("gate", sa.Text, nullable=False),
        sa.Column("void_us", sa.BigInteger),
        sa.Column("void_reason", sa.Text),
    )
    op.create_index("approvals_by_rollout", "approvals", ["rollout", "epoch"])
    op.create_table(
        "freezes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("starts_us", sa.BigInteger, nullable=False),
        sa.Column("ends_us", sa.BigInteger, nullable=False),
        sa.Column("weekly", sa.Boolean, nullable=False),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("ended_us", sa.BigInteger),
        sa.Column("ended_by", sa.Text),
    )
    op.create_table(
        "satisfaction",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("score", sa.Integer, nullable=False),
        sa.Column("comment", sa.Text),
    )


def _telling() -> None:
    op.create_table(
        "reports",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("starts_us", sa.BigInteger, nullable=False),
        sa.Column("ends_us", sa.BigInteger, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("reports_by_period", "reports", ["period", "starts_us"])
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("kinds", sa.Text, nullable=False),
        sa.Column("ended_us", sa.BigInteger),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("webhook_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_us", sa.BigInteger, nullable=False),
        sa.Column("response", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("settled_us", sa.BigInteger),
    )
    op.create_index("deliveries_due", "deliveries", ["status", "due_us"])
