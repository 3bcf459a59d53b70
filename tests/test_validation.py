"""GRPO with validation bundles: their reward is logged, and the checkpoint with the best one is what is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import options
from safetensors.torch import load_file

from a2r_train.records import Bundle, Problem, read, write
from a2r_train.train import grpo

ROOT = Path(__file__).parent.parent
QUICK = {
    "model_name_or_path": "data/tiny/synthesizer", "prompt": "recipes/tiny/prompt.yaml", "use_cpu": True, "max_steps": 2,
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_generations": 4, "max_completion_length": 24,
    "per_device_eval_batch_size": 8, "learning_rate": 3e-2, "warmup_steps": 0, "save_steps": 1, "save_total_limit": 2,
    "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True,
}  # fmt: skip


def bundles(path: Path, source: str, count: int) -> str:
    made = [
        Bundle(
            f"b{p.id}", p.id, p.problem, p.answer, p.verifier, [rf"\boxed{{{p.answer}}}", r"\boxed{0}"], [p.answer, "0"],
            ["correct", "incorrect"], [5, 5], 1, "0", "incorrect",
        )
        for p in read(Problem, source)[:count]
    ]  # fmt: skip
    write(made, path)
    return str(path)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    return {
        **QUICK,
        "bundles": bundles(tmp_path / "train.jsonl", "data/tiny/train.jsonl", 4),
        "validation": bundles(tmp_path / "validation.jsonl", "data/tiny/validation.jsonl", 6),
        "output_dir": str(tmp_path / "out"),
    }


def train(given: dict[str, Any]) -> int:
    return grpo.main(["--config", "recipes/tiny/grpo.yaml", *options(given)])


@pytest.mark.parametrize("shared", [True, False])
def test_the_best_on_validation_is_kept(given: dict[str, Any], shared: bool) -> None:
    assert train({**given, "shared_prefix": shared}) == 0
    out = Path(given["output_dir"])
    state = json.loads((out / "trainer_state.json").read_text())
    rewards = {entry["step"]: entry["eval_reward"] for entry in state["log_history"] if "eval_reward" in entry}
    assert sorted(rewards) == [1, 2]
    assert all(0 <= reward <= 1 for reward in rewards.values())
    best = max(rewards, key=lambda step: (rewards[step], -step))
    assert state["best_global_step"] == best
    kept, ours, other = (load_file(folder / "model.safetensors") for folder in (out, *checkpoints(out, best)))
    assert all(kept[name].equal(ours[name]) for name in kept)
    assert not all(kept[name].equal(other[name]) for name in kept)
    assert f"of which step {best} is kept (reward {rewards[best]:.4g})" in (out / "README.md").read_text()


def checkpoints(out: Path, best: int) -> tuple[Path, Path]:
    return out / f"checkpoint-{best}", out / f"checkpoint-{3 - best}"


def test_killed_before_its_end_it_keeps_the_best_too(given: dict[str, Any]) -> None:
    given["learning_rate"] = 0.3  # so large that the second step cannot be better than the first
    assert train(given) == 0
    out = Path(given["output_dir"])
    before = (out / "model.safetensors").read_bytes()
    assert json.loads((out / "trainer_state.json").read_text())["best_global_step"] == 1
    for name in ("model.safetensors", "trainer_state.json", "done.json"):
        (out / name).unlink()
    assert train(given) == 0
    assert (out / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"validation": ""}, "validation and eval_strategy go together"),
        ({"eval_strategy": "no", "load_best_model_at_end": False}, "validation and eval_strategy go together"),
        ({"validation": "bundles"}, "the problem of bundle 'b"),
        ({"max_completion_length": 100_000}, "the longest prompt with its completion is"),
    ],
)
def test_wrong_validation_is_one_line(
    given: dict[str, Any], change: dict[str, Any], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if change.get("validation"):
        change = {"validation": given["bundles"]}
    assert train({**given, **change}) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert line in error
    assert not Path(given["output_dir"]).exists()
