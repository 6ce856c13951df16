import shutil
from pathlib import Path

import pytest

from app.engines.model.head import Basis, basis
from app.engines.model.version import ModelVersion, choose_version, load_versions

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """The shipped policy files, to be added to."""
    return Path(shutil.copytree(POLICIES, tmp_path / "policies", ignore=shutil.ignore_patterns("*.gguf")))


@pytest.fixture
def parent(policies: Path) -> ModelVersion:
    return choose_version(load_versions(policies))


@pytest.fixture
def rests_on(parent: ModelVersion) -> Basis:
    return basis(parent, model_sha256="1" * 64, adapter_sha256="2" * 64)
