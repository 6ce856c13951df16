"""By which name is the server of a data directory known in the database?"""

import os
import secrets
import socket
from pathlib import Path


def instance_name(data_dir: Path) -> str:
    """The name kept in the data directory, made at the first start.

    It names this server's hash chain and counters, so it outlives a change of port or host name. A data
    directory that is copied for a second server must be copied without the file `instance`.
    """
    path = data_dir / "instance"
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return name
