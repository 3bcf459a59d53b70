"""Each mistake of a user ends with status 2 and one line that names the place and the mend; nothing is
written or lost.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from shutil import copytree

import pytest
from conftest import a2r, files_of, write_rows

from a2r_train.data.bundle import BundleConfig, build
from a2r_train.data.read import read
from a2r_train.engines import EngineArguments, load_engine
from a2r_train.errors import InputError
from a2r_train.records import Rollout

Refused = Callable[..., str]
PROBLEMS = [{"id": f"p{i}", "problem": f"What is {i}?", "answer": str(i)} for i in range(3)]


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run `a2r` with these arguments; assert the promise of this file, and return the line."""

    def run(*arguments: str) -> str:
        before, paths = files_of(tmp_path), sorted(tmp_path.rglob("*"))
        capfd.readouterr()
        status = a2r(*arguments)
        out, err = capfd.readouterr()
        assert status == 2
        assert len(err.splitlines()) == 1, err
        assert out == ""
        assert files_of(tmp_path) == before
        assert sorted(tmp_path.rglob("*")) == paths  # nor an empty folder
        return err

    return run


def exploring(tmp_path: Path, model: str, problems: str) -> list[str]:
    out = str(tmp_path / "out")
    sizes = ["--samples_per_problem", "1", "--max_completion_tokens", "4", "--chunk_problems", "2"]
    return ["explore", "--problems", problems, "--model", model, "--output_dir", out, *sizes]


def bundling(tmp_path: Path, rollouts: str, problems: str) -> list[str]:
    return ["bundle", "--rollouts", rollouts, "--problems", problems, "--output_dir", str(tmp_path / "out")]


@pytest.fixture
def bundles(tmp_path: Path, rollouts: str, problems: str) -> str:
    """Two bundles on disk."""
    train, _, _ = build(BundleConfig(rollouts, "", problems))
    return write_rows(tmp_path / "bundles.jsonl", [asdict(b) for b in train.bundles[4:6]])


def evaluating(tmp_path: Path, bundles: str, base: str) -> list[str]:
    sizes = ["--max_completion_tokens", "4", "--temperature", "0", "--draws", "50"]
    return ["evaluate", "--bundles", bundles, "--base", base, "--output_dir", str(tmp_path / "out"), *sizes]


def test_missing_column(refused: Refused, tmp_path: Path, tiny: str) -> None:
    path = write_rows(tmp_path / "p.jsonl", [PROBLEMS[0], {"id": "b", "problem": "2?", "gold": "2"}])
    line = refused(*exploring(tmp_path, tiny, path))
    assert f"{path}:2: no column 'answer'" in line
    assert "the columns are gold, id, problem (map names with `columns:`)" in line


def test_missing_column_of_rollouts_made_elsewhere(refused: Refused, tmp_path: Path) -> None:
    path, out = write_rows(tmp_path / "r.jsonl", [{"problem": "2?", "answer": "2"}]), str(tmp_path / "out")
    line = refused("bundle", "--rollouts", path, "--output_dir", out)
    assert f"{path}:1: no column 'text'; name the problem file with `problems:`, or map columns" in line
    write_rows(Path(path), [{"problem": "2?", "text": "2"}])
    line = refused("evaluate", "--bundles", path, "--output_dir", out)  # it has neither key
    assert line == f"error: {path}:1: no column 'answer'; expected problem, answer and text\n"


def test_bundles_that_are_none_name_no_key_that_is_not_there(
    refused: Refused, tmp_path: Path, problems: str, tiny: str
) -> None:
    line = refused(*evaluating(tmp_path, problems, tiny))
    assert line == f"error: {problems}:1: no column 'problem_id'; the columns are answer, id, problem\n"


def test_empty_answer(refused: Refused, tmp_path: Path, tiny: str) -> None:
    path = write_rows(tmp_path / "p.jsonl", [*PROBLEMS, {"id": "b", "problem": "2?", "answer": " "}])
    assert f"{path}:4: field 'answer' is empty" in refused(*exploring(tmp_path, tiny, path))


@pytest.mark.parametrize("column", ["problem", "answer"])
def test_empty_field_of_rollouts_made_elsewhere(column: str, refused: Refused, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "r.jsonl", [{"problem": "2?", "answer": "2", "text": "t", column: ""}])
    line = refused("bundle", "--rollouts", path, "--output_dir", str(tmp_path / "out"))
    assert f"{path}:1: field '{column}' is empty" in line


def test_duplicate_id(refused: Refused, tmp_path: Path, tiny: str) -> None:
    path = write_rows(tmp_path / "p.jsonl", [*PROBLEMS, PROBLEMS[1]])
    line = refused(*exploring(tmp_path, tiny, path))
    assert f"{path}:4: id 'p1' was used at {path}:2 already; ids must be unique" in line


def test_broken_line_in_the_middle(refused: Refused, tmp_path: Path, rollouts: str, problems: str) -> None:
    lines = Path(rollouts).read_text().splitlines(keepends=True)
    Path(rollouts).write_text("".join([*lines[:20], lines[20][:30] + "\n", *lines[21:]]))
    assert f"{rollouts}:21: not valid JSON" in refused(*bundling(tmp_path, rollouts, problems))


def test_no_correct_reference_anywhere(
    refused: Refused, tmp_path: Path, rollouts: str, problems: str
) -> None:
    wrong = [
        {**asdict(r), "text": r"\boxed{99}", "answer": "99", "verdict": "incorrect"}
        for r in read(Rollout, rollouts)
    ]
    path = write_rows(Path(rollouts), wrong)
    line = refused(*bundling(tmp_path, path, problems))
    assert f"{path}: no correct reference anywhere; explore with a stronger model or easier problems" in line


