"""How does what was learned become the files of a new version?"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

from app.engines.model.head import Head
from app.engines.model.version import ModelVersion, load_versions
from app.errors import Conflict
from app.policy.files import parse_yaml, read_text

_CHILD = re.compile(r"-(?:head|lora)-\d+$")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version's files go, all beside each other. Nothing that is there is ever overwritten."""

    policies_dir: Path
    child: str

    def file(self, suffix: str) -> Path:
        return self.policies_dir / "versions" / f"{self.child}.{suffix}"

    def name(self, suffix: str) -> str:
        """As a version file refers to it."""
        return f"versions/{self.child}.{suffix}"


def next_place(policies_dir: Path, parent: ModelVersion, method: str) -> Place:
    """`<parent>-<method>-<n>` with the first free number; a learned parent's own ending is replaced."""
    stem = f"{_CHILD.sub('', parent.id)}-{method}"
    taken = set(load_versions(policies_dir))
    number = 1
    while True:
        place = Place(policies_dir, f"{stem}-{number}")
        if place.child not in taken and not any(place.file("yaml").parent.glob(f"{place.child}.*")):
            return place
        number += 1


def publish_head(place: Place, parent: ModelVersion, head: Head, report: Mapping[str, Any]) -> Path:
    """Write head, report and, last, the version that names them. Raises `Conflict`, `OSError`."""
    content = msgspec.json.format(msgspec.json.encode(head), indent=1)
    sha256 = write_new(place.file("head.json"), content)
    declared = _declared(parent)
    declared["head"] = {"file": place.name("head.json"), "sha256": sha256}
    declared["show_legacy"] = True
    declared.pop("calibration", None)  # the head has its own
    declared["decoding"].pop("shadow_batch", None)  # a head is read alone
    declared["limits"] = {**declared["limits"], "confidence_at_least": head.threshold}
    return _publish(place, parent, declared, report)


def publish_adapter(place: Place, parent: ModelVersion, adapter: bytes, report: Mapping[str, Any]) -> Path:
    """Write adapter, report and, last, the version that names them. Raises `Conflict`, `OSError`."""
    sha256 = write_new(place.file("gguf"), adapter)
    declared = _declared(parent)
    merge = {key: value for key, value in declared.get("adapter", {}).items() if key == "merge"}
    declared["adapter"] = {"file": place.name("gguf"), "sha256": sha256, "scale": 1.0, **merge}
    declared.pop("head", None)  # it was learned on other hidden states
    return _publish(place, parent, declared, report)


def write_new(path: Path, content: bytes) -> str:
    """Write a file that must not exist yet; returns its SHA-256. Raises `Conflict`, `OSError`."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise Conflict(
            "exists", f"{path} is there already, and learning overwrites nothing: move it away"
        ) from error
    return hashlib.sha256(content).hexdigest()


def _publish(place: Place, parent: ModelVersion, declared: dict[str, Any], report: Mapping[str, Any]) -> Path:
    write_new(place.file("report.json"), json.dumps(report, indent=1).encode() + b"\n")
    text = io.StringIO()
    text.write(f"# Learned from {parent.id}: what it is worth says {place.child}.report.json beside it.\n")
    YAML().dump({"id": place.child, "parent": parent.id, **declared}, text)
    write_new(place.file("yaml"), text.getvalue().encode())
    return place.file("yaml")


def _declared(parent: ModelVersion) -> dict[str, Any]:
    """What the parent's file says, as it says it."""
    path = Path(parent.origin)
    plain: dict[str, Any] = parse_yaml(read_text(path), str(path)).plain()
    return {key: value for key, value in plain.items() if key not in ("id", "parent")}
