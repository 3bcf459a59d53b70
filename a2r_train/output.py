"""Output folders: each belongs to one resolved config, and says by itself whether it is complete."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from a2r_train.errors import InputError, RunError
from a2r_train.records import write_text

PACKAGES = ("a2r-train", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "math-verify", "vllm", "deepspeed")
CONFIG, DONE, INPUTS = "config.yaml", "done.json", "inputs.json"
KEPT = "what is complete is kept, and the same command goes on from there"
ENDED_BY = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}  # and then with 128 more than the signal as exit status

# What Python, torch and safetensors raise where a file cannot be written to its end; the last two say so in words alone.
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
_NO_ROOM = ("No space left", "File too large", "quota exceeded", "PytorchStreamWriter failed writing", "unexpected pos")
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

    Keys in `ignore`, and `output_dir`, may differ between a run and its continuation. A folder that holds config.yaml alone may
    become any run's. `lock` names the file that keeps a second process out until `finish` or the end of this one; "" for none.
    With `may_change` a run of another config goes on with this one. `inputs` are keys of files, comma-separated, whose content
    belongs to the run. Raises InputError for a folder of another run, one that another process is writing, and one that
    cannot be written.
    """
    folder, resolved = Path(folder), _resolved(config)
    path = folder / CONFIG
    started = folder.is_dir() and any(p != path and not p.name.startswith(".") for p in folder.iterdir())
    change = _change(folder, path, resolved, ignore) if started else ""
    if change and not may_change:
        raise InputError(f"{folder}: belongs to another run ({change}); name another output folder, or remove this one")
    digests, before = _digests([str(config[key]) for key in inputs if config.get(key)]), _digests_of(folder)
    changed = sorted(file for file in digests.keys() & before.keys() if digests[file] != before[file])
    if changed and not may_change:
        raise InputError(f"{folder}: {changed[0]} has changed since this run; name another output folder, or remove this one")
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
    paths = sorted({path for value in values for path in (value, *map(str.strip, value.split(","))) if Path(path).is_file()})
    found = {}
    for path in paths:
        with open(path, "rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _digests_of(folder: Path) -> dict[str, str]:
    """What the files were when the run of this folder began."""
    return dict(json.loads((folder / INPUTS).read_text())) if (folder / INPUTS).exists() else {}


def _change(folder: Path, path: Path, resolved: Mapping[str, Any], ignore: tuple[str, ...]) -> str:
    """The first key that differs from the folder's config, with both values, or "". One that has come since may be empty."""
    if not path.exists():
        raise InputError(f"{folder}: holds files of something else (no config.yaml); name another output folder")
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
        raise InputError(f"{folder}: another process is writing here; wait for it, or name another output folder") from None


def finish(folder: str | Path, summary: Mapping[str, Any] | None = None) -> None:
    """Mark a folder as complete; `summary` is what a later reader may want to know first."""
    for part in Path(folder).rglob(".*.part"):  # of runs that were killed while writing
        if not _writes(int(part.name.split(".")[-2])):
            part.unlink(missing_ok=True)
    share(folder)
    write_text(Path(folder) / DONE, json.dumps(dict(summary or {}), indent=2) + "\n")
    for path in Path(folder).resolve().glob(".lock*"):  # those of other shards too: a complete folder needs none
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


def run(stage: Callable[[], None]) -> int:
    """Run a stage; returns its exit status, with one line on stderr where it is not 0.

    That is 2 if the user's input is wrong, and 1 if the disk is full or a run went wrong. SIGTERM ends it with status 143,
    Ctrl-C with 130, and a second one of the same kind at once.
    """
    try:
        with _ending_at_signals():
            stage()
    except InputError as error:
        return _say(error, 2)
    except RunError as error:
        return _say(error, 1)
    except WRITE_ERRORS as error:
        if not (line := no_room(error)):
            raise
        return _say(line, 1)
    return 0


def _say(line: object, status: int) -> int:
    sys.stderr.write(f"error: {line}\n")
    return status


def listened_to() -> list[signal.Signals]:
    """Those that nobody told this process to ignore, as a shell does with Ctrl-C for what it starts with `&`."""
    return [number for number in ENDED_BY if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While this is open, the handler gets SIGTERM and Ctrl-C; and on, if it is left by SystemExit."""
    before, ending = {number: signal.signal(number, handler) for number in listened_to()}, False
    try:
        yield
    except SystemExit:  # a second signal is not to cut short what the process still has to tidy up
        ending = True
        raise
    finally:
        for number, earlier in before.items() if not ending else ():
            signal.signal(number, earlier)


@contextmanager
def _ending_at_signals() -> Iterator[None]:
    """While this is open, SIGTERM and Ctrl-C end the process with status and one line, and a forked child of it at once."""
    own, ending, said, hook = os.getpid(), 0, False, sys.unraisablehook

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal ending, said
        if os.getpid() != own or number == ending:
            os._exit(128 + number)
        if ending:  # `a2r run` passes a Ctrl-C on as SIGTERM, which the terminal has sent already
            return
        ending = number
        if not said:
            with suppress(OSError):  # its reader may be gone, as `tee` is at Ctrl-C
                sys.stderr.write(f"stopped by {ENDED_BY[signal.Signals(number)]}; {KEPT}\n")
        said = True
        raise SystemExit(128 + number)

    def send_again(lost: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a destructor or at the end of an import, where a signal may well arrive."""
        nonlocal ending
        if ending and isinstance(lost.exc_value, SystemExit):
            threading.Timer(0.02, os.kill, (own, ending)).start()
            ending = 0
        else:
            hook(lost)

    sys.unraisablehook = send_again
    try:
        with handling_signals(end):
            yield
            if ending:  # some library has a bare except
                raise SystemExit(128 + ending)
    finally:
        sys.unraisablehook = send_again if ending else hook


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
