import hashlib
from pathlib import Path

import pytest

from app.domain.decision import Decision
from app.engines.model.prompt import load_prompt, write
from app.errors import PolicyError
from tests.engines.model.conftest import POLICIES, render, situation

TO_THE_LETTER = """\
<|im_start|>user
Decide: allow, require_attestation or deny.
action: update_config
role: maintainer
resource: vault:signing-keys
trust: competence 81, reliability 92, integrity 97, mean 90, lowest 81
team_context: platform team
recent_history: MFA was bypassed at the 6th attempt
details: rotate the keys
identity_metrics: coherence 0.65, trend declining
timestamp: 2026-01-01T00:00:00Z
ticket: OPS-7
rules say: require_attestation<|im_end|>
<|im_start|>assistant
Decision:"""


def test_the_embedded_prompt_is_what_the_adapter_was_trained_on() -> None:
    asked = situation(
        action_type="update_config",
        actor_role="maintainer",
        resource="vault:signing-keys",
        team_context="platform team",
        recent_history="MFA was bypassed at the 6th attempt",
        details="rotate the keys",
        identity_metrics={"coherence": 0.65, "trend": "declining"},
        timestamp="2026-01-01T00:00:00Z",
        ticket="OPS-7",
    )
    prompt = load_prompt(POLICIES / "prompts" / "smollm2-policy.md")
    assert render(prompt, write(asked, legacy=Decision.REQUIRE_ATTESTATION)) == TO_THE_LETTER


@pytest.mark.parametrize("path", sorted((POLICIES / "prompts").glob("*.md")), ids=lambda path: path.name)
def test_nothing_stands_after_the_question(path: Path) -> None:
    assert load_prompt(path).suffix.endswith("Decision:")


def test_a_prompt_is_known_by_the_hash_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "prompt.md"
    path.write_bytes(b"a {{ situation }} Decision:\n")
    assert load_prompt(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        b"no place",
        b"{{ situation }} {{ situation }}",
        b"{{ situation }} {{ other }}",
        b"{% x %}{{ situation }}",
        b"\xff",
    ],
    ids=["no place", "two places", "another variable", "a statement", "not UTF-8"],
)
def test_a_malformed_template_is_a_policy_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prompt.md"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=r"prompt\.md"):
        load_prompt(path)


def test_a_missing_template_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load_prompt(tmp_path / "none.md")
