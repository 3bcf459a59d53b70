"""Output folders: each belongs to one resolved config, and records whether it is complete."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from a2r_train.atomic import remove_abandoned
from a2r_train.errors import InputError
from a2r_train.models import weights_digest
from a2r_train.paths import may_name, shards
from a2r_train.records import write_text
from a2r_train.verifier_code import sources_of

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
MODEL = "model "  # in INPUTS, before the folder of a model
VERIFIER = "verifier "  # in INPUTS, before the name of a custom verifier, whose code is an input too
SETTLED = ("engine", "target_engine")  # a run with auto continues with what it was started with

_locks: dict[Path, FileLock] = {}  # the system releases them when the process ends, however it ends


def prepare(
    folder: str | Path,
    config: Mapping[str, Any],
    ignore: tuple[str, ...] = (),
    lock: str = ".lock",
    may_change: bool = False,
    inputs: Sequence[str] = (),
    fixed: Sequence[str] | None = None,
) -> bool:
    """Open an output folder for a config; True if a finished run of that config is already there.

    Keys in `ignore`, and `output_dir`, may differ between a run and its continuation. `fixed` lists the keys
    that may not, because the folder's content depends on them. None means all others, an empty tuple none.
    A folder that holds only config.yaml may become any run's. `lock` names the file that keeps a second
    process out until `finish` or the end of this one; "" for none. With `may_change`, a run of another config
    continues with this one. `inputs` are keys of files, comma-separated, or of folders of models, whose
    content belongs to the run, as does what `note` has recorded. Raises InputError for a folder of another
    run, one that another process is writing, and one that cannot be written.
    """
    folder = Path(folder)
    check(folder, config, ignore, may_change, inputs, fixed)
    started = _is_started(folder)
    changes = _changes(folder, _resolved(config), ignore) if started else {}
    before = digests_of(folder)
    digests = _digests(config, inputs, before)
    changed = _changed(digests, before, _sets(config, inputs))
    done = started and not changes and not changed and (folder / DONE).exists()
    try:
        if lock and not done:
            _lock(folder, lock)
        if changes or changed:
            (folder / DONE).unlink(missing_ok=True)
        if not started or changes:
            write_config(folder, config)
        if not started:
            write_text(folder / "versions.json", json.dumps(versions(), indent=2) + "\n")
        if inputs and not done and digests != before:
            write_text(folder / INPUTS, json.dumps(digests, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; name an output folder that can be written") from None
    return done


def check(
    folder: str | Path,
    config: Mapping[str, Any],
    ignore: tuple[str, ...] = (),
    may_change: bool = False,
    inputs: Sequence[str] = (),
    fixed: Sequence[str] | None = None,
) -> None:
    """Raise InputError for a folder of another run, as `prepare` does; nothing is written."""
    folder = Path(folder)
    changes = _changes(folder, _resolved(config), ignore) if _is_started(folder) else {}
    if not may_change:
        kept = inputs if fixed is None else [key for key in inputs if key in fixed]
        before = digests_of(folder)
        judged = fixed is None or bool(kept)  # the kept files hold verdicts, which depend on custom verifiers
        digests = _digests(config, kept, before if judged else {})
        _refuse(folder, changes, _changed(digests, before, _sets(config, kept)), fixed)


def is_done(
    folder: str | Path, config: Mapping[str, Any], ignore: tuple[str, ...], inputs: Sequence[str]
) -> bool:
    """Whether a finished run of this config is there; `prepare` reports what is wrong with the folder."""
    folder = Path(folder)
    if not (folder / DONE).exists() or not (folder / CONFIG).exists():
        return False
    return not changed_inputs(folder, config, inputs) and not _changes(folder, _resolved(config), ignore)


def note(folder: str | Path, verifiers: Iterable[str]) -> None:
    """Record the code of custom verifiers as input of the folder's run; others have none. What names them may
    be the data, so they are known only once it is read.
    """
    before = digests_of(Path(folder))
    digests = before | _code_digests(f"{VERIFIER}{name}" for name in verifiers)
    if digests != before:
        write_text(Path(folder) / INPUTS, json.dumps(digests, indent=2) + "\n")


def stamp(folder: str | Path) -> int:
    """When the folder was marked as complete; 0 if it is not."""
    path = Path(folder) / DONE
    return path.stat().st_mtime_ns if path.is_file() else 0


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in the folder of a training, the oldest first; a user's own copy of one, such as
    `checkpoint-40-good`, is not among them.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if path.is_dir()]
    named = [path for path in found if re.fullmatch("checkpoint-[0-9]+", path.name)]
    return sorted(named, key=lambda path: int(path.name.rpartition("-")[2]))


def holds_only(folder: str | Path, *names: str) -> bool:
    """Whether the folder holds, apart from hidden files, only what `prepare` writes and files of these names,
    which may be patterns.
    """
    known = (CONFIG, "versions.json", INPUTS, ".*", *names)
    paths = Path(folder).iterdir() if Path(folder).is_dir() else ()
    return all(any(fnmatch(path.name, name) for name in known) for path in paths)


def _is_started(folder: Path) -> bool:
    return folder.is_dir() and any(p.name != CONFIG and not p.name.startswith(".") for p in folder.iterdir())


def _refuse(folder: Path, changes: Mapping[str, str], changed: Mapping[str, str], fixed: Any) -> None:
    """Raise InputError for the folder of a run with other keys, or with inputs that have changed."""
    other = next((text for key, text in changes.items() if fixed is None or key in fixed), "")
    if other:
        raise InputError(
            f"{folder}: belongs to another run ({other}); name another output folder, or remove this one"
        )
    for what, how in changed.items():
        raise InputError(
            f"{folder}: {what} {how} since this run; name another output folder, or remove this one"
        )


def write_config(folder: str | Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml: what the folder holds was made with this config."""
    write_text(Path(folder) / CONFIG, yaml.safe_dump(_resolved(config), sort_keys=False, allow_unicode=True))


