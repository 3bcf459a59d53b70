"""GRPO with validation bundles: their reward is logged, and the checkpoint with the best one is what is
kept.
"""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import bundle_with, options
from safetensors.torch import load_file

from a2r_train.config import parse
from a2r_train.data.read import read
from a2r_train.data.task import Task
from a2r_train.data.trained_on import problem_hashes, trainings
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.records import Bundle, Problem, write
from a2r_train.train import grpo, preflight
from a2r_train.train.bundles import load_bundles, load_validation
from a2r_train.train.estimate import report as estimate

ROOT = Path(__file__).parents[2]
QUICK = {
    "model_name_or_path": "data/tiny/synthesizer", "prompt": "recipes/tiny/prompt.yaml", "use_cpu": True,
    "max_steps": 2,
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_generations": 4,
    "max_completion_length": 24,
    "per_device_eval_batch_size": 8, "learning_rate": 3e-2, "warmup_steps": 0, "save_steps": 1,
    "save_total_limit": 2,
    "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True,
}  # fmt: skip


def bundles(path: Path, source: str, count: int) -> str:
    write([bundle_with(p, [p.answer, "0"], f"b{p.id}") for p in read(Problem, source)[:count]], path)
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
    rewards = {
        entry["step"]: entry["eval_reward"] for entry in state["log_history"] if "eval_reward" in entry
    }
    assert sorted(rewards) == [1, 2]
    assert all(0 <= reward <= 1 for reward in rewards.values())
    best = max(rewards, key=lambda step: (rewards[step], -step))
    assert state["best_global_step"] == best
    kept, ours, other = (load_file(folder / "model.safetensors") for folder in (out, *checkpoints(out, best)))
    assert all(kept[name].equal(ours[name]) for name in kept)
    assert not all(kept[name].equal(other[name]) for name in kept)
    assert f"of which step {best} is kept (reward {rewards[best]:.4g})" in (out / "README.md").read_text()
    trained, validated = trainings(str(out))
    assert (trained.stage, validated.stage, validated.bundles) == (
        "GRPO",
        "GRPO validation",
        given["validation"],
    )
    problems = [bundle.problem for bundle in read(Bundle, given["validation"])]
    assert validated.problems == set().union(*map(problem_hashes, problems))


def test_a_control_is_validated_on_plain_problems_to_its_end(given: dict[str, Any], tmp_path: Path) -> None:
    rows = [
        {"problem": p.problem, "answer": p.answer} for p in read(Problem, "data/tiny/validation.jsonl")[:6]
    ]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train({**given, "validation": str(path), "plain_share": 1.0, "max_steps": 1}) == 0
    assert [one.stage for one in trainings(given["output_dir"])] == ["GRPO", "GRPO validation"]


def test_validation_that_chooses_no_step_is_a_test_set_still(given: dict[str, Any]) -> None:
    assert train({**given, "max_steps": 1, "load_best_model_at_end": False}) == 0
    assert [one.stage for one in trainings(given["output_dir"])] == ["GRPO"]


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


def rewarding(monkeypatch: pytest.MonkeyPatch, by_step: dict[int, float], stop_at: int = -1) -> None:
    """An evaluation after a step has the given reward, a training one that differs within a group; SIGTERM
    comes in a step.
    """
    held = [p.problem for p in read(Problem, "data/tiny/validation.jsonl")[:6]]

    class Reward(grpo.VerifiableReward):
        def __call__(
            self, completions: Any, prompts: Any, trainer_state: Any, **_: Any
        ) -> list[float | None]:  # type: ignore[override]
            step, rows = trainer_state.global_step, range(len(completions))
            if any(problem in prompts[0][-1]["content"] for problem in held):
                return [by_step[step] for _ in rows]
            if step + 1 == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return [float(row % 2) for row in rows]

    monkeypatch.setattr(grpo, "VerifiableReward", Reward)