def test_references_over_budget(
    refused: Refused, tmp_path: Path, rollouts: str, problems: str, tiny: str
) -> None:
    (tmp_path / "prompt.yaml").write_text("max_prompt_tokens: 40\n")
    budget = ["--prompt", str(tmp_path / "prompt.yaml"), "--tokenizer", tiny]
    line = refused(*bundling(tmp_path, rollouts, problems), *budget)
    assert "over the budget of 40" in line
    assert "raise max_prompt_tokens or lower k" in line


def test_references_over_budget_in_evaluate(
    refused: Refused, tmp_path: Path, bundles: str, tiny: str
) -> None:
    (tmp_path / "prompt.yaml").write_text("max_prompt_tokens: 40\n")
    line = refused(*evaluating(tmp_path, bundles, tiny), "--prompt", str(tmp_path / "prompt.yaml"))
    assert "raise max_prompt_tokens or lower k" in line


@pytest.fixture
def without_weights(tiny: str, tmp_path: Path) -> str:
    folder = copytree(tiny, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    return str(folder)


def test_checkpoint_without_weights(
    refused: Refused, tmp_path: Path, without_weights: str, bundles: str, problems: str, tiny: str
) -> None:
    says = f"{without_weights}: no weights (*.safetensors) in this folder; name a finished checkpoint"
    assert says in refused(*exploring(tmp_path, without_weights, problems))
    assert says in refused(*evaluating(tmp_path, bundles, without_weights))
    assert says in refused(*evaluating(tmp_path, bundles, tiny), "--sft", without_weights)
    assert says in refused("solve", "2?", "--explorer", without_weights, "--synthesizer", tiny)


@pytest.fixture
def without_template(tiny: str, tmp_path: Path) -> str:
    folder = copytree(tiny, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    return str(folder)


def test_tokenizer_without_chat_template(
    refused: Refused, tmp_path: Path, without_template: str, bundles: str, problems: str, rollouts: str
) -> None:
    says = f"{without_template}: the tokenizer has no chat template; use an instruct model"
    assert says in refused(*exploring(tmp_path, without_template, problems))
    assert says in refused(*bundling(tmp_path, rollouts, problems), "--tokenizer", without_template)
    assert says in refused(*evaluating(tmp_path, bundles, without_template))


def test_output_folder_of_another_run(
    refused: Refused, tmp_path: Path, problems: str, rollouts: str, bundles: str, tiny: str
) -> None:
    runs = [
        (exploring(tmp_path / "explore", tiny, problems), "temperature", "0.5"),
        (bundling(tmp_path / "bundle", rollouts, problems), "k", "3"),
        (evaluating(tmp_path / "evaluate", bundles, tiny), "samples", "2"),
    ]
    for arguments, key, value in runs:
        assert a2r(*arguments) == 0
        line = refused(*arguments, f"--{key}", value)
        assert f"{arguments[0]}/out: belongs to another run ({key}: " in line
        assert f"{value} here); name another output folder, or remove this one" in line


def test_output_folder_of_something_else(
    refused: Refused, tmp_path: Path, problems: str, rollouts: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    line = refused(*bundling(tmp_path, rollouts, problems))
    assert "holds files of something else (no config.yaml); name another output folder" in line


def test_recipe_with_a_misspelt_key(refused: Refused, tmp_path: Path) -> None:
    recipe = tmp_path / "explore.yaml"
    recipe.write_text(f"problems: p.jsonl\nmodel: m\noutput_dir: {tmp_path / 'out'}\ntemprature: 1\n")
    line = refused("explore", "--config", str(recipe))
    assert f"{recipe}: unknown key 'temprature'; did you mean 'temperature'?" in line


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--engine", "vlm", "engine 'vlm': expected"),
        ("--dtype", "fp16", "dtype 'fp16': expected auto, float32, bfloat16 or float16"),
        ("--shard", "2/2", "expected i/n"),
        ("--columns", "{", "expected names of columns as JSON"),
        ("--temperature", "-1", "expected temperature >= 0"),
        ("--samples_per_problem", "0", "samples_per_problem"),
        ("--batch_size", "0", "batch_size"),
        ("--chunk_problems", "0", "chunk_problems"),
        ("--samples_per_problem", "many", "samples_per_problem"),
        ("--model", "./nowhere", "no such folder or file"),
    ],
)
def test_value_out_of_range(
    option: str, value: str, says: str, refused: Refused, tmp_path: Path, tiny: str, problems: str
) -> None:
    assert says in refused(*exploring(tmp_path, tiny, problems), option, value)


def test_a_dtype_that_is_none(refused: Refused, tmp_path: Path, bundles: str, tiny: str) -> None:
    says = "error: dtype 'bf16': expected auto, float32, bfloat16 or float16\n"
    assert refused(*evaluating(tmp_path, bundles, tiny), "--dtype", "bf16") == says
    with pytest.raises(InputError, match="dtype 'bf16'"):
        load_engine(tiny, EngineArguments(dtype="bf16"))


def test_a_process_ends_with_status_2_and_one_line(tmp_path: Path, tiny: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(PROBLEMS[0]) + "\n{broken\n")
    command = [sys.executable, "-m", "a2r_train.cli", *exploring(tmp_path, tiny, str(path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"error: {path}:2: not valid JSON (Expecting property name enclosed in "
        "double quotes); expected one object a line\n"
    )
    assert list(tmp_path.iterdir()) == [path]
