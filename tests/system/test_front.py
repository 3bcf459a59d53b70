"""From one's own file to a trained and evaluated pair; the page on Python; TRL's own script on our bundles.

All with the models of data/tiny, as a user would, in a folder beside a checkout.
"""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import a2r, write_rows
from launching import without_vllm

from a2r_train.commands import init
from a2r_train.data.read import read
from a2r_train.records import Bundle, Problem

ROOT = Path(__file__).parents[2]
SMALL = replace(init.SIZES["tiny"], rows=8, completions=8, steps=2, batch=128)
STORIES = 60


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the data and recipes of this repository."""
    for name in ("data", "recipes", "accelerate_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stories(path: Path) -> str:
    """Sixty word problems of data/tiny under other names, as a CSV or as JSONL."""
    found = read(Problem, str(ROOT / "data/tiny/train.jsonl"))[:STORIES]
    if path.suffix == ".jsonl":
        return write_rows(path, [{"prompt": p.problem, "gold": p.answer} for p in found])
    rows = "".join(f'"{p.problem}",{p.answer}\n' for p in found)
    path.write_text(f"Question,Answer\n{rows}")
    return path.name


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, on one thread and without the network."""
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", *words],
        env=without_vllm(**settings),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("name", "more"), [("problems.csv", []), ("problems.jsonl", ["--dry_run"])])
def test_init_and_run_train_and_evaluate_on_ones_own_file(
    name: str,
    more: list[str],
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(init.SIZES, "tiny", SMALL)
    stories(checkout / name)
    pair = ["--model", "data/tiny/synthesizer", "--explorer", "data/tiny/explorer"]
    assert a2r("init", "mine", "--data", name, *pair) == 0
    assert "60 problems" in capsys.readouterr().out
    done = command("a2r_train.cli", "run", "mine", *more)
    assert done.returncode == 0, done.stderr[-2000:]
    if more:
        assert not (checkout / "runs").exists()
        return
    results = json.loads((checkout / "runs/mine/evaluation/results.json").read_text())
    rows = {row["name"] for row in results["rows"]}
    trained = {f"synthesizer/{name}" for name in ("base", "alone", "sft", "sft+grpo", "no_references")}
    assert {*trained, "pass@1", "maj@4", "maj@equal_tokens"} <= rows
    for folder in ("sft", "grpo", "grpo-no-references"):
        assert (checkout / "runs/mine" / folder / "done.json").is_file()


def test_the_page_on_python_runs_as_it_stands(checkout: Path) -> None:
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    cells = "\n".join(blocks)
    (checkout / "page.py").write_text(f"{cells}\nprint('the gain:', gain)\n")
    done = command("page")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the gain: " in done.stdout
    assert "pass@8" not in done.stdout  # a notebook shows the last value of a cell, a script does not
    assert "synthesizer/sft+grpo" in done.stdout
    assert "explore: unknown key 'modle'; did you mean 'model'?" in done.stdout
    assert (checkout / "runs/python/evaluation/report.html").is_file()


@pytest.fixture
def bundled(checkout: Path) -> str:
    """Bundles of stories whose references are their golds and a wrong number."""
    found = read(Problem, "data/tiny/train.jsonl")[:8]
    rows = [
        {"problem": p.problem, "answer": p.answer, "text": f"\\boxed{{{text}}}"}
        for p in found
        for text in (p.answer, int(p.answer) + 1, int(p.answer) + 2, p.answer)
    ]
    write_rows(checkout / "rollouts.jsonl", rows)
    assert a2r("bundle", "--rollouts", "rollouts.jsonl", "--output_dir", "bundles") == 0
    return "bundles/train.jsonl"


def test_rows_that_changed_are_not_taken_from_an_earlier_folder_of_the_name(
    bundled: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import load_dataset

    sizes = []
    for rows in ("3", "5"):
        (checkout / rows).mkdir()
        monkeypatch.chdir(checkout / rows)
        given = ["--model", str(ROOT / "data/tiny/synthesizer"), "--max_bundles", rows]
        assert a2r("export", str(checkout / bundled), "--output_dir", "out", *given) == 0
        sizes.append(load_dataset("out", cache_dir=str(checkout / "cache"))["train"].num_rows)
    assert sizes == [3, 5]


def test_trl_trains_on_what_export_writes(
    bundled: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert a2r("export", bundled, "--output_dir", "out", "--model", "data/tiny/synthesizer") == 0
    said = capsys.readouterr().out.splitlines()[-1]
    rows = [json.loads(line) for line in (checkout / "out/train.jsonl").read_text().splitlines()]
    bundles = read(Bundle, bundled)
    assert [row["answer"] for row in rows] == [bundle.answer for bundle in bundles]
    assert rows[0]["prompt"][-1]["role"] == "user"
    assert bundles[0].references[0].text in rows[0]["prompt"][-1]["content"]
    program, verb, *arguments = shlex.split(said)
    assert (program, verb) == ("trl", "grpo")
    small = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--num_generations", "4"]
    cpu = ["--use_cpu", "true", "--bf16", "false", "--report_to", "none", "--logging_steps", "1"]
    done = command("trl.cli.main", verb, *arguments, "--max_completion_length", "48", *small, *cpu)
    assert done.returncode == 0, done.stderr[-2000:]
    state = json.loads((checkout / "out-trained/checkpoint-2/trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "rewards/verifiable_reward/mean" in entry] == [
        1,
        2,
    ]
    assert any(key.startswith("reward/n_correct=2") for entry in state["log_history"] for key in entry)


def test_grpo_starts_several_processes(bundled: str, checkout: Path) -> None:
    given = ["--bundles", bundled, "--model_name_or_path", "data/tiny/synthesizer", "--output_dir", "trained"]
    small = ["--max_steps", "1", "--per_device_train_batch_size", "4", "--num_generations", "4"]
    rest = ["--max_completion_length", "16", "--use_cpu", "true", "--report_to", "none", "--save_steps", "1"]
    launch = ["--accelerate_config", "cpu2", "--processes", "2"]
    done = command("a2r_train.cli", "grpo", *launch, *given, *small, *rest)
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = {path.name for path in (checkout / "trained/checkpoint-1").glob("rng_state*")}
    assert ranks == {"rng_state_0.pth", "rng_state_1.pth"}
