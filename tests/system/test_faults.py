"""Faults that a run must survive or refuse: SIGTERM, half-written checkpoints, a second run, a full disk, a
lost chunk.
"""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import bundle_row, files_of, options, write_rows
from launching import without_vllm

from a2r_train import output
from a2r_train.atomic import HOST
from a2r_train.commands import run as pipeline
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.errors import InputError
from a2r_train.records import Problem
from a2r_train.train import grpo, sft
from a2r_train.train.resume import last_checkpoint

ROOT = Path(__file__).parents[2]
TARGET = {
    "sample": 0,
    "answer": "5",
    "verdict": "correct",
    "prompt_tokens": 1,
    "completion_tokens": 1,
    "seed": 0,
}


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """Bundles and targets on disk, and the keys of both trainers that name and bound them."""
    bundles = [bundle_row(Problem(f"p{i}", f"What is {i} more?", "5"), ["5", "7"], f"b{i}") for i in range(4)]
    targets = [
        {
            **TARGET,
            "bundle_id": f"b{i}",
            "text": rf"It is \boxed{{5}}{'.' * i}",
            "model": "m",
            "finish_reason": "stop",
        }
        for i in range(4)
    ]
    write_rows(tmp_path / "targets.jsonl", targets)
    return {
        "bundles": write_rows(tmp_path / "bundles.jsonl", bundles), "per_device_train_batch_size": 2,
        "report_to": "none",
        "logging_steps": 1, "use_cpu": True, "activation_checkpointing": False, "learning_rate": 1e-3,
        "save_steps": 1000,
        "lr_scheduler_type": "constant", "disable_tqdm": True,
    }  # fmt: skip


def stage_keys(stage: str, recipe: dict[str, Any]) -> dict[str, Any]:
    if stage == "sft":
        return {
            **recipe,
            "targets": str(Path(recipe["bundles"]).with_name("targets.jsonl")),
            "max_steps": 150,
        }
    # Two steps are trained on each generation, so a run may only be cut at even steps.
    more = {"num_generations": 2, "max_completion_length": 12, "num_iterations": 2, "max_steps": 40}
    return {**recipe, **more}


MAIN = {"sft": sft.main, "grpo": grpo.main}


def command(stage: str, keys: dict[str, Any]) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / f"{stage}.py"), *options(keys)]


def losses(folder: Path) -> dict[int, float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, dict[int, float]]:
    """The losses of a stage that nothing stops, once they are known."""
    return {}