@pytest.mark.parametrize("peft", [True, False])
@pytest.mark.parametrize("best", [1, 2])
def test_the_highest_reward_is_kept(
    best: int, peft: bool, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewarding(monkeypatch, {best: 0.75, 3 - best: 0.25})
    if peft:
        given |= {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"}
    name = "adapter_model.safetensors" if peft else "model.safetensors"
    assert train(given) == 0
    out = Path(given["output_dir"])
    kept, ours, other = (load_file(folder / name) for folder in (out, *checkpoints(out, best)))
    assert all(kept[name].equal(ours[name]) for name in kept)
    assert not all(kept[name].equal(other[name]) for name in kept)
    assert f"of which step {best} is kept (reward 0.75)" in (out / "README.md").read_text()


@pytest.mark.parametrize("best_is_there", [True, False])
def test_a_folder_that_was_moved_keeps_its_best(
    best_is_there: bool, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewarding(monkeypatch, {1: 0.75, 2: 0.25})
    assert train(given) == 0
    moved = Path(given["output_dir"]).rename(tmp_path / "moved")
    for name in ("model.safetensors", "trainer_state.json", "done.json"):
        (moved / name).unlink()
    if not best_is_there:
        shutil.rmtree(moved / "checkpoint-1")
    assert train({**given, "output_dir": str(moved)}) == 0
    kept, ours = (
        load_file(folder / "model.safetensors")
        for folder in (moved, moved / f"checkpoint-{2 - best_is_there}")
    )
    assert all(kept[name].equal(ours[name]) for name in kept)
    assert ("of which step 1 is kept" in (moved / "README.md").read_text()) == best_is_there


def test_what_sigterm_saves_is_there_and_the_best_is_kept_all_the_same(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given |= {"save_total_limit": 1, "save_steps": 2, "eval_steps": 2, "max_steps": 4}
    rewarding(monkeypatch, {2: 0.75, 4: 0.25}, stop_at=3)
    with pytest.raises(SystemExit, match="143"):
        train(given)
    out = Path(given["output_dir"])
    assert {path.name for path in out.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    rewarding(monkeypatch, {2: 0.75, 4: 0.25})
    assert train(given) == 0
    kept, ours = (load_file(folder / "model.safetensors") for folder in (out, out / "checkpoint-2"))
    assert all(kept[name].equal(ours[name]) for name in kept)
    assert "4 steps, of which step 2 is kept (reward 0.75)" in (out / "README.md").read_text()


def test_the_dry_run_counts_what_is_validated(
    given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train({**given, "dry_run": True}) == 0
    assert "validation │ 0.00 │" in " ".join(capsys.readouterr().out.split())
    data, args, model = parse(
        grpo.ARGUMENTS, options({**given, "per_device_eval_batch_size": 32, "save_total_limit": 1})
    )
    bundles = load_bundles(data, model)
    validation = load_validation(data, args, model, bundles)
    assert grpo.validation_completions(args, bundles, validation) == 2 * 6 * 4
    assert estimate.step_of(args, 10, 10).generates == 32
    assert preflight._checkpoints(args, 9) == 3  # the newest, the best, and the one being written


@pytest.mark.parametrize(
    ("batch", "processes", "taken"), [(8, 1, 6), (16, 1, 4), (32, 1, 6), (8, 2, 4), (16, 2, 0)]
)
def test_only_whole_batches_are_validated_on(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, batch: int, processes: int, taken: int
) -> None:
    """Six bundles with four completions each: a batch holds two, four or eight."""
    data, args, model = parse(grpo.ARGUMENTS, options({**given, "per_device_eval_batch_size": batch}))
    monkeypatch.setattr(grpo.SynthesizerGRPOConfig, "world_size", processes)
    bundles = load_bundles(data, model)
    if not taken:
        with pytest.raises(InputError, match="do not fill a batch"):
            load_validation(data, args, model, bundles)
        return
    validation = load_validation(data, args, model, bundles)
    assert len(validation.rows) == taken


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"validation": ""}, "validation and eval_strategy go together"),
        (
            {"eval_strategy": "no", "load_best_model_at_end": False},
            "validation and eval_strategy go together",
        ),
        ({"validation": "bundles"}, "bundles have a problem that is trained on, such as 'b"),
        ({"validation": "other words"}, "bundles have a problem that is trained on, such as 'b"),
        ({"max_completion_length": 100_000}, "the longest prompt with its completion is"),
        ({"save_steps": 2}, "make save_steps (2) and eval_steps (1) equal"),
        ({"save_strategy": "best"}, "save_strategy best saves no step to resume from"),
        ({"metric_for_best_model": "accuracy"}, "metric_for_best_model is accuracy; expected reward or loss"),
        ({"pass_at_k": 2, "num_generations_eval": 2}, "pass_at_k needs whole groups in an evaluation, too"),
    ],
)
def test_wrong_validation_is_one_line(
    given: dict[str, Any], change: dict[str, Any], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if path := change.get("validation"):
        if path == "other words":  # the same problems in capitals, with other spaces
            rows = [json.loads(line) for line in Path(given["bundles"]).read_text().splitlines()]
            changed = [row | {"problem": f"  {row['problem'].upper()} "} for row in rows]
            Path(given["bundles"]).with_name(path).write_text(
                "".join(json.dumps(row) + "\n" for row in changed)
            )
            path = str(Path(given["bundles"]).with_name(path))
        change = {"validation": given["bundles"] if path == "bundles" else path}
    assert train({**given, **change}) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert line in error
    assert not Path(given["output_dir"]).exists()


def agreeing(path: Path, source: str, share: float, count: int = 40) -> str:
    """Bundles whose two references agree, so many of them on the right answer."""
    found = []
    for at, problem in enumerate(read(Problem, source)[:count]):
        answer = problem.answer if at < share * count else "-1"
        found.append(bundle_with(problem, [answer] * 2, f"b{problem.id}"))
    write(found, path)
    return str(path)


def test_a_majority_that_deserves_less_trust_in_training_is_red(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {**given, "validation": agreeing(tmp_path / "v.jsonl", "data/tiny/validation.jsonl", 0.9)}
    keys["bundles"] = agreeing(tmp_path / "t.jsonl", "data/tiny/train.jsonl", 0.3)
    assert train(keys) == 2
    error = capsys.readouterr().err
    assert (
        "agreement: right votes in training and in validation bundles, 2: 30 % of 40 and 90 % of 40" in error
    )
    assert "mixture all or patterns" in error
    assert not Path(given["output_dir"]).exists()

    def check(**more: Any) -> list[preflight.Check]:
        arguments = ["--config", "recipes/tiny/grpo.yaml", *options({**keys, **more})]
        return [one for one in grpo.checks(*parse(grpo.ARGUMENTS, arguments)) if one.name == "agreement"]

    assert check(plain_share=1.0) == []  # the control reads no references
    (same,) = check(bundles=agreeing(tmp_path / "s.jsonl", "data/tiny/train.jsonl", 0.85))
    assert (same.color, "2: 85 % of 40 and 90 % of 40" in same.detail) == ("green", True)
    (chance,) = check(bundles=agreeing(tmp_path / "c.jsonl", "data/tiny/train.jsonl", 0.7))
    assert chance.color == "yellow"
    assert "70 % of 40 and 90 % of 40; over 10 points apart in 2, which with so few" in chance.detail
    (few,) = check(bundles=given["bundles"])
    assert few.color == "yellow"
    assert "no pattern has 30 problems" in few.detail
    assert few.detail.endswith("answer such problems by the vote (skip_agreement 1)")


def test_validation_is_shown_as_the_training_bundles_are(given: dict[str, Any], tmp_path: Path) -> None:
    """Whatever prompt lies beside its own file: none where the user has put it together."""
    del given["prompt"]
    (tmp_path / "elsewhere").mkdir()
    path = Path(given["validation"]).rename(tmp_path / "elsewhere" / "validation.jsonl")
    prompt = PromptConfig(
        synthesizer_template="Ours: {problem} {references} \\boxed{{}}",
        chat_template_kwargs={"enable_thinking": False},
    )
    Task(prompt).write(tmp_path)
    given |= {"validation": str(path), "model_name_or_path": str(bare(tmp_path))}
    for other in (None, replace(prompt, system="Other.", synthesizer_template="{references} {problem}")):
        if other:
            Task(other).write(path.parent)
        data, args, model = parse(
            grpo.ARGUMENTS, ["--config", "recipes/tiny/grpo.yaml", *options(given), "--prompt", ""]
        )
        training = load_bundles(data, model)
        validation = load_validation(data, args, model, training)
        assert validation is not None
        assert validation.prompter.config == training.prompter.config == prompt
        assert validation.rows[0].chat[0]["content"].startswith("Ours: ")


def bare(folder: Path) -> Path:
    """The tiny model without a prompt of its own."""
    copied = Path(shutil.copytree(ROOT / QUICK["model_name_or_path"], folder / "bare"))
    (copied / "prompt.yaml").unlink(missing_ok=True)
    return copied
