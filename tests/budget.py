"""What the fast tier may cost: a test of tests/unit fails that loads torch, starts a process or takes long,
and the run fails where the tier as a whole does. All in seconds of CPU. A busy or slow machine needs half as
many again, so the limits are about twice what a free one needs.
"""

import resource
import sys
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import psutil
import pytest

UNIT = "tests/unit/"
TEST_S, TIER_S = 24.0, 240.0
WORKER = "a2r_train.verify.worker"  # the one process that judging needs
STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")

Report = pytest.TestReport
started: list[str] = []
spent: dict[str, float] = {}


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS and WORKER not in str(arguments):
        started.append(f"{event}{arguments}"[:120])


sys.addaudithook(listen)


def cpu_s() -> float:
    """Of this process, of its children that have ended, and of those that run."""
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    running = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            running.append(child.cpu_times())
    return sum(one.ru_utime + one.ru_stime for one in used) + sum(one.user + one.system for one in running)


def complaint(seconds: float, torch: bool) -> str:
    """What a test of the fast tier must not do and has done."""
    if torch:
        return "loads torch: it belongs in tests/model"
    if started:
        return f"starts a process, {started[0]}: it belongs in tests/system"
    if seconds > TEST_S:
        return f"takes {seconds:.1f} s of CPU, over {TEST_S:.0f}: make it cheaper, or move it to tests/model"
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    started.clear()
    item.stash[BEFORE] = (cpu_s(), "torch" in sys.modules)
    return (yield)


BEFORE = pytest.StashKey[tuple[float, bool]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Report, Report]:
    report = yield
    if report.when == "call" and item.nodeid.startswith(UNIT):
        before, torch = item.stash[BEFORE]
        spent[item.nodeid] = cpu_s() - before
        if says := report.passed and complaint(spent[item.nodeid], not torch and "torch" in sys.modules):
            report.outcome, report.longrepr = "failed", f"{item.nodeid} {says}"
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """Where the fast tier is alone, whatever has loaded torch is one of its files."""
    if all(item.nodeid.startswith(UNIT) for item in session.items) and "torch" in sys.modules:
        raise pytest.UsageError("a file of tests/unit imports torch: it belongs in tests/model")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process of xdist has ended: its tests count, too."""
    spent.update(getattr(node, "workeroutput", {}).get("spent", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["spent"] = spent
    elif sum(spent.values()) > TIER_S:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    whole = sum(spent.values())
    if spent:
        terminalreporter.write_line(f"tests/unit: {whole:.0f} s of CPU, of at most {TIER_S:.0f}")
    if whole > TIER_S:
        for name, seconds in sorted(spent.items(), key=lambda one: -one[1])[:10]:
            terminalreporter.write_line(f"  {seconds:.1f} s  {name}", red=True)
