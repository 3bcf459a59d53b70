"""The tested sets keep to pyproject.toml, and the scheduled run does not."""

import re
import subprocess
import sys
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


def test_the_scheduled_run_reports_and_takes_every_dependency() -> None:
    workflow: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "newest.yml").read_text())
    assert workflow[True]["schedule"]  # YAML 1.1 reads `on` as true
    job = workflow["jobs"]["newest"]
    assert job["continue-on-error"] is True
    install = next(
        step["run"] for step in job["steps"] if step.get("name") == "Install without the upper bounds"
    )
    code = re.search(r'python -c "(.*?)"', install, re.DOTALL)
    assert code
    shown = subprocess.run(
        [sys.executable, "-c", code[1]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {Requirement(one).name for one in PROJECT["dependencies"]} <= set(shown.stdout.split())
