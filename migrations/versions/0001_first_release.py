"""Every table of the first release, its append-only triggers, and the rows that there is one of.

Revision ID: 0001
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("decisions", "advisories", "verdicts", "transitions", "retentions", "chain")
ERASABLE = ("situations", "reasonings")
RETAINED = ("decisions", "advisories")


def upgrade() -> None:
    _create_ledger()
    _create_reviews()
    _create_rollouts()
    _create_evidence()
    _create_administration()
    _create_coordination()
    _create_triggers()
    op.bulk_insert(
        sa.table("plane", *map(sa.column, ("id", "kill_switch", "revision", "guard_passes", "actor_secret"))),
        [
            {
                "id": 1,
                "kill_switch": False,
                "revision": 1,
                "guard_passes": 0,
                "actor_secret": secrets.token_bytes(32),
            }
        ],
    )
    op.bulk_insert(
        sa.table("retention_gate", sa.column("id"), sa.column("is_open")), [{"id": 1, "is_open": False}]
    )


def downgrade() -> None:
    for table in (
        "retention_gate",
        "retentions",
        "chain",
        "job_runs",
        "leases",
        "idempotency",
        "policy_documents",
        "api_keys",
        "guardrail_streams",
        "evidence_counters",
        "plane",
        "transitions",
        "investigations",
        "rollouts",
        "verdicts",
        "reviews",
        "reasonings",
        "advisories",
        "situations",
        "decisions",
    ):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION phasegate_refuse()")
        op.execute("DROP FUNCTION phasegate_refuse_unless_retained()")


def _create_ledger() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("exposed", sa.Boolean, nullable=False),
        sa.Column("action_type", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("answered_by", sa.Text, nullable=False),
        sa.Column("fallback_reason", sa.Text),
        sa.Column("combine", sa.Text, nullable=False),
        sa.Column("legacy_engine", sa.Text),
        sa.Column("legacy_decision", sa.Text),
        sa.Column("legacy_rule", sa.Text),
        sa.Column("legacy_error", sa.Text),
        sa.Column("legacy_latency_ms", sa.Float),
        sa.Column("latency_ms", sa.Float, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("situation_commitment", sa.Text, nullable=False),
        sa.Column("commitment", sa.Text, nullable=False),
    )
    op.create_index("decisions_by_rollout", "decisions", ["rollout", "id"])
    op.create_table(
        "situations",
        sa.Column("decision_id", sa.Text, primary_key=True),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("situations_by_actor", "situations", ["actor_id", "decision_id"])
    op.create_table(
        "advisories",
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
    op.create_table(
        "reasonings",
        sa.Column("decision_id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("commitment", sa.Text, nullable=False),
    )


def _create_reviews() -> None:
    op.create_table(
        "reviews",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("decision_id", sa.Text, nullable=False, unique=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("inclusion_probability", sa.Float),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("model_decision", sa.Text),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claim_expires_us", sa.BigInteger),
        sa.Column("due_us", sa.BigInteger, nullable=False),
        sa.Column("judged_us", sa.BigInteger),
        sa.Column("verdict", sa.Text),
    )
    op.create_index("reviews_of_epoch", "reviews", ["rollout", "epoch", "decision_id"])
    op.create_index("reviews_queue", "reviews", ["status", "priority", "id"])
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("review_id", sa.Text, nullable=False),
        sa.Column("decision_id", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("judge", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("decision", sa.Text),
        sa.Column("category", sa.Text),
        sa.Column("notes", sa.Text),
        sa.Column("llm_decision", sa.Text),
        sa.Column("matches", sa.Boolean),
        sa.Column("supersedes", sa.Text),
        sa.Column("commitment", sa.Text, nullable=False),
    )
    op.create_index("ix_verdicts_decision_id", "verdicts", ["decision_id"])
    op.create_index("ix_verdicts_review_id", "verdicts", ["review_id"])


def _create_rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("exposure", sa.Float, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("epoch_started_us", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("candidate", sa.Text),
        sa.Column("previous", sa.Text),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("hold_reason", sa.Text),
        sa.Column("rolled_back", sa.Boolean, nullable=False),
        sa.Column("investigation_id", sa.Text),
        sa.Column("baseline", sa.Text),
        sa.Column("settings_hash", sa.Text, nullable=False),
    )
    op.create_table(
        "investigations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("opened_us", sa.BigInteger, nullable=False),
        sa.Column("transition_id", sa.Text, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("fix", sa.Text),
        sa.Column("closed_us", sa.BigInteger),
        sa.Column("closed_by", sa.Text),
    )
    op.create_index("ix_investigations_rollout", "investigations", ["rollout"])
    op.create_table(
        "transitions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("from_state", sa.Text, nullable=False),
        sa.Column("to_state", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("automatic", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("commitment", sa.Text, nullable=False),
    )
    op.create_index("transitions_by_rollout", "transitions", ["rollout", "id"])
    op.create_table(
        "plane",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kill_switch", sa.Boolean, nullable=False),
        sa.Column("kill_reason", sa.Text),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("guard_passes", sa.BigInteger, nullable=False),
        sa.Column("guard_pass_us", sa.BigInteger),
        sa.Column("clock_jump_us", sa.BigInteger),
        sa.Column("actor_secret", sa.LargeBinary, nullable=False),
    )


def _create_evidence() -> None:
    op.create_table(
        "evidence_counters",
        sa.Column("instance", sa.Text, primary_key=True),
        sa.Column("rollout", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("n", sa.BigInteger, nullable=False),
    )
    op.create_index("evidence_by_epoch", "evidence_counters", ["rollout", "epoch", "metric"])
    op.create_table(
        "guardrail_streams",
        sa.Column("rollout", sa.Text, primary_key=True),
        sa.Column("guardrail", sa.Text, primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        sa.Column("assessment", sa.Text, nullable=False),
    )


def _create_administration() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret_sha256", sa.Text, nullable=False, unique=True),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("actors", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_us", sa.BigInteger),
        sa.Column("revoked_us", sa.BigInteger),
    )
    op.create_table(
        "policy_documents",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("proposed_us", sa.BigInteger, nullable=False),
        sa.Column("applied_by", sa.Text),
        sa.Column("applied_us", sa.BigInteger),
    )
    op.create_table(
        "idempotency",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, primary_key=True),
        sa.Column("decision_id", sa.Text, primary_key=True),
        sa.Column("body_sha256", sa.Text, nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
    )


def _create_coordination() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
        sa.Column("fencing_token", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "job_runs",
        sa.Column("job", sa.Text, primary_key=True),
        sa.Column("scheduled_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.Text, nullable=False),
    )
    op.create_table(
        "chain",
        sa.Column("instance", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("entries", sa.Text, nullable=False),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    op.create_table(
        "retentions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("through_seq", sa.BigInteger, nullable=False),
        sa.Column("removed", sa.BigInteger, nullable=False),
        sa.Column("commitment", sa.Text, nullable=False),
    )
    op.create_table(
        "retention_gate",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
    )


def _create_triggers() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _create_sqlite_triggers()
    else:
        _create_postgresql_triggers()


def _create_sqlite_triggers() -> None:
    for table in APPEND_ONLY + ERASABLE:
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: UPDATE refused'); END"
        )
    for table in APPEND_ONLY:
        unless = (
            "WHEN NOT COALESCE((SELECT is_open FROM retention_gate), FALSE) " if table in RETAINED else ""
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {unless}"
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: DELETE refused'); END"
        )


def _create_postgresql_triggers() -> None:
    refusal = """
        RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
    """
    op.execute(
        f"CREATE FUNCTION phasegate_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {refusal} END $$"
    )
    op.execute(
        "CREATE FUNCTION phasegate_refuse_unless_retained() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "  # noqa: S608 all of it stands here
        f"IF (SELECT is_open FROM retention_gate) THEN RETURN OLD; END IF; {refusal} END $$"
    )
    for table in APPEND_ONLY + ERASABLE:
        _refuse(table, "UPDATE", each="ROW")
    for table in APPEND_ONLY:
        _refuse(table, "TRUNCATE", each="STATEMENT")
        _refuse(table, "DELETE", each="ROW")


def _refuse(table: str, act: str, *, each: str) -> None:
    function = (
        "phasegate_refuse_unless_retained" if act == "DELETE" and table in RETAINED else "phasegate_refuse"
    )
    op.execute(
        f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} "
        f"FOR EACH {each} EXECUTE FUNCTION {function}()"
    )