@pytest.mark.parametrize(
    ("stage", "number", "name"),
    [
        ("sft", signal.SIGTERM, "SIGTERM"),
        ("grpo", signal.SIGTERM, "SIGTERM"),
        ("sft", signal.SIGINT, "Ctrl-C"),
    ],
)
def test_a_signal_saves_and_the_next_run_goes_on_to_the_same_losses(
    stage: str,
    number: signal.Signals,
    name: str,
    recipe: dict[str, Any],
    tiny: str,
    tmp_path: Path,
    undisturbed: dict[str, dict[int, float]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = {"model_name_or_path": tiny, **stage_keys(stage, recipe)}
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command(stage, {**keys, "output_dir": cut}),
            stdout=subprocess.PIPE, stderr=log, text=True, env=without_vllm(PYTHONUNBUFFERED="1"),
        )  # fmt: skip
        assert process.stdout
        next(line for line in process.stdout if line.startswith("step "))
        process.send_signal(number)
        process.communicate(timeout=120)
    assert process.returncode == 128 + number
    (checkpoint,) = cut.glob("checkpoint-*")
    step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
    assert 0 < step < keys["max_steps"]
    assert stage == "sft" or step % 2 == 0
    assert (
        f"{cut}: stopped by {name}, step {step} is saved; the same command goes on"
        in (tmp_path / "log").read_text()
    )
    assert not (cut / "done.json").exists()
    caplog.set_level("INFO")
    assert MAIN[stage](options({**keys, "output_dir": cut})) == 0
    assert f"resuming from {checkpoint}" in caplog.text
    if stage not in undisturbed:
        assert MAIN[stage](options({**keys, "output_dir": whole})) == 0
        undisturbed[stage] = losses(whole)
    assert len(undisturbed[stage]) == keys["max_steps"]
    assert losses(cut) == pytest.approx(undisturbed[stage], abs=1e-5)


def test_a_changed_recipe_goes_on_only_from_a_checkpoint_that_is_named(
    recipe: dict[str, Any], tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    keys = {
        "model_name_or_path": tiny,
        **stage_keys("sft", recipe),
        "max_steps": 4,
        "save_steps": 2,
        "output_dir": out,
    }
    assert sft.main(options(keys)) == 0
    before, first = files_of(out), losses(out)
    changed = {**keys, "max_steps": 6}
    assert sft.main(options(changed)) == 2
    assert "belongs to another run (max_steps: 4 there, 6 here)" in capsys.readouterr().err
    assert sft.main(options({**changed, "resume_from_checkpoint": out / "checkpoint-3"})) == 2
    assert f"{out / 'checkpoint-3'} is not a complete checkpoint" in capsys.readouterr().err
    assert files_of(out) == before
    assert sft.main(options({**changed, "resume_from_checkpoint": out / "checkpoint-2"})) == 0
    second = losses(out)
    assert [*second] == [1, 2, 3, 4, 5, 6]
    assert {step: second[step] for step in first} == first
    assert yaml.safe_load((out / "config.yaml").read_text())["max_steps"] == 6
    assert (out / "done.json").exists()


ENDED = """
import os, signal, sys, time
from contextlib import suppress
from a2r_train import process

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # the handler runs here, and Python drops what it raises

def drops():
    Dropped()
    time.sleep(30)

def swallows():
    with suppress(SystemExit):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)

def tidies_up():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        sys.stdout.write("tidy")

def hangs():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)

def nobody_reads():
    os.close(2)
    os.open("/dev/full", os.O_WRONLY)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)

sys.exit(process.run(globals()[sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("stage", "lines", "out"),
    [
        ("drops", 1, ""),
        ("swallows", 1, ""),
        ("tidies_up", 1, "tidy"),
        ("hangs", 1, ""),
        ("nobody_reads", 0, ""),
    ],
)
def test_ctrl_c_ends_whatever_a_stage_is_at(stage: str, lines: int, out: str) -> None:
    """A destructor, a bare except, a signal while it tidies up or a second one of the same kind, a reader
    that is gone.
    """
    said = subprocess.run(
        [sys.executable, "-c", ENDED, stage], capture_output=True, text=True, check=False, timeout=20
    )
    assert (said.returncode, said.stdout) == (130, out), said.stderr
    assert (
        said.stderr
        == "stopped by Ctrl-C; what is complete is kept, and the same command goes on from there\n" * lines
    )


PASSED_ON = """
import sys
from a2r_train.commands import run as pipeline
stage = "import signal, sys, time; "
stage += "signal.signal(15, lambda *_: (time.sleep(0.2), print('saved'), sys.exit(143))); "
stage += "print('up', flush=True); time.sleep(60)"
pipeline.command = lambda *_: [sys.executable, "-c", stage]
pipeline.run(sys.argv[1])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_passes_a_signal_on_and_waits_for_the_stage_to_save(
    number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "explore.yaml").write_text("")
    with subprocess.Popen(
        [sys.executable, "-c", PASSED_ON, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.read() == "saved\n"
    assert process.returncode == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stage_that_a_signal_kills_has_the_status_that_a_shell_gives_it(number: signal.Signals) -> None:
    assert (
        pipeline.wait([sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"])
        == 128 + number
    )


def test_what_a_shell_lets_nobody_interrupt_is_not_interrupted(tmp_path: Path) -> None:
    """As with Ctrl-C for what a script starts with `&`."""
    code = "import signal\nfrom a2r_train import process\nprint([int(n) for n in process.listened_to()])\n"
    ignoring = "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    ignoring += f"os.execv(sys.executable, [sys.executable, '-c', {code!r}])"
    said = subprocess.run(
        [sys.executable, "-c", ignoring], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert said.stdout == f"[{int(signal.SIGTERM)}]\n"


@pytest.mark.parametrize("state", [None, "", '{"global_step": 4'])
def test_a_half_written_checkpoint_is_skipped(state: str | None, tmp_path: Path) -> None:
    for name, content in {"checkpoint-9": '{"global_step": 9}', "checkpoint-10": state}.items():
        (tmp_path / name).mkdir()
        for file in ("model.safetensors", "optimizer.pt"):
            (tmp_path / name / file).write_bytes(b"weights")
        if content is not None:
            (tmp_path / name / "trainer_state.json").write_text(content)
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-9")


@pytest.fixture
def exploring(tiny: str, problems: str, tmp_path: Path) -> ExploreConfig:
    sizes = {"samples_per_problem": 2, "max_completion_tokens": 6, "chunk_problems": 2}
    return ExploreConfig(problems, tiny, str(tmp_path / "out"), **sizes)  # type: ignore[arg-type]


def test_a_chunk_removed_by_hand_is_made_again(exploring: ExploreConfig) -> None:
    path = explore(exploring)
    folder, before = path.parent, files_of(path.parent)
    for lost in (folder / "chunks" / "000001.jsonl", folder / "rollouts.jsonl", folder / "done.json"):
        lost.unlink()
    assert explore(exploring).read_bytes() == before["rollouts.jsonl"]
    assert files_of(folder / "chunks") == {
        k.removeprefix("chunks/"): v for k, v in before.items() if k.startswith("chunks/")
    }


def test_what_a_kill_left_half_written_is_removed_at_the_end(exploring: ExploreConfig) -> None:
    folder = Path(exploring.output_dir)
    (folder / "chunks").mkdir(parents=True)
    begun = {k: v for k, v in vars(exploring).items() if k != "dry_run"} | {"engine": "transformers"}
    (folder / "config.yaml").write_text(yaml.safe_dump(begun))
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    ) as shard:  # writes on, and one is gone
        for process in (shard.pid, max(psutil.pids()) + 100_000):
            (folder / "chunks" / f".000000.jsonl.{HOST}.{process}.part").write_text('{"problem_id": ')
        explore(exploring)
        assert [path.name for path in folder.rglob("*.part")] == [f".000000.jsonl.{HOST}.{shard.pid}.part"]
        shard.kill()
    assert not [*folder.glob(".lock*")]


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_ends_a_command_with_its_status_and_a_line_and_no_process_of_it_is_left(
    number: signal.Signals, name: str, exploring: ExploreConfig, tmp_path: Path
) -> None:
    asked = [  # which workers judge
        {"problem": f"What is {i} / 7?", "answer": str(i), "verifier": "fnmatch.fnmatch"} for i in range(1, 7)
    ]
    problems = write_rows(tmp_path / "fractions.jsonl", asked)
    keys = {k: v for k, v in vars(exploring).items() if v != "" and k != "dry_run"}
    keys |= {"problems": problems, "max_completion_tokens": 2000}
    run = [sys.executable, "-m", "a2r_train.cli", "explore", *options(keys)]
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / "versions.json").exists() and process.poll() is None:
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    _, says = process.communicate(timeout=120)
    assert process.returncode == 128 + number, says
    assert (
        says.splitlines()[-1]
        == f"stopped by {name}; what is complete is kept, and the same command goes on from there"
    )
    assert not psutil.wait_procs(children, timeout=15)[1]


HOLD = """
import sys
from a2r_train import output
output.prepare(sys.argv[1], {"seed": 0})
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is writing to `out`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_on_a_folder_is_refused_until_the_first_is_gone(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match="out: another process is writing here; wait for it, or name another"
    ):
        output.prepare(tmp_path / "out", {"seed": 0})
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert output.prepare(tmp_path / "out", {"seed": 0}) is False
    output.finish(tmp_path / "out")
    assert output.prepare(tmp_path / "out", {"seed": 0}) is True


def test_shards_of_one_folder_run_side_by_side_but_none_twice(tmp_path: Path) -> None:
    code = HOLD.replace("})", "}, lock=sys.argv[2])")
    run = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(
        [*run, ".lock-0-of-2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout
        assert first.stdout.readline() == "held\n"
        (tmp_path / "out" / "chunks").mkdir()
        assert output.prepare(tmp_path / "out", {"seed": 0}, lock=".lock-1-of-2") is False
        with pytest.raises(InputError, match="another process is writing here"):
            output.prepare(tmp_path / "out", {"seed": 0}, lock=".lock-0-of-2")
        first.kill()


def test_a_second_training_on_a_folder_is_one_line(
    recipe: dict[str, Any], tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {
        "model_name_or_path": tiny,
        **stage_keys("sft", recipe),
        "output_dir": tmp_path / "out",
        "max_steps": 2000,
    }
    first = subprocess.Popen(
        command("sft", keys), env=without_vllm(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (tmp_path / "out" / "prompt.yaml").exists() and first.poll() is None:
        time.sleep(0.01)
    second = sft.main(options(keys))
    first.kill()
    first.wait()
    assert second == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {tmp_path / 'out'}: another process is writing here")


def unwritable(tmp_path: Path) -> list[Path]:
    (tmp_path / "file").write_text("")
    return [tmp_path / "file" / "out", Path("/sys/a2r-out")]


@pytest.mark.parametrize("which", [0, 1])
def test_an_output_folder_that_cannot_be_written(
    which: int, exploring: ExploreConfig, tmp_path: Path
) -> None:
    folder = unwritable(tmp_path)[which]
    with pytest.raises(
        InputError, match=rf"{folder}: .*; name an output folder that can be written"
    ) as raised:
        explore(replace(exploring, output_dir=str(folder)))
    assert "\n" not in str(raised.value)


def limited(size: int) -> Callable[[], None]:
    """No file may grow beyond so many bytes: to the writer much like a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_explore_on_a_full_disk(exploring: ExploreConfig, tmp_path: Path) -> None:
    """The recipe fits and the chunks do not; what is there is complete, and with room the run goes on."""
    keys = {k: v for k, v in vars(exploring).items() if v != "" and k != "dry_run"} | {
        "max_completion_tokens": 200
    }
    run = [sys.executable, "-m", "a2r_train.cli", "explore", *options(keys)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, preexec_fn=limited(1000))
    assert done.returncode == 1
    assert "no space left on the disk" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (Path(exploring.output_dir) / "config.yaml").exists()
    assert not any(path.name.endswith((".part", ".jsonl")) for path in Path(exploring.output_dir).rglob("*"))
    explore(replace(exploring, max_completion_tokens=200))
    whole = explore(replace(exploring, output_dir=str(tmp_path / "whole"), max_completion_tokens=200))
    assert (Path(exploring.output_dir) / "rollouts.jsonl").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("size", [60_000, 150_000])
def test_training_on_a_full_disk(size: int, recipe: dict[str, Any], tiny: str, tmp_path: Path) -> None:
    """The weights do not fit; or they do, and the optimizer's state, twice as large, does not."""
    keys = {"model_name_or_path": tiny, **stage_keys("sft", recipe), "output_dir": tmp_path / "out"}
    keys |= {"max_steps": 4, "save_steps": 2}
    weights = (Path(tiny) / "model.safetensors").stat().st_size
    assert 60_000 < weights < 150_000 < 2 * weights
    done = subprocess.run(
        command("sft", keys),
        env=without_vllm(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited(size),
    )
    assert done.returncode == 1
    assert "no space left on the disk" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not [*(tmp_path / "out").rglob("*.safetensors"), *(tmp_path / "out").glob("checkpoint-*")]
    assert sft.main(options(keys)) == 0
    assert last_checkpoint(str(tmp_path / "out")) == str(tmp_path / "out" / "checkpoint-4")
