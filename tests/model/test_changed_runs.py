"""A folder of a run whose prompt, model or verifier is another now: neither done already, nor continued."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import bundle_with, files_of, write_rows
from test_train import GRPO, QUICK, arguments, bundle, files, sft_arguments  # noqa: F401

from a2r_train.commands.export import ExportConfig, export
from a2r_train.commands.plan import plan
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.errors import InputError
from a2r_train.models import PART_BYTES, PARTS, weights_digest
from a2r_train.records import Problem, Synthesis, write
from a2r_train.train import grpo, sft

PROMPT = 'prompt:\n  synthesizer_template: "%s \\\\boxed{{}} {problem} {references}"\n'
HAS_CHANGED = " has changed since this run"


def unfinished(folder: Path) -> None:
    """As a kill after the first step leaves it."""
    (folder / "done.json").unlink()
    shutil.rmtree(folder / "checkpoint-2")


@pytest.mark.parametrize("is_finished", [True, False])
def test_another_prompt_of_the_bundles_makes_another_training(
    is_finished: bool,
    files: Path,  # noqa: F811
    tiny: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The recipe names no prompt, and bundles made again with another are the same bytes."""
    (files / "task.yaml").write_text(PROMPT % "One")
    given = sft_arguments(files, tiny, "sft")
    assert sft.main(given) == 0
    if not is_finished:
        unfinished(files / "sft")
    (files / "task.yaml").write_text(PROMPT % "Two")
    recipe = files / "recipe" / "sft.yaml"
    recipe.parent.mkdir()
    keys = zip(given[::2], given[1::2], strict=True)
    recipe.write_text("".join(f"{key[2:]}: {value}\n" for key, value in keys))
    capsys.readouterr()
    assert sft.main(given) == 2
    says = f"the prompt{HAS_CHANGED} (synthesizer_template); name another output folder, or remove this one"
    assert capsys.readouterr().err.endswith(f"{files}/sft: {says}\n")
    assert [f"{files}/sft: {says}"] == next(plan([("sft", recipe)])).errors
    assert "One" in (files / "sft" / "prompt.yaml").read_text()
    if not is_finished:  # whoever names the checkpoint means it
        assert sft.main([*given, "--resume_from_checkpoint", str(files / "sft" / "checkpoint-1")]) == 0
        assert "Two" in (files / "sft" / "prompt.yaml").read_text()
        return
    (files / "task.yaml").write_text(PROMPT % "One")
    assert sft.main(given) == 0


