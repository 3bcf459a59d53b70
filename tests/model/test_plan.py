"""`a2r run --dry_run`: every recipe, prompt and column of a folder is read, and what would fail is said."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import a2r, write_rows

from a2r_train import output
from a2r_train.commands.plan import ARGUMENTS, plan
from a2r_train.commands.run import stages
from a2r_train.config import MARKS, parse
from a2r_train.data import bundle as bundling
from a2r_train.data import explore as exploring
from a2r_train.data.read import read
from a2r_train.records import Problem
from a2r_train.train import run as training

Folder = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, problems: str, tiny: str, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder of recipes that would run; the changes are by stage."""
    monkeypatch.chdir(tmp_path)
    grpo = {"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 8}
    recipes: dict[str, dict[str, Any]] = {
        "explore": {"problems": problems, "model": tiny, "output_dir": "runs/rollouts"},
        "bundle": {
            "problems": problems,
            "rollouts": "runs/rollouts/rollouts.jsonl",
            "output_dir": "runs/bundles",
            "test_share": 0.3,
        },
        "sft": {"model_name_or_path": tiny, "bundles": "runs/bundles/train.jsonl", "output_dir": "runs/sft"},
        "grpo": {
            "model_name_or_path": "runs/sft",
            "bundles": "runs/bundles/train.jsonl",
            "output_dir": "runs/grpo",
            **grpo,
        },
        "evaluate": {
            "bundles": "runs/bundles/test.jsonl",
            "base": tiny,
            "grpo": "runs/grpo",
            "output_dir": "runs/evaluation",
        },
    }
    for verb in ("sft", "grpo"):
        recipes[verb] |= {"use_cpu": True, "report_to": "none"}

    def write(**changes: dict[str, Any]) -> str:
        (tmp_path / "mine").mkdir()
        for verb, recipe in recipes.items():
            text = yaml.safe_dump({**recipe, **changes.get(verb, {})})
            (tmp_path / "mine" / f"{verb}.yaml").write_text(text)
        return "mine"

    return write


def test_a_folder_that_would_run_has_no_error(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert a2r("run", folder(), "--dry_run") == 0
    shown = capsys.readouterr().out
    stages, _, prompt = shown.partition("--- the first prompt, of mine/explore.yaml\n")
    lines = stages.splitlines()
    assert [line.split()[2] for line in lines if line.startswith("to do")] == [
        "explore",
        "bundle",
        "sft",
        "grpo",
        "evaluate",
    ]
    said = [line.strip() for line in lines if line.startswith("       ")]
    assert re.fullmatch(
        r"(\d+) problems, golds read \1 by math; \d+ rollouts of at most 1024 tokens", said[0]
    )
    assert re.fullmatch(
        r"\d+ problems, \d+ of them \(\d+%\) the test set; at most 2 bundles of 4 .*", said[1]
    )
    assert said[2].startswith("the test set has 2 problems, too few to show most differences")
    assert said[3] == "waits for runs/bundles/train.jsonl, which mine/bundle.yaml writes"
    assert said[-1].startswith("rows to generate: synthesizer/alone, synthesizer/base, synthesizer/grpo")
    assert prompt.count("<|im_start|>user") == 1
    assert prompt.endswith("\n---\n")
    assert not (tmp_path / "runs").exists()


def test_a_control_that_matches_tokens_comes_after_the_run_that_generates_them(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder()
    control = yaml.safe_load(Path("mine/grpo.yaml").read_text())
    control |= {"output_dir": "runs/control", "match_tokens_of": "runs/grpo", "plain_share": 1.0}
    control["lr_scheduler_type"] = "constant"
    Path("mine/grpo-no-references.yaml").write_text(yaml.safe_dump(control))
    names = [path.name for _, path in stages(place)]
    assert names.index("grpo-no-references.yaml") == names.index("grpo.yaml") + 1
    assert a2r("run", place, "--dry_run") == 0
    assert "waits for runs/grpo, which mine/grpo.yaml writes" in capsys.readouterr().out
    change("mine/grpo-no-references.yaml", match_tokens_of="runs/gpro")
    assert a2r("run", place, "--dry_run") == 2
    assert "fails: match_tokens_of: runs/gpro is not a finished training" in capsys.readouterr().out


INPUTS = {"explore": exploring.INPUTS, "bundle": bundling.INPUTS, "evaluate": ()}


def finish(verb: str, **said: Any) -> None:
    """As if the stage of this recipe had been run."""
    configs = parse(ARGUMENTS[verb], ["--config", f"mine/{verb}.yaml"])
    recipe = training.resolved(*configs) if verb in ("sft", "grpo") else asdict(configs[0])
    output.prepare(recipe["output_dir"], recipe, lock="", inputs=INPUTS.get(verb, training.INPUTS))
    output.finish(recipe["output_dir"], said)


def change(recipe: str, **keys: Any) -> None:
    path = Path(recipe)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))


def errors_of(verb: str) -> list[str]:
    """What the dry run says of one stage; later ones would miss what `finish` has not written."""
    (stage,) = [one for one in plan(stages("mine")) if one.verb == verb]
    return stage.errors


WRONG: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "a misspelt key": (
        {"explore": {"temprature": 1}},
        "unknown key 'temprature'; did you mean 'temperature'?",
    ),
    "a column": (
        {"explore": {"columns": {"problem": "quest"}}},
        "columns: none of the files has a column 'quest'",
    ),
    "a column of bundle": (
        {"bundle": {"columns": {"answer": "gold"}}},
        "columns: none of the files has a column 'gold'",
    ),
    "a prompt": ({"sft": {"prompt": "none.yaml"}}, "none.yaml: No such file"),
    "another prompt": (
        {"sft": {"prompt": "one.yaml"}, "grpo": {"prompt": "two.yaml"}},
        "mine/grpo.yaml: prompt two.yaml differs from that of mine/sft.yaml, whose model it asks",
    ),
    "a model": ({"evaluate": {"explorer": "./nowhere"}}, "./nowhere: no such folder or file"),
    "what no stage writes": (
        {"grpo": {"bundles": "runs/bundles/tran.jsonl"}},
        "mine/grpo.yaml: bundles: mine/bundle.yaml writes runs/bundles/train.jsonl",
    ),
    "no test set": (
        {"bundle": {"test_share": 0.0}},
        "mine/evaluate.yaml: bundles: mine/bundle.yaml writes runs/bundles/train.jsonl, not runs/",
    ),
    "too few samples": (
        {"explore": {"samples_per_problem": 3}},
        "mine/bundle.yaml: k 4, but mine/explore.yaml makes 3 samples per problem; lower k",
    ),
    "a share": ({"bundle": {"test_share": 2}}, "test_share is 2; expected 0 or more, and less than 1"),
    "a greedy GRPO": ({"grpo": {"temperature": 0.0}}, "temperature is 0: GRPO learns from differences"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_fail_is_said_before_anything_runs(
    case: str, folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, says = WRONG[case]
    for name, text in (("one", "{problem} {references}"), ("two", "{references} {problem}")):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"synthesizer_template": text}))
    assert a2r("run", folder(**changes), "--dry_run") == 2
    shown = capsys.readouterr()
    failing = [line for line in shown.out.splitlines() if line.startswith("       fails: ")]
    assert len(failing) == 1
    assert says in failing[0]
    assert "error: mine: 1 of 5 stages would fail; see above\n" in shown.err
    assert not (tmp_path / "runs").exists()


