"""The hub as a command of its own sees it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import options
from test_hub import download

ROOT = Path(__file__).parents[2]


def test_the_command_takes_both_models_from_the_hub(tmp_path: Path) -> None:
    """The synthesizer of data/tiny answers as from its folder: its prompt is not the default one."""
    for name in ("explorer", "synthesizer"):
        download(tmp_path / "hub", f"me/{name}", ROOT / "data/tiny" / name)
    (tmp_path / "q.jsonl").write_text(
        json.dumps({"problem": "3 bags hold 4 pens each. How many pens?"}) + "\n"
    )

    def answer(where: str) -> dict[str, Any]:
        models = {"explorer": f"{where}/explorer", "synthesizer": f"{where}/synthesizer"}
        command = [
            "-m",
            "a2r_train.cli",
            "solve",
            *options({"file": str(tmp_path / "q.jsonl"), "k": 2, **models}),
        ]
        env = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub")}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return {key: value for key, value in found.items() if key != "seconds"}

    assert answer("me") == answer("data/tiny")


def test_no_report_of_use_is_sent_by_default() -> None:
    """TRL's trainers send one where huggingface_hub may."""
    shown = "import a2r_train; from huggingface_hub import constants as c; print(c.HF_HUB_DISABLE_TELEMETRY)"
    unset = {"HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DISABLE_TELEMETRY", "HF_HUB_OFFLINE"}
    env = {key: value for key, value in os.environ.items() if key not in unset}
    for asked, expected in ({}, "True"), ({"HF_HUB_DISABLE_TELEMETRY": "0"}, "False"):
        done = subprocess.run(
            [sys.executable, "-c", shown], env=env | asked, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
