"""Answers that no vote can settle, through all stages: programs of data/code, and two tasks of Reasoning Gym.

The explorer is a server that answers as a weak model would: right, wrong, with a program that never ends,
with none. What is trained is a tiny checkpoint.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import a2r, options, write_rows
from hostile_programs import running_below, still_running
from keep_results import keep_bundles
from serving import Answer, completion, reply, serving
from test_recipes import status

from a2r_train.config import load_yaml
from a2r_train.data.read import read
from a2r_train.evaluate.kept_bundles import bundles_of
from a2r_train.records import Bundle, Problem, Rollout
from a2r_train.verify.extract import written

pytestmark = pytest.mark.usefixtures("at_root")
STEP: dict[str, Any] = {
    "max_steps": 1, "use_cpu": True, "save_steps": 1, "logging_steps": 1, "report_to": "none",
    "use_peft": False, "gradient_accumulation_steps": 1, "shared_prefix": False,
}  # fmt: skip
LOOP = "def {name}(*given):\n    while True:\n        pass"


def exploring(problems: Sequence[Problem], wrong: Callable[[Problem, int], str]) -> Answer:
    """Answers by the problem that a chat shows: in turn right, wrong, right, wrong in another way."""
    asked: dict[str, int] = {}

    def answer(handler: Any, body: dict[str, Any]) -> None:
        shown = body["messages"][-1]["content"]
        found = next((p for p in problems if p.problem in shown), None)
        if found is None:  # the probe of the engine
            return reply(handler, 200, completion("1"))
        turn = asked[found.id] = asked.get(found.id, -1) + 1
        said = written(found.answer, found.verifier) if turn % 2 == 0 else wrong(found, turn // 2)
        return reply(handler, 200, completion(f"Let us see, {turn}.\n\n{said}", 50, 20))

    return answer


def small_prompt(path: str, folder: Path) -> str:
    """A shipped prompt with the budgets of a tiny model."""
    keys = {**load_yaml(path), "max_reference_tokens": 250, "max_prompt_tokens": 3000}
    (folder / "prompt.yaml").write_text(yaml.safe_dump(keys))
    return str(folder / "prompt.yaml")


def explored(answer: Answer, model: str, problems: str, prompt: str, out: Path, samples: int) -> str:
    with serving(model, answer) as url:
        given = {
            "problems": problems, "model": model, "output_dir": out, "prompt": prompt, "engine": "openai",
            "endpoint": url, "samples_per_problem": samples, "max_completion_tokens": 512,
        }  # fmt: skip
        assert a2r("explore", *options(given)) == 0
    return str(out / "rollouts.jsonl")


def targets_of(bundles: str, out: Path) -> str:
    """Right answers to the bundles, as a stronger teacher would give them."""
    rows = [
        {
            "bundle_id": b.id, "sample": 0, "text": f"They differ.\n\n{written(b.answer, b.verifier)}",
            "answer": "", "verdict": "unverified", "prompt_tokens": 1, "completion_tokens": 1,
            "finish_reason": "stop", "model": "teacher", "seed": 0,
        }
        for b in read(Bundle, bundles)
    ]  # fmt: skip
    return write_rows(out / "targets.jsonl", rows)


def wrong_program(problem: Problem, turn: int) -> str:
    name = problem.problem.rpartition("`")[0].rpartition("`")[2].partition("(")[0]
    programs = [f"def {name}(*given):\n    return 7", LOOP.format(name=name), "x = 1"]
    return "I cannot write it." if turn % 4 == 3 else written(programs[turn % 3], problem.verifier)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Path:
    """Explore, bundle, SFT and GRPO on data/code, all below here."""
    from conftest import ROOT

    out = tmp_path_factory.mktemp("code")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        prompt = small_prompt("recipes/prompts/prompt-code.yaml", out)
        for split, samples in (("train", 8), ("test", 4)):
            problems = f"data/code/{split}.jsonl"
            answer = exploring(read(Problem, problems), wrong_program)
            rollouts = explored(answer, tiny, problems, prompt, out / f"rollouts-{split}", samples)
            recipe = {"train": "bundle", "test": "bundle-test"}[split]
            changes = {
                "problems": problems, "rollouts": rollouts, "output_dir": out / f"bundles-{split}",
                "tokenizer": tiny, "k": 2, "bundles_per_problem": 2, "test_share": 0.0,
                "decontaminate_against": "data/code/test.jsonl" if split == "train" else "",
            }  # fmt: skip
            given = ["--config", f"recipes/mbpp-1.5b/{recipe}.yaml", *options(changes)]
            assert a2r("bundle", *given) == 0
        _train(out, "recipes/mbpp-1.5b", tiny, targets_of(str(out / "bundles-train/train.jsonl"), out))
    return out


def _train(out: Path, recipes: str, model: str, targets: str, tokens: int = 24) -> None:
    bundles = out / "bundles-train/train.jsonl"
    sft = {
        "model_name_or_path": model, "bundles": bundles, "output_dir": out / "sft", "targets": targets,
        "per_device_train_batch_size": 2, **{key: STEP[key] for key in STEP if key != "shared_prefix"},
    }  # fmt: skip
    assert status("sft", ["--config", f"{recipes}/sft.yaml", *options(sft)]) == 0
    grpo = {
        "model_name_or_path": out / "sft", "bundles": bundles, "output_dir": out / "grpo",
        "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": tokens,
        "validation": "", "eval_strategy": "no", "eval_on_start": False, "load_best_model_at_end": False,
        "use_vllm": False, **STEP,
    }  # fmt: skip
    assert status("grpo", ["--config", f"{recipes}/grpo.yaml", *options(grpo)]) == 0


def test_the_row_goes_through_all_stages(code: Path) -> None:
    tests = {p.id: p.metadata["test_list"] for p in read(Problem, "data/code/train.jsonl")}
    bundles = read(Bundle, str(code / "bundles-train/train.jsonl"))
    assert len(bundles) > 60
    assert all(b.metadata["test_list"] == tests[b.problem_id] for b in bundles)
    assert all(b.majority_answer == "" and b.majority_verdict == "unparsable" for b in bundles)
    assert (code / "bundles-train/task.yaml").read_text().count("fenced block")


def test_programs_are_judged_as_they_are(code: Path) -> None:
    rollouts = read(Rollout, str(code / "rollouts-train/rollouts.jsonl"))
    by_sample = [
        {r.verdict for r in rollouts if r.text.startswith(f"Let us see, {turn}.")} for turn in range(8)
    ]
    right, wrong, without = {"correct"}, {"incorrect"}, {"unparsable"}
    assert by_sample == [right, wrong, right, wrong, right, wrong, right, without]


def test_a_trained_checkpoint_carries_its_prompt(code: Path) -> None:
    for stage in ("sft", "grpo"):
        assert (code / stage / "model.safetensors").is_file()
        assert "fenced block" in (code / stage / "prompt.yaml").read_text()


def test_the_table_has_no_votes_and_says_why(
    code: Path, tiny: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    given = {
        "bundles": code / "bundles-test/train.jsonl", "rollouts": code / "rollouts-test/rollouts.jsonl",
        "output_dir": code / "evaluation", "base": tiny, "explorer": tiny, "grpo": code / "grpo", "sft": "",
        "no_references": "", "max_completion_tokens": 8, "max_bundles": 20, "temperature": 0.0, "draws": 200,
        "universal_self_consistency": True, "genselect": True, "prompt_override": True,
    }  # fmt: skip
    arguments = ["evaluate", "--config", "recipes/mbpp-1.5b/evaluate.yaml", *options(given)]
    assert a2r(*arguments, "--dry_run") == 0
    assert "No vote: answers of python_tests" in capsys.readouterr().out
    caplog.set_level("INFO")
    assert a2r(*arguments) == 0
    assert "over the vote" not in caplog.text
    results = json.loads((code / "evaluation/results.json").read_text())
    rows = {row["name"]: row["accuracy"] for row in results["rows"]}
    assert not [name for name in rows if name.startswith("maj@")]
    assert {"pass@1", "pass@2", "reference/random", "best-of-2/mbr-exec", "best-of-2/medoid"} <= rows.keys()
    assert {"genselect", "universal-self-consistency", "synthesizer/base", "synthesizer/grpo"} <= rows.keys()
    assert 0.3 < rows["pass@1"] < 0.7
    assert rows["best-of-2/mbr-exec"] >= rows["reference/random"]
    report = (code / "evaluation/report.md").read_text()
    assert "answers of python_tests cannot be counted, so there are no rows maj@k" in report
    assert a2r("rescore", str(code / "evaluation")) == 0


@pytest.mark.usefixtures("code")
def test_nothing_is_left_running() -> None:
    """But the workers and servers themselves, which wait for the next question, and Python's own helpers."""
    ours = ("a2r_train", "multiprocessing.resource_tracker", "multiprocessing.forkserver")
    waiting = {pid for pid, name in running_below(os.getpid()).items() if any(one in name for one in ours)}
    assert not still_running(waiting)


