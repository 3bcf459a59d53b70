"""The task goes with the data: prompt, thinking switch, verifier and columns are said once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CHAT_TEMPLATE, a2r, bundle_with, options, save_tiny, write_rows

from a2r_train.data.read import read
from a2r_train.data.rollouts import judged_bundles
from a2r_train.data.task import Task, check_asked, prompt_of
from a2r_train.errors import InputError
from a2r_train.prompts import Chat, PromptConfig, Prompter
from a2r_train.records import Bundle, Problem, Rollout

SWITCH = CHAT_TEMPLATE.replace(
    "<|im_start|>assistant\n",
    "<|im_start|>assistant\n{% if not think | default(true) %}<think></think>{% endif %}",
)
CLOSE = "def first(answer, gold):\n    return answer[:1] == gold[:1]\n"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_tiny(tmp_path / "switch", seed=4, chat_template=SWITCH)


@pytest.fixture
def explored(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rollouts of a recipe folder whose task.yaml says everything once."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "close.py").write_text(CLOSE)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "prompt.yaml").write_text('explorer_template: "Q: {problem}"\n')
    write_rows(folder / "problems.jsonl", [{"task": f"{i} more?", "gold": "5"} for i in range(8)])
    task = {
        "prompt": str(folder / "prompt.yaml"),
        "verifier": "close.first",
        "columns": {"problem": "task", "answer": "gold"},
        "chat_template_kwargs": {"think": False},
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(task))
    recipe = {
        "problems": str(folder / "problems.jsonl"),
        "model": model,
        "output_dir": str(tmp_path / "rollouts"),
        "samples_per_problem": 4,
        "max_completion_tokens": 4,
    }
    (folder / "explore.yaml").write_text(yaml.safe_dump(recipe))
    assert a2r("explore", "--config", str(folder / "explore.yaml")) == 0
    return tmp_path / "rollouts" / "rollouts.jsonl"


def right(path: Path) -> str:
    """The rollouts with one right text a problem, as random weights write none; the task stays beside
    them.
    """
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row |= {
            "text": r"\boxed{5.1}" if row["sample"] == 0 else rf"\boxed{{{row['sample']}}}",
            "verdict": "unverified",
        }
    return write_rows(path, rows)


def test_rollouts_carry_the_task(explored: Path) -> None:
    task = yaml.safe_load((explored.parent / "task.yaml").read_text())
    assert task["verifier"] == "close.first"
    assert task["columns"] == {"problem": "task", "answer": "gold"}
    assert task["prompt"]["explorer_template"] == "Q: {problem}"
    assert task["prompt"]["chat_template_kwargs"] == {"think": False}
    assert len(read(Rollout, str(explored))) == 32


def test_bundles_and_a_training_inherit_it(
    explored: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys: dict[str, Any] = {
        "rollouts": right(explored),
        "problems": "mine/problems.jsonl",
        "output_dir": "bundles",
    }
    assert a2r("bundle", *options(keys), "--tokenizer", model) == 0
    bundles = read(Bundle, "bundles/train.jsonl")
    assert {bundle.verifier for bundle in bundles} == {"close.first"}
    assert {bundle.n_correct for bundle in bundles} == {1}
    capsys.readouterr()
    training = {
        "bundles": "bundles/train.jsonl",
        "model_name_or_path": model,
        "output_dir": "out",
        "use_cpu": True,
    }
    from a2r_train.train import grpo

    small = {
        "num_generations": 2,
        "per_device_train_batch_size": 2,
        "max_completion_length": 16,
        "max_steps": 1,
    }
    assert grpo.main([*options(training | small), "--report_to", "none"]) == 0
    kept = PromptConfig.load(Path("out/prompt.yaml"))
    assert kept.chat_template_kwargs == {"think": False}
    assert kept.explorer_template == "Q: {problem}"


def test_rollouts_are_bundled_again_for_another_synthesizer_prompt(
    explored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = 'explorer_template: "Q: {problem}"\nchat_template_kwargs: {think: false}\n'
    Path("judge.yaml").write_text(same + 'synthesizer_template: "{problem} by {references}"\n')
    Path("asks.yaml").write_text(same.replace("Q:", "Other:"))
    right(explored)
    keys = {"rollouts": str(explored), "problems": "mine/problems.jsonl", "k": 2, "output_dir": "again"}
    assert a2r("bundle", *options({**keys, "prompt": "judge.yaml"})) == 0
    carried = yaml.safe_load(Path("again/task.yaml").read_text())["prompt"]
    assert carried["synthesizer_template"] == "{problem} by {references}"
    assert a2r("bundle", *options({**keys, "prompt": "asks.yaml", "output_dir": "other"})) == 2
    assert "explorer_template differs from" in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoints_own_prompt_is_told_where_the_data_has_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "trained"
    model.mkdir()
    (model / "prompt.yaml").write_text(PromptConfig(system="own").dump())
    task = Task(PromptConfig(system="data"), place="data/task.yaml")
    assert [prompt_of(str(model), task=task).system for _ in range(2)] == ["own", "own"]
    says = (
        "is asked with the prompt that it was trained with, not with that of data/task.yaml: system differs"
    )
    assert [says in message for message in caplog.messages] == [True]
    assert prompt_of(str(model), task=task, override=True).system == "data"


def test_a_box_is_not_asked_for_where_a_verifier_reads_another_place() -> None:
    for template in ("explorer_template", "synthesizer_template"):
        check_asked({"math"}, PromptConfig(), template)
        with pytest.raises(
            InputError, match=rf"{template} asks for \\boxed{{}}, which python_tests does not"
        ):
            check_asked({"python_tests"}, PromptConfig(), template)


@pytest.mark.usefixtures("explored")
def test_references_are_judged_by_a_verifier_as_it_is_now(caplog: pytest.LogCaptureFixture) -> None:
    """Of one's own, which may have been edited since, or with a gold that was corrected; a text without an
    answer keeps its verdict, or is judged by the answer that came with it.
    """
    problem = Problem("p", "?", "5", "close.first")
    texts = [r"\boxed{57}", r"\boxed{7}", "so 57"]
    made = bundle_with(
        problem, ["57", "7", "57"], texts=texts, verdicts=["incorrect", "incorrect", "correct"]
    )
    old = bundle_with(Problem("q", "?", "6"), ["5", "5", ""], texts=[r"\boxed{5}", "5", "-"])
    found, other = judged_bundles([made, replace(old, answer="5")], "b.jsonl", PromptConfig())
    assert [r.verdict for r in found.references] == ["correct", "incorrect", "correct"]
    assert (found.n_correct, found.majority_verdict) == (2, "correct")
    assert [r.verdict for r in other.references] == ["correct", "correct", "unparsable"]
    assert (other.n_correct, other.majority_verdict, other.answer) == (2, "correct", "5")
    assert "b.jsonl: 3 of 6 references get another verdict than when they were bundled" in caplog.text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--verifier", "math"], "verifier is 'math' here, but 'close.first' in"),
        (["--prompt", "other.yaml"], "other.yaml: explorer_template differs from"),
    ],
)
def test_another_value_downstream_is_refused_in_one_line(
    more: list[str], says: str, explored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.yaml").write_text("explorer_template: 'P: {problem}'\n")
    capsys.readouterr()
    keys = {"rollouts": right(explored), "problems": "mine/problems.jsonl", "output_dir": "bundles"}
    assert a2r("bundle", *options(keys), *more) == 2
    error = capsys.readouterr().err
    assert says in error
    assert str(Path("rollouts") / "task.yaml") in error
    assert error.count("\n") == 1


def test_a_recipe_may_not_say_otherwise_than_its_folder(
    explored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "rollouts": str(explored),
        "output_dir": "b",
        "problems": "mine/problems.jsonl",
        "verifier": "exact",
    }
    Path("mine/bundle.yaml").write_text(yaml.safe_dump(recipe))
    capsys.readouterr()
    assert a2r("bundle", "--config", "mine/bundle.yaml") == 2
    error = capsys.readouterr().err
    assert "mine/bundle.yaml: verifier is 'exact', but mine/task.yaml sets 'close.first'" in error


def test_the_thinking_switch_reaches_the_template(model: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    on, off = (
        Prompter(tokenizer, PromptConfig(chat_template_kwargs=kwargs)) for kwargs in ({}, {"think": False})
    )
    assert off.text(off.explorer("x")) == on.text(on.explorer("x")) + "<think></think>"
    plain = Chat([{"role": "user", "content": "x"}])
    assert off.text(plain) == on.text(plain)  # the chat carries the switch, not the tokenizer


@pytest.fixture
def chain(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe folder without explore, whose rows hold their generations; task.yaml has the switch alone."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "chain"
    folder.mkdir()
    texts = [r"\boxed{5}", r"\boxed{6}", r"\boxed{5}", r"\boxed{7}"]
    rows = [{"problem": f"{i} more?", "answer": "5", "generations": texts} for i in range(4)]
    write_rows(folder / "rows.jsonl", rows)
    training = {
        "bundles": "b/train.jsonl", "use_cpu": True, "report_to": "none", "save_strategy": "no",
        "per_device_train_batch_size": 2, "max_steps": 1,
    }  # fmt: skip
    recipes: dict[str, dict[str, Any]] = {
        "task": {"chat_template_kwargs": {"think": False}},
        "bundle": {"rollouts": "chain/rows.jsonl", "output_dir": "b", "k": 2, "tokenizer": model},
        "sft": {
            **training, "model_name_or_path": model, "output_dir": "sft", "targets": "targets.jsonl",
        },
        "grpo": {
            **training, "model_name_or_path": "sft", "output_dir": "grpo", "num_generations": 2,
            "max_completion_length": 16,
        },
        "evaluate": {
            "bundles": "b/train.jsonl", "output_dir": "e", "base": model, "sft": "sft", "allow_overlap": True,
        },
        "export": {"bundles": "b/train.jsonl", "output_dir": "x", "model": model},
    }  # fmt: skip
    for name, recipe in recipes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def with_targets() -> None:
    found = read(Bundle, "b/train.jsonl")
    write_rows(Path("targets.jsonl"), [{"bundle_id": b.id, "text": r"\boxed{5}"} for b in found])


def test_the_first_stage_of_a_chain_carries_the_switch(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from a2r_train.train import grpo, sft

    assert a2r("bundle", "--config", str(chain / "bundle.yaml")) == 0
    carried = yaml.safe_load(Path("b/task.yaml").read_text())
    assert carried["prompt"]["chat_template_kwargs"] == {"think": False}
    with_targets()
    for stage in (sft, grpo):
        name = stage.__name__.rpartition(".")[2]
        assert stage.main(["--config", str(chain / f"{name}.yaml")]) == 0, capsys.readouterr().err
        assert PromptConfig.load(Path(name, "prompt.yaml")).chat_template_kwargs == {"think": False}
    capsys.readouterr()
    assert a2r("evaluate", "--config", str(chain / "evaluate.yaml"), "--dry_run") == 0
    assert "<think></think>" in capsys.readouterr().out


@pytest.mark.parametrize("first", ["sft", "evaluate", "export"])
def test_a_later_stage_takes_it_where_it_is_the_first(
    first: str, chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on bundles that come from elsewhere, without a task beside them."""
    from a2r_train.train import sft

    assert a2r("bundle", "--config", str(chain / "bundle.yaml")) == 0
    Path("b/task.yaml").unlink()
    with_targets()
    capsys.readouterr()
    more = ["--sft", ""] if first == "evaluate" else []
    argv = ["--config", str(chain / f"{first}.yaml"), "--dry_run", *more]
    assert (sft.main(argv) if first == "sft" else a2r(first, *argv)) == 0
    shown = capsys.readouterr().out
    assert "think" in shown
    assert "<think></think>" in shown or first == "export"


def test_another_switch_than_that_of_the_data_is_refused(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert a2r("bundle", "--config", str(chain / "bundle.yaml")) == 0
    (chain / "task.yaml").write_text("chat_template_kwargs: {think: true}\n")
    capsys.readouterr()
    assert a2r("evaluate", "--config", str(chain / "evaluate.yaml"), "--sft", "", "--dry_run") == 2
    error = capsys.readouterr().err
    assert "chat_template_kwargs are {'think': True} here, but {'think': False} in b/task.yaml" in error
    assert error.count("\n") == 1