def _resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that belongs to the run, as it is read back."""
    kept = {key: value for key, value in config.items() if key not in ("dry_run", "hub_token")}
    return dict(json.loads(json.dumps(kept, default=str)))


def _sets(config: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """The sets that these keys name; a value with commas may be several, or one file."""
    values = [str(config[key]) for key in keys if config.get(key)]
    return sorted({path for value in values for path in (value, *map(str.strip, value.split(","))) if path})


def _digests(config: Mapping[str, Any], keys: Sequence[str], before: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of each file that these keys name, that of the weights in each folder of a model, and those
    of the verifiers noted before; what is on the hub has none.
    """
    sets = _sets(config, keys)
    named = [file for path in sets for file in shards(path) if not file.endswith(".gguf")]  # which is a model
    files = {file for file in named if Path(file).is_file()}
    models = {f"{MODEL}{path}": digest for path in sets if (digest := weights_digest(path))}
    code = _code_digests(what for what in before if what.startswith(VERIFIER))
    return {file: _digest(file) for file in sorted(files)} | models | code


def _code_digests(named: Iterable[str]) -> dict[str, str]:
    """The digests of the custom verifiers whose code is found, each by VERIFIER and its name."""
    files = {what: sources_of(what.removeprefix(VERIFIER)) for what in sorted({*named})}
    digests = {what: [_digest(file) for file in some] for what, some in files.items() if some}
    joined = {what: hashlib.sha256("".join(some).encode()).hexdigest() for what, some in digests.items()}
    return {what: some[0] if len(some) == 1 else joined[what] for what, some in digests.items()}


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed(digests: Mapping[str, str], before: Mapping[str, str], sets: Sequence[str]) -> dict[str, str]:
    """The inputs that are not what they were, and what happened to each: they have other content, or a set
    has more or fewer files. A set that is gone as a whole is no change: a finished run does not need it.
    """
    both = digests.keys() & before.keys()
    changed = dict.fromkeys((what for what in both if digests[what] != before[what]), "has changed")
    for path in sets:
        here = {file for file in shards(path) if file in digests}
        there = {file for file in before if file in here or may_name(path, file)}
        if here and there:
            changed |= dict.fromkeys(here - there, "has been added")
            changed |= dict.fromkeys(there - here, "has been removed")
    return dict(sorted(changed.items()))


def changed_inputs(folder: Path, config: Mapping[str, Any], inputs: Sequence[str]) -> dict[str, str]:
    """What has happened to each input of a folder's run since it began; only what has changed is there."""
    before = digests_of(folder)
    return _changed(_digests(config, inputs, before), before, _sets(config, inputs))


def digests_of(folder: Path) -> dict[str, str]:
    """The digests of the inputs when the run of this folder began, by file, model or verifier."""
    return dict(json.loads((folder / INPUTS).read_text())) if (folder / INPUTS).exists() else {}


def _changes(folder: Path, resolved: Mapping[str, Any], ignore: tuple[str, ...]) -> dict[str, str]:
    """The keys that differ from the folder's config, with both values in words.

    A key that the folder's config lacks may be empty, and `auto` is what the run was started with.
    """
    path = folder / CONFIG
    if not path.exists():
        raise InputError(
            f"{folder}: holds files of something else (no config.yaml); name another output folder"
        )
    found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    changes = {}
    for key in sorted({*found, *resolved} - {*ignore, "output_dir"}):
        there, here = found.get(key), resolved.get(key)
        is_auto = key in SETTLED and "auto" in (there, here)
        if there != here and (key in found or here) and not is_auto:
            changes[key] = f"{key}: {there!r} there, {here!r} here"
    return changes


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
    remove_abandoned(Path(folder))
    share(folder)
    write_text(Path(folder) / DONE, json.dumps(dict(summary or {}), indent=2) + "\n")
    _unlock(folder)


def abandon(folder: str | Path, work: Sequence[str] = (), files: Sequence[str] = ()) -> None:
    """Remove what `prepare` and a refused run have put into a folder: folders of work, and files."""
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


def share(folder: str | Path) -> None:
    """Give weights the mode that the user's umask says; safetensors lets nobody but their owner read them."""
    os.umask(umask := os.umask(0o077))
    for path in Path(folder).rglob("*.safetensors"):
        path.chmod(0o666 & ~umask)


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that matter."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