def test_the_samples_of_several_explorers_add_up_to_k(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    both = "runs/rollouts/rollouts.jsonl,runs/more/rollouts.jsonl"
    place = folder(explore={"samples_per_problem": 3}, bundle={"rollouts": both})
    recipe = yaml.safe_load(Path(place, "explore.yaml").read_text())
    Path(place, "explore-more.yaml").write_text(yaml.safe_dump(recipe | {"output_dir": "runs/more"}))
    assert a2r("run", place, "--dry_run") == 0
    change("mine/explore.yaml", samples_per_problem=2)
    change("mine/explore-more.yaml", samples_per_problem=1)
    capsys.readouterr()
    assert a2r("run", place, "--dry_run") == 2
    says = "makes, together with mine/explore-more.yaml, 3 samples per problem; lower k"
    assert f"fails: mine/bundle.yaml: k 4, but mine/explore.yaml {says}" in capsys.readouterr().out


def test_a_problem_that_fits_no_prompt_is_said_before_it_is_explored(
    folder: Folder, tiny: str, problems: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in Path(problems).read_text().splitlines()]
    rows[2]["problem"] += " and" * 20000
    write_rows(Path(problems), rows)
    assert a2r("run", folder(bundle={"tokenizer": tiny}), "--dry_run") == 2
    said = capsys.readouterr().out
    assert f"fails: {problems}: problem {rows[2]['id']!r} alone is a prompt of " in said
    assert "tokens over the budget of 16384; leave it out, or raise max_prompt_tokens" in said


def test_a_prompt_that_overrides_may_differ(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("one", "{problem} {references}"), ("two", "{references} {problem}")):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"synthesizer_template": text}))
    changes = {"sft": {"prompt": "one.yaml"}, "grpo": {"prompt": "two.yaml", "prompt_override": True}}
    assert a2r("run", folder(**changes), "--dry_run") in (0, 2)
    assert "whose model it asks" not in capsys.readouterr().out


