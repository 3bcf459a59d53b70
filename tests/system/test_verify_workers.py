"""The workers of a2r_train.verify: they hang, die or lose their parent, serve threads, forks and ranks, and
remember.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from launching import launch, left_running, running
from test_verify import OWN, boxed

from a2r_train.records import CORRECT, INCORRECT, TIMEOUT
from a2r_train.verify import Judgement, compare, judge, judge_all, pool


@pytest.mark.parametrize("fatal", ["hang", "die"])
def test_a_worker_that_hangs_or_dies_costs_one_answer(fatal, monkeypatch):
    judge_all([(boxed(f"warm {i}"), "5", OWN) for i in range(4)])
    monkeypatch.setattr(pool, "DEADLINE_S", 1.0)
    monkeypatch.setattr(compare, "_cache", {})
    answers = ["1", fatal, "2", "3", "5", fatal, r"\frac{5}{1}"]
    started = time.monotonic()
    judgements = judge_all([(boxed(answer), "5", OWN) for answer in answers])
    assert time.monotonic() - started < 10
    assert judgements[1] == judgements[5] == Judgement(fatal, TIMEOUT)
    assert [j.verdict for j in judgements if j.answer != fatal] == [
        INCORRECT,
        INCORRECT,
        INCORRECT,
        CORRECT,
        INCORRECT,
    ]


def test_an_answer_that_was_late_once_is_asked_again(monkeypatch):
    """The machine may have been busy; who is late twice stays so."""
    asked = []

    def ask_all(keys):
        asked.append(list(keys))
        return [TIMEOUT if key[0] == "hang" or len(asked) == 1 else CORRECT for key in keys]

    monkeypatch.setattr(compare, "_cache", {})
    monkeypatch.setattr(compare.pool, "ask_all", ask_all)
    answers = [r"\frac{10}{2}", "hang"]
    for _ in range(2):  # the second time both are known
        found = judge_all([(boxed(answer), "5", OWN) for answer in answers])
        assert [one.verdict for one in found] == [CORRECT, TIMEOUT]
    assert [len(keys) for keys in asked if keys] == [2, 2]


def test_any_thread():
    def verdicts(seed: int) -> list[str]:
        return [judge(boxed(rf"\frac{{{seed * i}}}{{3}}"), rf"\frac{{{seed * 4}}}{{3}}") for i in (3, 4)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(verdicts, range(1, 17))) == [[INCORRECT, CORRECT]] * 16


def test_equal_comparisons_are_made_once(monkeypatch):
    asked = []
    real = pool.ask_all
    monkeypatch.setattr(pool, "ask_all", lambda requests: asked.extend(requests) or real(requests))
    same = (r"\sqrt{44}", r"$\sqrt{44}$", r" \sqrt{44}.")
    items = [(boxed(answer), r"2\sqrt{11}", "math") for answer in same]
    assert {j.verdict for j in judge_all(items) + judge_all(items)} == {CORRECT}
    assert len(asked) == 1


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(compare, "_cache", {})
    monkeypatch.setattr(compare, "CACHE_SIZE", 10)
    for many in (4, 8, 30):
        items = [(boxed(rf"{i}\pi"), rf"\pi\cdot{many}", "math") for i in range(1, many + 2)]
        assert [j.verdict for j in judge_all(items)] == [INCORRECT] * (many - 1) + [CORRECT, INCORRECT]
        assert 0 < len(compare._cache) <= 10


def test_workers_that_are_started_before_answer_at_once(monkeypatch):
    pool._stop_all()
    for thread in pool.start():
        thread.join()
    started = [worker._process.pid for worker in pool._workers]
    assert len(set(started)) == pool.WORKERS
    items = [(boxed(rf"\sqrt{{{i}x}}"), "y", "math") for i in range(2, 20)]
    assert {judged.verdict for judged in judge_all(items)} == {INCORRECT}
    assert [worker._process.pid for worker in pool._workers] == started
    for thread in pool.start():
        thread.join()
    assert [worker._process.pid for worker in pool._workers] == started

    pool._stop_all()
    monkeypatch.setattr(pool.sys, "executable", "/nonexistent")
    for thread in pool.start():  # who asks is told
        thread.join()
    with pytest.raises(OSError, match="nonexistent"):
        judge(boxed(r"\sqrt{31x}"), "y")


def test_in_a_job_with_one_core_there_is_one_worker():
    """As `srun --cpus-per-task 1` leaves it, whatever cores the machine has."""
    code = (
        "from a2r_train.verify import judge, pool; print(pool.WORKERS, judge(r'\\boxed{\\frac{10}{2}}', '5'))"
    )
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        env={**os.environ, "SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
    )  # fmt: skip
    assert done.stdout.split() == ["1", CORRECT], done.stderr


RANK = r"""
import os
from accelerate import PartialState
from a2r_train.verify import judge_all
state = PartialState(cpu=True)
items = [(r"\boxed{\frac{%d}{3}}" % (3 * (i + state.process_index)), "5", "math") for i in range(8)]
right = [i for i, judged in enumerate(judge_all(items)) if judged.verdict == "correct"]
os.write(1, f"{state.num_processes} {state.process_index} {right}\n".encode())  # at once: both share a pipe
state.wait_for_everyone()
state.destroy_process_group()
"""


def test_every_process_of_accelerate_has_its_own_workers(tmp_path):
    (tmp_path / "rank.py").write_text(RANK)
    said = launch("cpu2", str(tmp_path / "rank.py"))
    assert sorted(said.splitlines()) == ["2 0 [5]", "2 1 [4]"]


def test_a_forked_child_judges_with_workers_of_its_own():
    judge(boxed(r"\frac{1}{3}"), "3")
    if (child := os.fork()) == 0:
        os._exit(
            0
            if judge(boxed(r"\frac{9}{3}"), "3") == CORRECT and judge(boxed(r"\frac{8}{3}"), "3") == INCORRECT
            else 1
        )
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert judge(boxed(r"\frac{12}{4}"), "3") == CORRECT


def test_no_worker_outlives_a_killed_parent():
    script = f"""
import sys, threading, time
sys.path = {sys.path!r}
from a2r_train.verify import judge, judge_all, pool
pool.DEADLINE_S = 2.0
judge_all([(r"\\boxed{{\\frac{{%d}}{{7}}}}" % i, r"\\frac{{3}}{{7}}", "math") for i in range(20)])
threading.Thread(target=judge, args=(r"\\boxed{{hang}}", "5", {OWN!r})).start()
time.sleep(1.5)
print(*[worker._process.pid for worker in pool._workers if worker._process], flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers
    assert all(map(running, workers))
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert not left_running(workers, 10)