def test_what_is_kept_holds_no_text_of_a_problem(code: Path, tmp_path: Path) -> None:
    bundles, rollouts = code / "bundles-test/train.jsonl", code / "rollouts-test/rollouts.jsonl"
    golds, problems = tmp_path / "golds.jsonl", "data/code/test.jsonl"
    kept = keep_bundles(bundles, tmp_path / "bundles.kept.json", rollouts, golds, problems)
    assert "def " not in golds.read_text()
    assert bundles_of(str(kept)) == read(Bundle, str(bundles))


GYM = "reasoning_gym:knights_knaves,number_sequence?size=8&seed=1"


def test_reasoning_gym_through_all_stages(tmp_path: Path, tiny: str) -> None:
    pytest.importorskip("reasoning_gym")
    prompt = small_prompt("recipes/prompts/prompt-tagged.yaml", tmp_path)
    problems = read(Problem, GYM)
    assert {p.source for p in problems} == {"knights_knaves", "number_sequence"}
    answer = exploring(problems, lambda problem, _: written("no such answer", problem.verifier))
    rollouts = explored(answer, tiny, GYM, prompt, tmp_path / "rollouts", 4)
    judged = read(Rollout, rollouts)
    assert [r.verdict for r in judged].count("correct") == len(judged) / 2
    changes = {
        "problems": GYM, "rollouts": rollouts, "output_dir": tmp_path / "bundles-train", "tokenizer": tiny,
        "k": 2, "bundles_per_problem": 1, "test_share": 0.0,
    }  # fmt: skip
    assert a2r("bundle", "--config", "recipes/reasoning-gym/bundle.yaml", *options(changes)) == 0
    bundles = read(Bundle, str(tmp_path / "bundles-train/train.jsonl"))
    assert all(b.metadata["entry"]["question"] == b.problem for b in bundles)
    assert {b.majority_answer for b in bundles} - {""}
    targets = targets_of(str(tmp_path / "bundles-train/train.jsonl"), tmp_path)
    _train(tmp_path, "recipes/reasoning-gym", tiny, targets, 64)
    assert (tmp_path / "grpo" / "model.safetensors").is_file()