def test_a_stage_that_is_done_is_not_checked_again(
    folder: Folder, tmp_path: Path, bundles: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(explore={"problems": "gone.jsonl"}, bundle={"problems": "gone.jsonl"})
    finish("explore", rollouts=480, **{"pass@1": 0.4229})
    finish("bundle")
    rows = [json.loads(line) for line in Path(bundles).read_text().splitlines()]
    for name in ("train", "test"):
        write_rows(tmp_path / "runs" / "bundles" / f"{name}.jsonl", rows)
    assert a2r("run", place, "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines if line[:1] != " "] == ["done "] * 2 + ["to do"] * 3
    assert lines[1] == "       rollouts 480, pass@1 0.423"
    said = [line for line in lines if "bundles; checks: " in line]
    assert len(said) == 1  # SFT; GRPO waits for it
    assert re.search(
        r"\d+ bundles; checks: \d+ green, \d yellow \(targets: at most \d+ targets, too few", said[0]
    )


CHANGED: dict[str, dict[str, Any]] = {
    "explore": {"temperature": 0.5},
    "bundle": {"k": 3},
    "sft": {"learning_rate": 0.5},
    "grpo": {"reward_weights": [1.0]},
    "evaluate": {"temperature": 0.5},
}


@pytest.mark.parametrize("verb", CHANGED)
def test_a_stage_that_is_done_with_another_key_is_what_the_run_refuses(verb: str, folder: Folder) -> None:
    folder()
    finish(verb)
    assert not errors_of(verb)
    change(f"mine/{verb}.yaml", **CHANGED[verb])
    (says,) = errors_of(verb)
    (key,) = CHANGED[verb]
    assert f"belongs to another run ({key}: " in says


@pytest.mark.parametrize("done", [True, False])
def test_a_folder_is_refused_in_the_words_of_the_run(
    done: bool, folder: Folder, problems: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Path(write_rows(Path("mine.jsonl"), map(json.loads, Path(problems).read_text().splitlines())))
    folder(explore={"problems": "mine.jsonl"})
    finish("explore")
    Path("runs/rollouts/rollouts.jsonl").touch()
    if not done:
        Path("runs/rollouts/done.json").unlink()
    mine.write_text(mine.read_text() + "\n")
    assert a2r("run", "mine", "--dry_run") == 2
    shown = capsys.readouterr().out
    assert a2r("explore", "--config", "mine/explore.yaml") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: runs/rollouts: mine.jsonl has changed since this run")
    assert f"       fails: {said.removeprefix('error: ')}\n" in shown


def test_what_a_training_settles_itself_is_no_change(folder: Folder) -> None:
    folder()
    finish("grpo")
    begun = Path("runs/grpo/config.yaml")
    settled = {"reward_weights": [1.0, 0.3, 0.2], "steps_per_generation": 4, "generation_batch_size": 64}
    begun.write_text(yaml.safe_dump(yaml.safe_load(begun.read_text()) | settled))
    assert not errors_of("grpo")
    begun.write_text(yaml.safe_dump(yaml.safe_load(begun.read_text()) | {"reward_weights": [0.5]}))
    assert "(reward_weights: [0.5] there, None here)" in errors_of("grpo")[0]


def test_the_marks_of_a_stage_are_keys_of_its_own_alone() -> None:
    known = {
        verb: {name for kind in kinds for name in kind.__dataclass_fields__}
        for verb, kinds in ARGUMENTS.items()
    }
    for verb, keys in MARKS.items():
        assert verb not in known or {*keys} <= known[verb], verb
    for verb, keys in known.items():
        for other, marks in MARKS.items():
            assert other == verb or not keys & {*marks}, (verb, other)


def test_problems_that_share_their_first_words_are_said_before_they_are_explored(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thirteen equal words in a row are like an evaluation problem, also where they are an instruction."""
    asked = "Solve this problem step by step, and write only the final answer in a box:"
    path = str(tmp_path / "words.jsonl")
    mine = folder(explore={"problems": path}, bundle={"problems": path})
    for every, says in ((2, r"\d+ problem\(s\) like one .* left out; at most"), (1, "fails: .*all \\d+")):
        texts = [f"{'' if i % every else asked} {i} + 1?" for i in range(40)]
        write_rows(Path(path), [{"problem": text, "answer": str(i + 1)} for i, text in enumerate(texts)])
        a2r("run", mine, "--dry_run")
        assert re.search(says, capsys.readouterr().out)


def test_several_files_are_counted_as_they_are_bundled(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ids begin with the name of their file, and a hash of the ids makes the test set."""
    paths = [
        write_rows(
            tmp_path / f"{name}.jsonl", [{"problem": f"{name} {i}?", "answer": "1"} for i in range(50)]
        )
        for name in "ab"
    ]
    both = ",".join(paths)
    config = bundling.BundleConfig("", "", test_share=0.3)
    tests = len(bundling.ids_of_test(read(Problem, both), config))
    a2r("run", folder(explore={"problems": both}, bundle={"problems": both}), "--dry_run")
    assert f"100 problems, {tests} of them ({tests}%) the test set" in capsys.readouterr().out
