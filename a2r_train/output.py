"""Output folders: each belongs to one resolved config, and says by itself whether it is complete."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from a2r_train.errors import InputError
from a2r_train.records import write_text

PACKAGES = ("a2r-train", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "math-verify", "vllm", "deepspeed")
DONE = "done.json"

# Messages of torch and safetensors, which do not raise OSError where a file cannot be written to its end.
_NO_ROOM = ("No space left", "File too large", "quota exceeded", "PytorchStreamWriter failed writing", "unexpected pos")
_locks: dict[Path, FileLock] = {}  # the system lets go of them when the process ends, however it ends


def prepare(
    folder: str | Path, config: Mapping[str, Any], ignore: tuple[str, ...] = (), dry_run: bool = False, lock: str = ".lock"
) -> bool:
    """Open an output folder for a config; True if a finished run of that config is there already.

    Keys in `ignore`, and `output_dir`, may differ between a run and its continuation. A dry run writes config.yaml alone, and
    a folder that holds no more than that may become any run's. `lock` names the file that keeps a second process out until
    `finish` or the end of this one; "" for none. Raises InputError for a folder of another run, one that another process is
    writing, and one that cannot be written.
    """
    kept = {key: value for key, value in config.items() if key not in ("dry_run", "hub_token")}
    folder, resolved = Path(folder), json.loads(json.dumps(kept, default=str))
    path = folder / "config.yaml"
    started = folder.is_dir() and any(p != path and not p.name.startswith(".") for p in folder.iterdir())
    if started:
        _check_owner(folder, path, resolved, ignore)
    done = started and (folder / DONE).exists()
    try:
        if lock and not dry_run and not done:
            _lock(folder, lock)
        if not started:
            write_text(path, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        if not started and not dry_run:
            write_text(folder / "versions.json", json.dumps(versions(), indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; name an output folder that can be written") from None
    return done


def _check_owner(folder: Path, path: Path, resolved: Mapping[str, Any], ignore: tuple[str, ...]) -> None:
    if not path.exists():
        raise InputError(f"{folder}: holds files of something else (no config.yaml); name another output folder")
    found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for key in sorted({*found, *resolved} - {*ignore, "output_dir"}):
        if found.get(key) != resolved.get(key):
            raise InputError(
                f"{folder}: belongs to another run ({key}: {found.get(key)!r} there, {resolved.get(key)!r} here); "
                "name another output folder, or remove this one"
            )


def _lock(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / name
    try:
        _locks.setdefault(path, FileLock(path, thread_local=False)).acquire(timeout=0)
    except Timeout:
        del _locks[path]
        raise InputError(f"{folder}: another process is writing here; wait for it, or name another output folder") from None


def finish(folder: str | Path, summary: Mapping[str, Any] | None = None) -> None:
    """Mark a folder as complete; `summary` is what a later reader may want to know first."""
    write_text(Path(folder) / DONE, json.dumps(dict(summary or {}), indent=2) + "\n")
    for path in [path for path in _locks if path.parent == Path(folder).resolve()]:
        path.unlink(missing_ok=True)  # while it is still held: a complete folder needs no lock
        _locks.pop(path).release(force=True)


def no_room(error: BaseException) -> str:
    """One line for an error that says that the disk, or a quota, is full; "" for any other error."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or any(message in str(error) for message in _NO_ROOM):
        first = str(error).strip().splitlines()[0]
        return f"no room left on the disk ({first[:160]}); make room and start the same command again"
    return ""


def versions() -> dict[str, str]:
    """Python and the packages that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
