"""Which rows does the plane keep?

Times are whole microseconds since the epoch, UTC, in columns named `*_us`. Documents are JSON text.
`decisions`, `advisories`, `candidate_advisories`, `verdicts`, `versions`, `transitions`, `validations`,
`retentions` and `chain` are append-only: triggers refuse UPDATE and DELETE; only `decisions` and both kinds
of advisories may be deleted, and only while retention has opened its gate (`app.store.retention`).
`situations` and `reasonings` refuse UPDATE too but may be erased: the chain holds their salted commitments.
"""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()


def _table(name: str, *parts: Column[Any] | Index) -> Table:
    return Table(name, metadata, *parts)


decisions = _table(
    "decisions",
    Column("id", Text, primary_key=True),  # time-ordered: sorting by id is decision order
    Column("created_us", BigInteger, nullable=False),
    Column("rollout", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("exposed", Boolean, nullable=False),
    Column("action_type", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("answered_by", Text, nullable=False),
    Column("fallback_reason", Text),
    Column("combine", Text, nullable=False),
    Column("legacy_engine", Text),
    Column("legacy_decision", Text),
    Column("legacy_rule", Text),
    Column("legacy_error", Text),
    Column("legacy_latency_ms", Float),
    Column("latency_ms", Float, nullable=False),
    Column("request_id", Text),
    Column("situation_commitment", Text, nullable=False),  # salted hash: stays when the situation is erased
    Column("commitment", Text, nullable=False),  # hash of this row's other columns
    Index("decisions_by_rollout", "rollout", "id"),
)

# Erasable: what a person said or is, beside the salt of its commitment.
situations = _table(
    "situations",
    Column("decision_id", Text, primary_key=True),
    Column("actor_id", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON
    Index("situations_by_actor", "actor_id", "decision_id"),
)

advisories = _table(
    "advisories",
    Column("decision_id", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("rollout", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("decision", Text),
    Column("p_allow", Float),
    Column("p_require_attestation", Float),
    Column("p_deny", Float),
    Column("confidence", Float),
    Column("coverage", Float),
    Column("prompt_tokens", Integer),
    Column("latency_ms", Float, nullable=False),
    Column("started", Boolean, nullable=False),
    Column("cached", Boolean, nullable=False),
    Column("agrees", Boolean),  # with the legacy engine's raw answer; null when either has none
    Column("commitment", Text, nullable=False),
    # Whether it is evidence: not a repeated question, nor one of an actor who asks too much. Null: before 0004.
    Column("counted", Boolean),
)

# What a rollout's candidate said of the same decisions, beside the active version or in its place.
candidate_advisories = advisories.to_metadata(metadata, name="candidate_advisories")

# Erasable like the situation, whose words it quotes.
reasonings = _table(
    "reasonings",
    Column("decision_id", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("body", Text, nullable=False),  # JSON {text, attributions, generated}
    Column("commitment", Text, nullable=False),  # hash of salt and body
)

reviews = _table(
    "reviews",
    Column("id", Text, primary_key=True),
    Column("decision_id", Text, nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    Column("rollout", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("kind", Text, nullable=False),  # binding | drawn | report | picked
    Column("status", Text, nullable=False),  # open | judged | expired | closed
    Column("mode", Text, nullable=False),  # blind | assisted
    Column("inclusion_probability", Float),  # null: not drawn, never estimates a rate
    Column("priority", Integer, nullable=False),  # higher is judged first
    Column("model_decision", Text),
    Column("claimed_by", Text),
    Column("claim_expires_us", BigInteger),
    Column("claimed_us", BigInteger),  # when its holder took it up; a claim may be renewed
    Column("due_us", BigInteger, nullable=False),  # binding: expires to deny; drawn: closes unjudged
    Column("judged_us", BigInteger),
    Column("verdict", Text),  # the verdict in force
    Column("second_status", Text),  # open | judged | closed, where a second person judges it blind
    Column("second_verdict", Text),
    Column("third_status", Text),  # open | judged | closed, where the first two differ
    Index("reviews_queue", "status", "priority", "id"),
    Index("reviews_second", "second_status", "priority", "id"),
    Index("reviews_third", "third_status", "priority", "id"),
    Index("reviews_held", "claimed_by"),
    Index("reviews_of_rollout", "rollout", "status", "priority", "id"),
    Index("reviews_of_epoch", "rollout", "epoch", "decision_id"),
)

verdicts = _table(
    "verdicts",
    Column("id", Text, primary_key=True),
    Column("review_id", Text, nullable=False, index=True),
    Column("decision_id", Text, nullable=False, index=True),
    Column("created_us", BigInteger, nullable=False),
    Column("rollout", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("judge", Text, nullable=False),  # key id
    Column("source", Text, nullable=False),  # review | second | third | report | undo
    Column("decision", Text),  # null on undo
    Column("category", Text),
    Column("notes", Text),
    Column("llm_decision", Text),
    Column("matches", Boolean),
    Column("supersedes", Text),  # an earlier verdict's id
    Column("commitment", Text, nullable=False),
    # When its judge had taken it up; null where they had not claimed it, and before 0004.
    Column("claimed_us", BigInteger),
    Index("verdicts_by_judge", "judge", "id"),
)

rollouts = _table(
    "rollouts",
    Column("name", Text, primary_key=True),
    Column("phase", Text, nullable=False),
    Column("exposure", Float, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("epoch_started_us", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("candidate", Text),
    Column("candidate_mode", Text),  # both | split
    Column("candidate_share", Float),  # of the actors, where they are split
    Column("candidate_since_us", BigInteger),
    Column("previous", Text),
    Column("held", Boolean, nullable=False),
    Column("hold_reason", Text),
    Column("rolled_back", Boolean, nullable=False),
    Column("investigation_id", Text),  # the latest one
    Column("baseline", Text),  # JSON: the model's answers and the pairs of its last shadow epoch, by label
    Column("ramp", Text),  # JSON: the automatic steps of exposure that a person approved
    Column("settings_hash", Text, nullable=False),  # of what starts a new epoch when it changes
)

investigations = _table(
    "investigations",
    Column("id", Text, primary_key=True),
    Column("rollout", Text, nullable=False, index=True),
    Column("version", Text, nullable=False),
    Column("opened_us", BigInteger, nullable=False),
    Column("transition_id", Text, nullable=False),
    Column("cause", Text),  # model | prompt | integration | policy | other
    Column("fix", Text),
    Column("closed_us", BigInteger),
    Column("closed_by", Text),
)

# What a version consists of, for ever: of the rows of one version the newest counts.
versions = _table(
    "versions",
    Column("id", Text, primary_key=True),
    Column("version", Text, nullable=False, index=True),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),  # key id, or "automation"
    Column("document", Text, nullable=False),  # JSON of its declaration
    Column("sha256", Text, nullable=False),  # of the document
    Column("commitment", Text, nullable=False),
)

transitions = _table(
    "transitions",
    Column("id", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("rollout", Text, nullable=False),  # "*" for the kill switch
    Column("kind", Text, nullable=False),
    Column("from_state", Text, nullable=False),  # JSON
    Column("to_state", Text, nullable=False),  # JSON
    Column("actor", Text, nullable=False),  # key id, or "automation"
    Column("automatic", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text),  # JSON: what it rested on
    Column("revision", Integer, nullable=False),
    Column("commitment", Text, nullable=False),
    Index("transitions_by_rollout", "rollout", "id"),
)

# One row, id 1: what holds for every rollout.
plane = _table(
    "plane",
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("kill_switch", Boolean, nullable=False),
    Column("kill_reason", Text),
    Column("revision", Integer, nullable=False),  # grows with every change that a snapshot must see
    Column("guard_passes", BigInteger, nullable=False),  # complete guardrail passes so far
    Column("guard_pass_us", BigInteger),
    Column("clock_jump_us", BigInteger),  # when the clock last jumped by more than 60 s
    Column("chosen_version", Text),  # what the environment last asked every rollout to run on
    Column("actor_secret", LargeBinary, nullable=False),  # HMAC key of the sticky actor share
)

evidence_counters = _table(
    "evidence_counters",
    Column("instance", Text, primary_key=True),
    Column("rollout", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("minute", Integer, primary_key=True),  # minutes since the epoch; compacted to hours and days
    Column("metric", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Index("evidence_by_epoch", "rollout", "epoch", "metric", "minute"),
)

# The same counts without their minutes: what a look at all of an epoch reads.
evidence_totals = _table(
    "evidence_totals",
    Column("rollout", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
)

# Which situations have been evidence in a window of time: each is once. Gone when the window is over.
observed_situations = _table(
    "observed_situations",
    Column("rollout", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("time_window", Integer, primary_key=True),  # number of the window since 1970
    Column("situation", LargeBinary, primary_key=True),  # keyed hash of its canonical form
)

# How many of them came from whom.
observed_by = _table(
    "observed_by",
    Column("rollout", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column(
        "time_window", Integer, primary_key=True
    ),  # -1: the whole epoch, of which only the first actors are kept
    Column("who", Text, primary_key=True),  # all | actor:<keyed hash> | key:<id> | keys: how many of them
    Column("n", BigInteger, nullable=False),
)

guardrail_streams = _table(
    "guardrail_streams",
    Column("rollout", Text, primary_key=True),
    Column("guardrail", Text, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("state", Text, nullable=False),  # JSON of domain.stream.StreamState
    Column("updated_us", BigInteger, nullable=False),
    Column("assessment", Text, nullable=False),  # JSON: the last one, as shown
    Column("trail", Text),  # JSON [[seconds since 1970, e-value, rate], …]: at most 64 points of this epoch
)

api_keys = _table(
    "api_keys",
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_sha256", Text, nullable=False, unique=True),
    Column("roles", Text, nullable=False),  # space-separated
    Column("actors", Text, nullable=False),  # JSON list: actor ids that are this person's own
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
)

# People who sign in to the console; their ids stand where a key's stand: in verdicts, transitions, approvals.
users = _table(
    "users",
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("password_hash", Text),  # argon2id; null: signs in by a link or by OIDC alone
    Column("subject", Text, unique=True),  # "issuer subject" of an OpenID provider
    Column("roles", Text, nullable=False),  # space-separated
    Column("actors", Text, nullable=False),  # JSON list: actor ids that are this person's own
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("disabled_us", BigInteger),
    Column("failures", Integer, nullable=False),  # wrong passwords in a row
    Column("locked_until_us", BigInteger),
)

# Who is signed in; the browser holds the token, this its hash. Rows go when they end.
sessions = _table(
    "sessions",
    Column("token_sha256", Text, primary_key=True),
    Column("principal_id", Text, nullable=False, index=True),  # of a user, or of an API key
    Column("created_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),  # whatever is done until then
)

# Each lets one person in, once.
sign_in_links = _table(
    "sign_in_links",
    Column("token_sha256", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("used_us", BigInteger),
)

# What a reviewer did with a review beside judging it.
review_marks = _table(
    "review_marks",
    Column("review_id", Text, primary_key=True),
    Column("judge", Text, primary_key=True),  # id of a key or user
    Column(
        "kind", Text, primary_key=True
    ),  # skip | flag | reveal: when the model's answer was shown after a blind verdict
    Column("created_us", BigInteger, nullable=False),
    Column("note", Text),
    Index("review_marks_by_kind", "kind", "review_id"),
)

policy_documents = _table(
    "policy_documents",
    Column("id", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("body", Text, nullable=False),  # JSON {rollouts, legacy}: file texts
    Column("status", Text, nullable=False),  # proposed | applied | superseded
    Column("proposed_by", Text, nullable=False),
    Column("proposed_us", BigInteger, nullable=False),
    Column("applied_by", Text),
    Column("applied_us", BigInteger),
)

idempotency = _table(
    "idempotency",
    Column("key_id", Text, primary_key=True),
    Column("token", Text, primary_key=True),
    Column("decision_id", Text, primary_key=True),  # the latest counts
    Column("body_sha256", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

leases = _table(
    "leases",
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("fencing_token", BigInteger, nullable=False),
)

job_runs = _table(
    "job_runs",
    Column("job", Text, primary_key=True),
    Column("scheduled_us", BigInteger, primary_key=True),
    Column("owner", Text, nullable=False),
)

# One row per commit batch of an instance.
chain = _table(
    "chain",
    Column("instance", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("entries", Text, nullable=False),  # JSON [[table, id, commitment], …] in commit order
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

validations = _table(
    "validations",
    Column("id", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("model_sha256", Text),
    Column("suite_sha256", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("pass_rate", Float, nullable=False),
    Column("wrong_allows", Integer, nullable=False),
    Column("report", Text, nullable=False),  # JSON
    Column("by_key", Text, nullable=False),
    Column("commitment", Text, nullable=False),
    Index("validations_by_version", "version", "id"),
)

# One person's word that another may promote. Void once the evidence says otherwise.
approvals = _table(
    "approvals",
    Column("id", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("rollout", Text, nullable=False),
    Column("to_phase", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("gate", Text, nullable=False),  # JSON: what the approver saw
    Column("void_us", BigInteger),
    Column("void_reason", Text),
    Index("approvals_by_rollout", "rollout", "epoch"),
)

# When promotions rest, or, where `kind` is allow, when alone they may happen. Deny wins.
freezes = _table(
    "freezes",
    Column("id", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("kind", Text, nullable=False),  # deny | allow
    Column("rollout", Text, nullable=False),  # "*" for every one
    Column("starts_us", BigInteger, nullable=False),
    Column("ends_us", BigInteger, nullable=False),
    Column("weekly", Boolean, nullable=False),
    Column("zone", Text, nullable=False),  # IANA name: a weekly one keeps its local hours
    Column("reason", Text, nullable=False),
    Column("ended_us", BigInteger),
    Column("ended_by", Text),
)

reports = _table(
    "reports",
    Column("id", Text, primary_key=True),
    Column("period", Text, nullable=False),  # daily | weekly | monthly
    Column("starts_us", BigInteger, nullable=False),
    Column("ends_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("document", Text, nullable=False),  # JSON
    Index("reports_by_period", "period", "starts_us"),
)

# How content reviewers are with the model's help, 1 to 5, as they said when asked.
satisfaction = _table(
    "satisfaction",
    Column("id", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("score", Integer, nullable=False),
    Column("comment", Text),
)

webhooks = _table(
    "webhooks",
    Column("id", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),  # signs what is sent: it must be known, not only its hash
    Column("kinds", Text, nullable=False),  # space-separated; empty for all
    Column("ended_us", BigInteger),
)

# One notice to one webhook: what waits, and the log of what was delivered.
deliveries = _table(
    "deliveries",
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("status", Text, nullable=False),  # waiting | delivered | failed
    Column("attempts", Integer, nullable=False),
    Column("due_us", BigInteger, nullable=False),
    Column("response", Integer),  # the last HTTP status
    Column("error", Text),
    Column("settled_us", BigInteger),
    Index("deliveries_due", "status", "due_us"),
)

# Up to where retention has emptied an instance's chain: what is missing there was removed by rule.
retentions = _table(
    "retentions",
    Column("id", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("instance", Text, nullable=False),
    Column("through_seq", BigInteger, nullable=False),
    Column("removed", BigInteger, nullable=False),  # rows
    Column("commitment", Text, nullable=False),
)

# One row, id 1: open only inside a transaction in which retention deletes.
retention_gate = _table(
    "retention_gate",
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("is_open", Boolean, nullable=False),
)

APPEND_ONLY = (
    *(decisions, advisories, candidate_advisories, verdicts, versions),
    *(transitions, validations, retentions, chain),
)
ERASABLE = (situations, reasonings)
RETAINED = (decisions, advisories, candidate_advisories)  # append-only, but retention deletes what is old
REPLACED = (guardrail_streams,)  # a newer row takes the place of an older one with the same key
