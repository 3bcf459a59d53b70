"""`a2r grid`, as a command."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import a2r, write_rows

from a2r_train.commands import grid as pairs
from a2r_train.data.read import read
from a2r_train.records import Bundle, Rollout

PNG = b"\x89PNG"


def test_a_grid_of_two_by_two(
    problems: str, tiny: str, other_tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid"
    arguments = [
        *(
            "--problems",
            problems,
            "--explorers",
            f"{tiny},{other_tiny}",
            "--synthesizers",
            f"{other_tiny},{tiny}",
        ),
        *(
            "--output_dir",
            str(out),
            "--k",
            "2",
            "--max_completion_tokens",
            "4",
            "--draws",
            "50",
            "--max_problems",
            "4",
        ),
    ]
    assert a2r("grid", *arguments, "--dry_run", "true") == 0
    assert capfd.readouterr().out.count(" with ") == 4
    assert not out.exists()
    assert a2r("grid", *arguments) == 0
    grid = json.loads((out / "grid.json").read_text())
    assert [(c["explorer"], c["synthesizer"]) for c in grid["cells"]] == [
        (e, s) for e in (tiny, other_tiny) for s in (other_tiny, tiny)
    ]
    assert all(cell["n"] == 4 and cell["flops"] > 0 and 0 <= cell["accuracy"] <= 1 for cell in grid["cells"])
    results = [json.loads(path.read_text()) for path in out.glob("*+*/results.json")]
    assert len(results) == 4
    assert {row["name"] for row in results[0]["rows"]} >= {
        "pass@1",
        "maj@2",
        "synthesizer/base",
        "synthesizer/alone",
    }
    assert (out / "grid.png").read_bytes().startswith(PNG)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/syntheses/*/*.jsonl")}
    assert before
    assert a2r("grid", *arguments) == 0
    assert json.loads((out / "grid.json").read_text()) == grid
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/syntheses/*/*.jsonl")} == before


def test_the_bundles_of_a_grid_are_judged_by_its_prompt(tiny: str, tmp_path: Path) -> None:
    """A text without a box has its answer where the prompt's pattern finds it."""
    rows = [{"problem": f"What is {i}?", "answer": "x", "verifier": "exact"} for i in range(3)]
    problems = write_rows(tmp_path / "problems.jsonl", rows)
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("answer_pattern: (\\S)\n")
    sizes = {"k": 2, "max_completion_tokens": 4, "draws": 50}
    given = {"problems": problems, "explorers": tiny, "synthesizers": tiny, "prompt": str(prompt)}
    pairs.grid(pairs.GridConfig(**given, **sizes, output_dir=str(tmp_path / "out")))
    explored = tmp_path / "out" / Path(tiny).name
    rollouts = read(Rollout, str(explored / "rollouts.jsonl"))
    judged = {(r.problem_id, r.text): (r.answer, r.verdict) for r in rollouts}
    assert any(answer for answer, _ in judged.values())
    for bundle in read(Bundle, str(explored / "bundles.jsonl")):
        for one in bundle.references:
            assert (one.answer, one.verdict) == judged[bundle.problem_id, one.text]


def test_a_grid_without_models_is_refused(
    problems: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--problems",
        problems,
        "--explorers",
        ",",
        "--synthesizers",
        "x",
        "--output_dir",
        str(tmp_path / "grid"),
    ]
    assert a2r("grid", *arguments) == 2
    assert "expected at least one model" in capfd.readouterr().err


def test_a_grid_has_no_columns_to_map(tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "p.jsonl", [{"problem": "1?", "gold": "1"}])
    out = str(tmp_path / "grid")
    assert (
        a2r("grid", "--problems", path, "--explorers", tiny, "--synthesizers", tiny, "--output_dir", out) == 2
    )
    says = "no column 'answer'; the columns are gold, problem (is it 'gold'? then rename it to 'answer')"
    assert capfd.readouterr().err == f"error: {path}:1: {says}\n"
    assert not Path(out).exists()


def test_both_stages_of_a_grid_have_its_engine(
    problems: str, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    explored = tmp_path / "explored.jsonl"
    monkeypatch.setattr(pairs, "explore", lambda config: asked.append(config) or explored)
    monkeypatch.setattr(pairs, "load_rollouts", lambda *_, **__: ([], []))
    monkeypatch.setattr(pairs, "evaluate", lambda config: asked.append(config) or {})
    monkeypatch.setattr(pairs, "_cell", lambda *_: {"accuracy": 0.5, "flops": 1.0})
    engine: dict[str, Any] = {
        "dtype": "float16",
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.4,
        "batch_size": 3,
    }
    pairs.grid(pairs.GridConfig(problems, tiny, tiny, str(tmp_path / "grid"), **engine))
    assert len(asked) == 2
    assert all({key: getattr(config, key) for key in engine} == engine for config in asked)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--dtype", "bf16", "dtype 'bf16': expected auto, float32, bfloat16 or float16"),
        ("--engine", "vlm", "engine 'vlm': expected"),
        ("--tensor_parallel_size", "0", "tensor_parallel_size is 0; expected at least 1"),
        (
            "--gpu_memory_utilization",
            "1.5",
            "gpu_memory_utilization is 1.5; expected a share above 0, at most 1",
        ),
        ("--synthesizers", "runs/tiny/sftt", "runs/tiny/sftt: no such folder or file"),
    ],
)
def test_a_grid_that_cannot_generate_writes_nothing(
    option: str,
    value: str,
    says: str,
    problems: str,
    tiny: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "grid")
    models = ["--explorers", tiny, "--synthesizers", tiny]
    assert a2r("grid", "--problems", problems, *models, "--output_dir", out, option, value) == 2
    assert says in capfd.readouterr().err
    assert not Path(out).exists()
