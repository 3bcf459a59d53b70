"""A model's own code, pickled weights and secrets, in a training of its own process."""

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from conftest import bundle_row, files_of, options, write_rows
from test_security import with_own_code

from a2r_train import models
from a2r_train.errors import InputError
from a2r_train.records import Problem


def train_keys(model: str, tmp_path: Path) -> dict[str, Any]:
    problem = Problem("p", "How many?", "5")
    bundles = [bundle_row(problem, ["5"], f"b{i}", texts=["five"]) for i in range(4)]
    target = {"bundle_id": "b0", "sample": 0, "text": r"\boxed{5}", "answer": "5", "verdict": "correct"}
    target |= {"prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop", "model": "m", "seed": 0}
    return {
        "bundles": write_rows(tmp_path / "bundles.jsonl", bundles),
        "targets": write_rows(tmp_path / "targets.jsonl", [target]), "model_name_or_path": model,
        "max_steps": 1,
        "output_dir": tmp_path / "out", "use_cpu": True, "save_steps": 1, "activation_checkpointing": False,
    }  # fmt: skip


def sft(keys: dict[str, Any], **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "a2r_train.train.sft", *options(keys)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, umask=0o007
    )


def test_training_a_model_with_code_of_its_own(tiny: str, tmp_path: Path) -> None:
    model, ran = with_own_code(tiny, tmp_path)
    keys = {**train_keys(model, tmp_path), "report_to": "none"}
    refused = sft(keys, HF_MODULES_CACHE=str(tmp_path / "modules"))
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.splitlines()[-1].startswith(f"error: {model}: cannot be loaded (")
    assert not ran.exists()
    done = sft({**keys, "trust_remote_code": True}, HF_MODULES_CACHE=str(tmp_path / "modules"))
    assert done.returncode == 0, done.stderr
    assert ran.exists()


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_weights_are_safetensors_alone(tiny: str, tmp_path: Path) -> None:
    folder, ran = copytree(tiny, tmp_path / "model"), tmp_path / "ran"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(str(ran))))
    with pytest.raises(InputError, match="no weights"):
        models.load_model(str(folder))
    (folder / "other.safetensors").write_bytes(b"")  # there are safetensors, but not these weights
    with pytest.raises(InputError, match="cannot be loaded"):
        models.load_model(str(folder))
    done = sft({**train_keys(str(folder), tmp_path), "report_to": "none"})
    assert done.returncode == 1
    assert "no file named model.safetensors" in done.stderr.splitlines()[-1]
    assert not ran.exists()
    assert not (tmp_path / "out" / "done.json").exists()


def test_no_secret_is_told_or_kept_and_the_umask_holds(tiny: str, tmp_path: Path) -> None:
    secrets = {
        name: f"secret-{name}-1234567890" for name in ("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "TOKEN")
    }
    keys = {
        **train_keys(tiny, tmp_path),
        "report_to": "none",
        "hub_token": secrets.pop("TOKEN"),
        "log_level": "debug",
    }
    for more in ({"dry_run": True}, {}):
        done = sft({**keys, **more}, **secrets)
        assert done.returncode == 0, done.stderr
        assert "secret-" not in done.stdout + done.stderr
    assert (tmp_path / "out" / "done.json").exists()
    assert [name for name, content in files_of(tmp_path / "out").items() if b"secret-" in content] == []
    assert (tmp_path / "out" / "checkpoint-1" / "training_args.bin").exists()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*")}
    assert {
        path.name: oct(mode) for path, mode in modes.items() if mode != (0o770 if path.is_dir() else 0o660)
    } == {}
