"""Output folders: each belongs to one resolved config, and says by itself whether it is complete."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from a2r_train.errors import InputError
from a2r_train.paths import shards
from a2r_train.records import write_text

PACKAGES = (
    "a2r-train",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "math-verify",
    "vllm",
    "deepspeed",
    "reasoning-gym",
)
CONFIG, DONE, INPUTS = "config.yaml", "done.json", "inputs.json"

_locks: dict[Path, FileLock] = {}  # the system lets go of them when the process ends, however it ends


def prepare(
    folder: str | Path,
    config: Mapping[str, Any],
    ignore: tuple[str, ...] = (),
    lock: str = ".lock",
    may_change: bool = False,
    inputs: Sequence[str] = (),
) -> bool:
    """Open an output folder for a config; True if a finished run of that config is there already.

    Keys in `ignore`, and `output_dir`, may differ between a run and its continuation. A folder that holds
    config.yaml alone may become any run's. `lock` names the file that keeps a second process out until
    `finish` or the end of this one; "" for none. With `may_change` a run of another config goes on with this
    one. `inputs` are keys of files, comma-separated, whose content belongs to the run. Raises InputError for
    a folder of another run, one that another process is writing, and one that cannot be written.
    """
    folder, resolved = Path(folder), _resolved(config)
    path = folder / CONFIG
    started = folder.is_dir() and any(p != path and not p.name.startswith(".") for p in folder.iterdir())
    change = _change(folder, path, resolved, ignore) if started else ""
    if change and not may_change:
        raise InputError(
            f"{folder}: belongs to another run ({change}); name another output folder, or remove this one"
        )
    digests, before = _digests([str(config[key]) for key in inputs if config.get(key)]), _digests_of(folder)
    changed = sorted(file for file in digests.keys() & before.keys() if digests[file] != before[file])
    if changed and not may_change:
        raise InputError(
            f"{folder}: {changed[0]} has changed since this run; name "
            "another output folder, or remove this one"
        )
    done = started and not change and not changed and (folder / DONE).exists()
    try:
        if lock and not done:
            _lock(folder, lock)
        if change or changed:
            (folder / DONE).unlink(missing_ok=True)
        if not started or change:
            write_config(folder, config)
        if not started:
            write_text(folder / "versions.json", json.dumps(versions(), indent=2) + "\n")
        if inputs and not done and digests != before:
            write_text(folder / INPUTS, json.dumps(digests, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; name an output folder that can be written") from None
    return done


def write_config(folder: str | Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml: what the folder holds was made with this config."""
    write_text(Path(folder) / CONFIG, yaml.safe_dump(_resolved(config), sort_keys=False, allow_unicode=True))


def _resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config belongs to the run, as it is read again."""
    kept = {key: value for key, value in config.items() if key not in ("dry_run", "hub_token")}
    return dict(json.loads(json.dumps(kept, default=str)))


def _digests(values: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of each file that the values name; what is on the hub has none."""
    named = {path for value in values for path in (value, *map(str.strip, value.split(",")))}
    paths = sorted({file for path in named if path for file in shards(path) if Path(file).is_file()})
    found = {}
    for path in paths:
        with open(path, "rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _digests_of(folder: Path) -> dict[str, str]:
    """What the files were when the run of this folder began."""
    return dict(json.loads((folder / INPUTS).read_text())) if (folder / INPUTS).exists() else {}


def _change(folder: Path, path: Path, resolved: Mapping[str, Any], ignore: tuple[str, ...]) -> str:
    """The first key that differs from the folder's config, with both values, or "".

    One that has come since may be empty.
    """
    if not path.exists():
        raise InputError(
            f"{folder}: holds files of something else (no config.yaml); name another output folder"
        )
    found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for key in sorted({*found, *resolved} - {*ignore, "output_dir"}):
        if found.get(key) != resolved.get(key) and (key in found or resolved[key]):
            return f"{key}: {found.get(key)!r} there, {resolved.get(key)!r} here"
    return ""


def _lock(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / name
    try:
        _locks.setdefault(path, FileLock(path, thread_local=False)).acquire(timeout=0)
    except Timeout:
        del _locks[path]
        raise InputError(
            f"{folder}: another process is writing here; wait for it, or name another output folder"
        ) from None


def finish(folder: str | Path, summary: Mapping[str, Any] | None = None) -> None:
    """Mark a folder as complete; `summary` is what a later reader may want to know first."""
    for part in Path(folder).rglob(".*.part"):  # of runs that were killed while writing
        if not _writes(int(part.name.split(".")[-2])):
            part.unlink(missing_ok=True)
    share(folder)
    write_text(Path(folder) / DONE, json.dumps(dict(summary or {}), indent=2) + "\n")
    _unlock(folder)


def abandon(folder: str | Path, work: Sequence[str] = (), files: Sequence[str] = ()) -> None:
    """Take back what `prepare` and a refused run have put into a folder: folders of work, and files."""
    folder = Path(folder)
    for name in work:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (CONFIG, "versions.json", INPUTS, *files):
        (folder / name).unlink(missing_ok=True)
    _unlock(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _unlock(folder: str | Path) -> None:
    """Remove the locks, those of other shards too: a folder that is complete, or gone, needs none."""
    for path in Path(folder).resolve().glob(".lock*"):
        path.unlink(missing_ok=True)
        if path in _locks:
            _locks.pop(path).release(force=True)


def _writes(process: int) -> bool:
    """Whether the process of a half-written file is still there: another shard that ends at the same time."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return process != os.getpid()


def share(folder: str | Path) -> None:
    """Give weights the mode that the user's umask says; safetensors lets nobody but their owner read them."""
    os.umask(umask := os.umask(0o077))
    for path in Path(folder).rglob("*.safetensors"):
        path.chmod(0o666 & ~umask)


def versions() -> dict[str, str]:
    """Python and the packages that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
