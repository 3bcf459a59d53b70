"""`a2r run` refuses a file that it would leave out because of its name, and no file that belongs there."""

from pathlib import Path

import pytest

from a2r_train.commands.run import ORDER, check_names, run, stages
from a2r_train.config import task_keys
from a2r_train.errors import InputError

ROOT = Path(__file__).parents[2]
RECIPE = "output_dir: out\n"


def checked(folder: Path) -> list[str]:
    """The stages of a folder in which no file is misnamed."""
    found = stages(str(folder))
    check_names(str(folder), found)
    return [stage for stage, _ in found]


@pytest.mark.parametrize(
    ("name", "text", "remedy"),
    [
        ("evaluate.yml", RECIPE, "rename it to evaluate.yaml"),
        ("task.yml", "verifier: exact\n", "rename it to task.yaml"),
        ("tasks.yaml", "verifier: exact\n", "rename it to task.yaml"),
        ("grpo_no_references.yaml", RECIPE, "rename it to grpo-no-references.yaml"),
        ("SFT.yaml", RECIPE, "rename it to sft.yaml"),
        ("evalute.yaml", RECIPE, "rename it to evaluate.yaml"),
        ("train.yaml", RECIPE, "name it STAGE-NAME.yaml, or move it elsewhere"),
    ],
)
def test_a_misnamed_file_is_refused_before_any_stage_runs(
    name: str, text: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / "explore.yaml").write_text("no_key: 1\n")  # would fail if it were started
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as refused:
        run(str(tmp_path))
    says = "a2r run would leave it out: its name is not that of a stage"
    assert str(refused.value) == f"{tmp_path / name}: {says}; {remedy}"


def test_files_that_are_no_recipes_and_those_set_aside_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "sft-mine.yaml").write_text(f"{RECIPE}prompt: sft_prompt.yml\n")
    for name in ("task.yaml", "sft_prompt.yml", "prompt.yaml", "ddp.yml", "broken.yaml", "notes.md"):
        (tmp_path / name).write_text("- a: {\n" if name == "broken.yaml" else "system: x\n")
    for name in ("panel.yaml", "panel-grpo.yaml", "pretrain.yaml", "probe.yaml", "grid.yaml"):
        (tmp_path / name).write_text(RECIPE)
    assert checked(tmp_path) == ["sft"]


@pytest.mark.parametrize("folder", sorted((ROOT / "recipes").iterdir()), ids=lambda path: str(path.name))
def test_the_kept_folders_are_named_well(folder: Path) -> None:
    assert len(checked(folder)) == sum(path.stem.partition("-")[0] in ORDER for path in folder.glob("*.yaml"))


def test_a_stage_refuses_a_task_that_it_would_not_read(tmp_path: Path) -> None:
    (tmp_path / "task.yml").write_text("verifier: exact\n")
    with pytest.raises(InputError, match=r"task\.yml: would not be read; rename it to task\.yaml$"):
        task_keys(str(tmp_path / "explore.yaml"), {}, {"verifier"})
