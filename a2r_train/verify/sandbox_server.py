"""Runs untrusted programs: started by sandbox.py as `python -s -P -S sandbox_server.py`, with only the
standard library.

It uses what Linux offers: its own namespaces (mounts, network, processes, IPC), a root with only the standard
library, another uid, and limits. Then it waits. For each request it forks a helper, which reads the request,
sets up a pid namespace and an empty /tmp, and forks the candidate into them. So the memory from which a
candidate is forked has never held another program, and no expected value is ever sent here.

A request or reply is its length in 4 bytes, big-endian, and JSON. Request: `program`, `calls` (each an
expression of a name and literals), `cpu_s`, `wall_s`. Reply: `ended` (`returned`, `too long`, `too much`,
`died`) and `values`, what the candidate wrote, which is never trusted.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import platform
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NoReturn

MEMORY_BYTES = 512 * 2**20  # of address space, for each process of a candidate
PROCESSES = 16  # and threads
FILE_BYTES = TMP_BYTES = 8 * 2**20
OPEN_FILES = 64
VALUE_BYTES = 256 * 2**10  # of all that a candidate returns
LOOK_S = 0.01  # how often the CPU time of a candidate is checked
NOBODY = 64_000  # first uid of candidates, if this process is root
PRELOADED = [
    "array",
    "bisect",
    "calendar",
    "cmath",
    "collections",
    "copy",
    "datetime",
    "decimal",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "statistics",
    "string",
    "struct",
    "textwrap",
    "typing",
]  # modules that programs import: a fork has them already

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = (
    1, 2, 4, 32, 4096, 8192, 16384, 1 << 18
)  # fmt: skip
KEPT_FLAGS = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}  # flags of statvfs to those of mount
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38

libc = ctypes.CDLL(None, use_errno=True)


# --- the walls ---------------------------------------------------------------------------------------------


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    words = [text.encode() or None for text in (source, target, kind)]
    _check(libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None))


def _bind(source: str, root: str) -> None:
    """Show a file or folder of the machine below the new root, read-only."""
    target = root + source
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    _mount(source, target, flags=MS_BIND)
    kept = sum(mount for stat, mount in KEPT_FLAGS.items() if os.statvfs(source).f_flag & stat)
    nodev = 0 if source.startswith("/dev/") else MS_NODEV
    _mount("", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | nodev | kept)


def _new_root() -> None:
    """A root with the standard library and the system's shared libraries, and nothing else."""
    root, library = "/proc", os.path.dirname(os.__file__)
    _mount("", "/", flags=MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", library):
        if os.path.islink(folder):
            os.makedirs(root + os.path.dirname(folder), exist_ok=True)
            os.symlink(os.readlink(folder), root + folder)
        elif os.path.isdir(folder) and not os.path.ismount(root + folder):
            _bind(folder, root)
    for packages in ("site-packages", "dist-packages"):
        if os.path.isdir(f"{root}{library}/{packages}"):
            _mount("tmpfs", f"{root}{library}/{packages}", "tmpfs", MS_RDONLY, "size=4k")
    for device in ("/dev/null", "/dev/urandom"):
        _bind(device, root)
    os.mkdir(f"{root}/tmp", 0o777)
    _mount("", root, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(root)
    _mount(".", "/", flags=MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def _own_user() -> None:
    """A user namespace in which an ordinary user may do all of this."""
    uid, gid = os.getuid(), os.getgid()
    _check(libc.unshare(NEWUSER))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _try(*steps: Callable[[], None]) -> bool:
    try:
        for step in steps:
            step()
    except OSError:
        return False
    return True


def _unshare(flags: int) -> Callable[[], None]:
    return partial(_unshared, flags)


def _unshared(flags: int) -> None:
    _check(libc.unshare(flags))


def raise_walls(is_root: bool) -> list[str]:
    """Raise all walls that this kernel allows, and return their names; `mounts` is for later steps."""
    mounts = (is_root and _try(_unshare(NEWNS))) or _try(_own_user, _unshare(NEWNS))
    wanted = (("network", NEWNET), ("processes", NEWPID), ("ipc", NEWIPC | NEWUTS))
    return ["mounts"] * mounts + [name for name, flags in wanted if _try(_unshare(flags))]


# --- the server --------------------------------------------------------------------------------------------


def main() -> None:
    """Raise the walls, report which ones stand, and serve until the end of the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # left to the parent, which may still have to save
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    is_root = os.getuid() == 0
    uid = NOBODY + os.getpid() % 1000 if is_root else 0
    for name in PRELOADED:
        importlib.import_module(name)
    walls = raise_walls(is_root)
    if "processes" in walls and (first := os.fork()):
        _, status = os.waitpid(first, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 255)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if {"mounts", "processes"} <= {*walls}:  # without "processes", children are found through /proc
        walls += ["files"] * _try(_new_root)
    walls += ["uid"] * is_root
    gc.collect()
    gc.freeze()
    _send(1, {"walls": walls})
    while select.select([0], [], [])[0] and _served(walls, uid):
        pass


def _served(walls: list[str], uid: int) -> bool:
    """Let a helper answer one request; False at the end of the input."""
    helper = os.fork()
    if not helper:
        try:
            _help(walls, uid)
        finally:
            os._exit(2)
    _, status = os.waitpid(helper, 0)
    if status and os.waitstatus_to_exitcode(status) == 1:
        return False
    if status:  # killed, such as when the machine is out of memory
        _send(1, {"ended": "died", "values": ""})
    return True


def _help(walls: list[str], uid: int) -> NoReturn:
    """The helper: one request, one candidate, one reply."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # without a pid namespace, orphans become its children
    request = _receive(0)
    if request is None:
        os._exit(1)
    requests, replies = os.open("/dev/null", os.O_RDONLY), os.dup(1)
    os.dup2(requests, 0)
    os.dup2(2, 1)
    if "processes" in walls:
        _try(_unshare(NEWPID))
    if "ipc" in walls:
        _try(_unshare(NEWIPC))
    folder = _empty_folder(walls, uid)
    results, written = os.pipe()
    candidate = os.fork()
    if not candidate:
        _become_candidate(request, written, uid, folder)
    os.close(written)
    ended, values = _watch(candidate, results, request["cpu_s"], request["wall_s"])
    _kill_all(candidate)
    if folder != "/tmp":
        shutil.rmtree(folder, ignore_errors=True)
    _send(replies, {"ended": ended, "values": values.decode(errors="replace")})
    os._exit(0)


def _empty_folder(walls: list[str], uid: int) -> str:
    """The only place where a candidate may write: its own /tmp, or a folder that is removed afterwards."""
    size = f"size={TMP_BYTES},nr_inodes=1024,mode=1777"
    tmp = partial(_mount, "tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, size)
    if "files" in walls and _try(_unshare(NEWNS), tmp):
        return "/tmp"
    folder = tempfile.mkdtemp()
    os.chown(folder, uid or -1, uid or -1)
    return folder


def _watch(candidate: int, results: int, cpu_s: float, wall_s: float) -> tuple[str, bytes]:
    """How the candidate ended, and what it wrote until it closed its pipe, ran out of time, or wrote too
    much.
    """
    ends, values, clock = (
        time.monotonic() + wall_s,
        b"",
        (~candidate << 3) | 2,
    )  # its CPU time, of all threads
    ready = select.poll()
    ready.register(results, select.POLLIN)
    while True:
        if ready.poll(LOOK_S * 1000):
            part = os.read(results, 65536)
            if not part:
                return "returned", values
            values += part
            if len(values) > VALUE_BYTES:
                return "too much", b""
        try:
            spent_s = time.clock_gettime(clock)
        except OSError:
            spent_s = 0.0  # it has ended; the rest of the pipe is still read
        if spent_s > cpu_s or time.monotonic() > ends:
            return "too long", b""


def _kill_all(candidate: int) -> None:
    """Killing the first process of a pid namespace kills all others; without one, they are searched for."""
    os.kill(candidate, signal.SIGKILL)
    os.waitpid(candidate, 0)
    while True:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        for child in _descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    """Pids of all descendants, from /proc; [] if there is no /proc."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, new = [pid], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found[1:]


def _send(to: int, content: dict[str, Any]) -> None:
    data = json.dumps(content).encode()
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(to, data) :]


def _receive(source: int) -> dict[str, Any] | None:
    """One request, and not a byte of the next; None at the end of the input."""
    head = _exactly(source, 4)
    body = _exactly(source, struct.unpack(">I", head)[0]) if head else None
    content: dict[str, Any] | None = json.loads(body) if body else None
    return content


def _exactly(source: int, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        part = os.read(source, size - len(data))
        if not part:
            return None
        data += part
    return data


# --- the candidate -----------------------------------------------------------------------------------------


def _become_candidate(request: dict[str, Any], written: int, uid: int, folder: str) -> NoReturn:
    """Drop all rights, run the program and its calls, and write what they return."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.dup2(written, 3)
        os.closerange(4, 4096)
        os.chdir(folder)
        _limit(request["cpu_s"])
        _give_up(uid)
        random.seed(0)  # so that the same program returns the same values each time
        _write(3, json.dumps(_results(request["program"], request["calls"])).encode())
    finally:
        os._exit(0)


def _write(to: int, data: bytes) -> None:
    while data:
        data = data[os.write(to, data) :]


def _limit(cpu_s: float) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, int(cpu_s) + 2),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, PROCESSES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _give_up(uid: int) -> None:
    """Drop the uid, capabilities and system calls that no such program needs."""
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capset(header, none)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after setting the uid, which clears it
    _filter_calls()


# ptrace, mount, umount2, pivot_root, chroot, setns, unshare, process_vm_readv and _writev, bpf,
# perf_event_open, userfaultfd, keyctl, add_key, request_key, three of io_uring, shmget, msgget, semget,
# personality, clone3 (whose flags no filter can read), move_mount, fsopen, open_tree.
REFUSED = {
    "x86_64": (
        101, 165, 166, 155, 161, 308, 272, 310, 311, 321, 298, 323, 250, 248, 249, 425, 426, 427, 29, 68, 64,
        135, 435, 429, 430, 428,
    ),
    "aarch64": (
        117, 40, 39, 41, 51, 268, 97, 270, 271, 280, 241, 282, 219, 217, 218, 425, 426, 427, 194, 186, 190,
        92, 435, 429, 430, 428,
    ),
}  # fmt: skip
CLONE = {"x86_64": 56, "aarch64": 220}  # refused if it asks for a user namespace
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OTHER_TABLE = 0x40000000  # x32, the second call table of x86_64
ENOSYS, ALLOW, KILL = 0x00050000 | 38, 0x7FFF0000, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, END = 0x20, 0x15, 0x35, 0x45, 0x06


def _filter_calls() -> None:
    """A seccomp filter: calls that extend a process's rights seem not to exist; other call tables kill."""
    machine = platform.machine()
    if machine not in REFUSED:
        return
    refused = REFUSED[machine]
    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, AUDIT[machine]), (END, 0, 0, KILL), (LOAD, 0, 0, 0)]
    last = len(lines) + len(refused) + 4  # ALLOW, with ENOSYS after it
    for test, number in ((AT_LEAST, OTHER_TABLE), *((EQUAL, number) for number in refused)):
        lines.append((test, last - len(lines), 0, number))
    lines += [(EQUAL, 0, 2, CLONE[machine]), (LOAD, 0, 0, 16), (ANY_BIT, 1, 0, NEWUSER)]
    lines += [(END, 0, 0, ALLOW), (END, 0, 0, ENOSYS)]
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer))
    libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(program), 0, 0)


