"""The tested sets keep to pyproject.toml, the scheduled run does not, and a pull request is tried."""

import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
ALLOWED = [Requirement(one) for one in [*PROJECT["dependencies"], *EXTRAS]]


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-gpu.txt"])
def test_pins_are_allowed(name: str) -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / name).read_text(), re.MULTILINE))
    assert {"trl", "transformers", "peft", "accelerate", "datasets", "deepspeed"} <= set(pins)
    for one in ALLOWED:
        assert one.name not in pins or one.specifier.contains(pins[one.name]), one


def test_the_scheduled_run_reports_and_takes_every_dependency(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "newest.yml").read_text())
    assert workflow[True]["schedule"]  # YAML 1.1 reads `on` as true
    job = workflow["jobs"]["newest"]
    assert job["continue-on-error"] is True
    install = next(
        step["run"] for step in job["steps"] if step.get("name") == "Install without the upper bounds"
    )
    code = re.search(r'python -c "(.*?)"', install, re.DOTALL)
    assert code
    monkeypatch.chdir(ROOT)
    exec(textwrap.dedent(code[1]), {})
    assert {Requirement(one).name for one in PROJECT["dependencies"]} <= set(capsys.readouterr().out.split())
    (test,) = (step["run"] for step in job["steps"] if step.get("name") == "Test")
    assert all((ROOT / folder).is_dir() for folder in re.findall(r"tests/\w+", test))


def test_a_pull_request_runs_the_fast_tier() -> None:
    workflow: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/pull_request.yml").read_text())
    assert "pull_request" in workflow[True]
    assert "bash scripts/test.sh fast" in [step.get("run") for step in workflow["jobs"]["fast"]["steps"]]
