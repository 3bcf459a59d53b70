"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOST = re.sub(r"[^\w-]", "-", platform.node()) or "host"
ABANDONED_S = 86_400  # a half-written file of another machine is as old as this before it is removed
_PART = re.compile(r"\..+\.([\w-]+)\.(\d+)\.part")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """The path of a new file, which takes the place of `path` at the end of the context. If the context
    fails, the new file is removed.
    """
    path = Path(path)
    part = part_of(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Where this process writes the file; each process of each machine has a place of its own."""
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")


def remove_abandoned(folder: Path) -> None:
    """Remove half-written files of processes that were killed; another shard may be writing others."""
    for part in folder.rglob(".*.part"):
        if (named := _PART.fullmatch(part.name)) and _is_abandoned(part, named[1], int(named[2])):
            part.unlink(missing_ok=True)


def _is_abandoned(part: Path, host: str, process: int) -> bool:
    if host != HOST:
        return part.exists() and time.time() - part.stat().st_mtime > ABANDONED_S
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # of another user
        return False
    return process == os.getpid()