def _results(program: str, calls: list[str]) -> list[Any]:
    """What each call returns, as plain data, up to the first failure; [] if the program itself fails."""
    found: list[Any] = []
    module = sys.modules["candidate"] = ModuleType("candidate")  # dataclasses look up their module
    names = vars(module)
    names["__builtins__"] = __builtins__
    try:
        exec(compile(program, "candidate", "exec"), names)
        for call in calls:
            found.append(plain(eval(call, names)))
    except BaseException:  # noqa: BLE001 (also SystemExit: what is missing in the list is wrong)
        return found
    return found


def plain(value: Any) -> Any:
    """Plain data as nested lists that begin with a tag; raises ValueError for anything else."""
    if value is None or isinstance(value, bool | str):
        return value if value is None or type(value) is bool else str.__str__(value)
    if isinstance(value, int):
        return ["int", hex(int.__int__(value))]
    if isinstance(value, float):
        return ["float", float.hex(value)]
    if isinstance(value, complex):
        return ["complex", float.hex(value.real), float.hex(value.imag)]
    if isinstance(value, bytes | bytearray):
        return ["bytes", bytes(value).hex()]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, *map(plain, kind.__iter__(value))]  # type: ignore[arg-type]
    if isinstance(value, dict):
        return ["dict", *([plain(key), plain(dict.__getitem__(value, key))] for key in dict.__iter__(value))]
    raise ValueError("not plain data")


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(0)
