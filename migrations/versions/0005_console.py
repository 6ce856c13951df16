"""The console: people who sign in, third reviews, marks on reviews, and where guardrails have been.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reviews", sa.Column("third_status", sa.Text))
    op.add_column("reviews", sa.Column("claimed_us", sa.BigInteger))
    op.create_index("reviews_third", "reviews", ["third_status", "priority", "id"])
    op.create_index("reviews_held", "reviews", ["claimed_by"])
    op.create_index("reviews_of_rollout", "reviews", ["rollout", "status", "priority", "id"])
    op.create_index("verdicts_by_judge", "verdicts", ["judge", "id"])
    op.add_column("guardrail_streams", sa.Column("trail", sa.Text))
    op.drop_index("evidence_by_epoch", "evidence_counters")
    op.create_index("evidence_by_epoch", "evidence_counters", ["rollout", "epoch", "metric", "minute"])
    op.create_table(
        "users",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("password_hash", sa.Text),
        sa.Column("subject", sa.Text, unique=True),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("actors", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("disabled_us", sa.BigInteger),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("locked_until_us", sa.BigInteger),
    )
    op.create_table(
        "sessions",
        sa.Column("token_sha256", sa.Text, primary_key=True),
        sa.Column("principal_id", sa.Text, nullable=False, index=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("created_us", "seen_us", "expires_us")),
    )
    op.create_table(
        "sign_in_links",
        sa.Column("token_sha256", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
        sa.Column("used_us", sa.BigInteger),
    )
    op.create_table(
        "review_marks",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("review_id", "judge", "kind")),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text),
    )
    op.create_index("review_marks_by_kind", "review_marks", ["kind", "review_id"])


def downgrade() -> None:
    for table in ("review_marks", "sign_in_links", "sessions", "users"):
        op.drop_table(table)
    op.drop_index("evidence_by_epoch", "evidence_counters")
    op.create_index("evidence_by_epoch", "evidence_counters", ["rollout", "epoch", "metric"])
    op.drop_column("guardrail_streams", "trail")
    op.drop_index("verdicts_by_judge", "verdicts")
    op.drop_index("reviews_of_rollout", "reviews")
    op.drop_index("reviews_held", "reviews")
    op.drop_index("reviews_third", "reviews")
    op.drop_column("reviews", "claimed_us")
    op.drop_column("reviews", "third_status")
