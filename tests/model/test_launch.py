"""`a2r sft` and `a2r grpo` start what `a2r run` starts; the rest of the line goes to the trainer."""

import sys
from pathlib import Path

import pytest
from conftest import a2r

from a2r_train.commands import run as pipeline

ROOT = Path(__file__).parents[2]
REST = ["--config", "r.yaml", "--learning_rate", "1e-4", "--use-cpu=true"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []
    monkeypatch.setattr(pipeline, "wait", lambda command: commands.append(command) or 7)
    monkeypatch.chdir(ROOT)
    return commands


@pytest.mark.parametrize("verb", ["sft", "grpo"])
def test_one_process_needs_no_launcher(verb: str, started: list[list[str]]) -> None:
    assert a2r(verb, *REST) == 7
    assert started == [[sys.executable, "-m", f"a2r_train.train.{verb}", *REST]]


@pytest.mark.parametrize("config", ["accelerate_configs/ddp.yaml", "cpu2"])
@pytest.mark.parametrize("option", ["--accelerate_config", "--accelerate-config"])
def test_several_go_through_accelerate(
    config: str, option: str, started: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = config if "/" in config else f"{ROOT}/accelerate_configs/{config}.yaml"
    monkeypatch.chdir(ROOT if "/" in config else tmp_path)  # a shipped one is found from any folder
    assert a2r("grpo", *REST[:2], option, config, "--processes", "3", *REST[2:]) == 7
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    found = ["--config_file", path, "--num_processes", "3"]
    assert started == [[*launch, *found, "-m", "a2r_train.train.grpo", *REST]]


def test_the_help_is_that_of_the_trainer_and_names_the_two_options(
    started: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert a2r("sft", "--help") == 7
    assert started[0][-1] == "--help"
    assert "a2r sft [--accelerate_config FILE] [--processes N]" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--processes", "2"], "processes: name a launch config for them"),
        (["--accelerate_config", "none.yaml"], "none.yaml: no such file; expected an accelerate config"),
    ],
)
def test_a_wrong_way_to_launch_is_one_line(
    given: list[str], says: str, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert a2r("sft", *given, *REST) == 2
    assert capsys.readouterr().err.startswith(f"error: {says}")
    assert not started


def test_the_recipe_of_another_stage_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for stage, other in (("explore", "grpo"), ("bundle", "evaluate"), ("evaluate", "sft")):
        assert a2r(stage, "--config", f"recipes/tiny/{other}.yaml") == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: recipes/tiny/{other}.yaml: this is a recipe of `a2r {other}`: '")
        assert error.count("\n") == 1