def test_targets_of_another_prompt_or_verifier_are_not_trained_on(
    files: Path,  # noqa: F811
    tiny: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the first checkpoint a folder fixes what its sampled targets depend on."""
    code = files / "judge_of_targets.py"
    code.write_text("def judge(answer, gold):\n    return answer == gold\n")
    monkeypatch.syspath_prepend(str(files))
    judged = [replace(bundle(i), verifier="judge_of_targets:judge") for i in range(4)]
    write(judged, files / "bundles.jsonl")
    (files / "task.yaml").write_text(PROMPT % "One")
    given = arguments(files, tiny, "sft", *QUICK, "--target_samples", "1", "--max_target_tokens", "12")
    assert sft.main(given) == 2
    rows = [Synthesis("b0", 0, r"It is \boxed{5}", "5", "correct", 1, 1, "stop", "m", 0)]
    write(rows, files / "sft" / "targets.jsonl")
    before = code.read_text()
    code.write_text("def judge(answer, gold):\n    return False\n")
    capsys.readouterr()
    assert sft.main(given) == 2
    assert f"verifier judge_of_targets:judge{HAS_CHANGED}" in capsys.readouterr().err
    code.write_text(before)
    (files / "task.yaml").write_text(PROMPT % "Two")
    assert sft.main(given) == 2
    assert f"the prompt{HAS_CHANGED} (synthesizer_template)" in capsys.readouterr().err
    (files / "task.yaml").write_text(PROMPT % "One")
    assert sft.main(given) == 0


def _base(files: Path, model: str) -> list[str]:  # noqa: F811
    return [str(grpo.main(arguments(files, model, "out", *GRPO)))]


def _teacher(files: Path, model: str) -> list[str]:  # noqa: F811
    asked = [bundle_with(Problem(f"p{i}", f"{i}?", "3"), ("3", "7"), f"b{i}") for i in range(4)]
    write(asked, files / "bundles.jsonl")  # the teacher says 3 or 6
    keys = ("--teacher", model, "--max_target_tokens", "12")
    return [str(sft.main(arguments(files, str(files / "other"), "out", *QUICK, *keys)))]


def _explorer(files: Path, model: str) -> list[str]:  # noqa: F811
    problems = write_rows(files / "problems.jsonl", [{"problem": "1 + 1?", "answer": "2"}])
    try:
        explore(
            ExploreConfig(
                problems=problems,
                model=model,
                output_dir=str(files / "out"),
                samples_per_problem=1,
                max_completion_tokens=4,
            )
        )
    except InputError as error:
        return ["2", str(error)]
    return ["0"]


def _matched(files: Path, model: str) -> list[str]:  # noqa: F811
    constant = ("--lr_scheduler_type", "constant_with_warmup", "--plain_share", "1")
    matched = ("--match_tokens_of", model)
    return [str(grpo.main(arguments(files, str(files / "other"), "out", *GRPO, *constant, *matched)))]


@pytest.mark.parametrize("run", [_base, _teacher, _explorer, _matched])
def test_a_model_that_was_trained_again_makes_another_run(
    run: Callable[[Path, str], list[str]],
    files: Path,  # noqa: F811
    tiny: str,
    speaking: str,
    other_tiny: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = files / "model"
    shutil.copytree(tiny, files / "other")
    if run is _matched:
        assert grpo.main(arguments(files, tiny, "model", *GRPO)) == 0
    else:
        shutil.copytree(speaking if run is _teacher else tiny, model)
    assert run(files, str(model)) == ["0"]
    shutil.copytree(model, files / "copy")  # with other times
    shutil.rmtree(model)
    shutil.copytree(files / "copy", model, copy_function=shutil.copyfile)
    assert run(files, str(model)) == ["0"]
    for file in Path(other_tiny).glob("*.safetensors"):
        shutil.copyfile(file, model / file.name)
    capsys.readouterr()
    code, *said = run(files, str(model))
    says = f"{files}/out: model {model}{HAS_CHANGED}; name another output folder, or remove this one"
    assert (code, (said or [capsys.readouterr().err])[0].endswith((says, f"{says}\n"))) == ("2", True)


def test_an_adapter_changes_with_its_base(tmp_path: Path) -> None:
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"1")
    config = {"base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    before = weights_digest(str(tmp_path / "adapter"))
    (tmp_path / "base" / "model.safetensors").write_bytes(b"2")
    assert weights_digest(str(tmp_path / "adapter")) != before
    assert weights_digest(str(tmp_path)) == weights_digest("owner/of-the-hub") == ""


def test_a_large_file_is_read_in_parts_up_to_its_ends(tmp_path: Path) -> None:
    path, size = tmp_path / "model.safetensors", 2 * PARTS * PART_BYTES
    with open(path, "wb") as file:
        file.truncate(size)
    found = {weights_digest(str(tmp_path))}
    for at in (0, size // 2 + PART_BYTES, size - 1):
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(b"x" * min(2 * PART_BYTES, size - at))
        found.add(weights_digest(str(tmp_path)))
    assert len(found) == 4


def test_an_export_of_a_trained_model_may_have_the_prompt_of_the_data(files: Path, tiny: str) -> None:  # noqa: F811
    shutil.copytree(tiny, files / "trained")
    (files / "trained/prompt.yaml").write_text('explorer_template: "Other: \\\\boxed{{}} {problem}"\n')
    (files / "task.yaml").write_text(PROMPT % "The data")
    config = ExportConfig(
        str(files / "bundles.jsonl"), str(files / "out"), str(files / "trained"), dry_run=True
    )
    assert "The data" not in export(config)
    assert "The data" in export(replace(config, prompt_override=True))


def test_an_export_with_another_prompt_is_not_done_already(files: Path, tiny: str) -> None:  # noqa: F811
    config = ExportConfig(str(files / "bundles.jsonl"), str(files / "out"), tiny)
    (files / "task.yaml").write_text(PROMPT % "One")
    command = export(config)
    before = files_of(files / "out")
    assert export(config) == command
    (files / "task.yaml").write_text(PROMPT % "Two")
    with pytest.raises(InputError, match=f"the prompt or the tokenizer{HAS_CHANGED}; name another output"):
        export(config)
    assert files_of(files / "out") == before
