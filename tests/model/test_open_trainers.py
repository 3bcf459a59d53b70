"""What a recipe may bring along: reward functions with TRL's signature, their weights, and callbacks."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import options, write_rows

from a2r_train.data.builder import bundle_of
from a2r_train.records import Problem, Reference, as_row
from a2r_train.train import grpo

OWN = """
from transformers import TrainerCallback

def brevity(prompts, completions, problem, **columns):
    assert len(prompts) == len(completions) == len(problem) == len(columns["answer"])
    return [-float(len(completion[0]["content"])) for completion in completions]

class Count(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        with open(f"{args.output_dir}/steps.txt", "a") as file:
            file.write(f"{state.global_step}\\n")

not_a_callback = 3
"""


@pytest.fixture
def keys(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "own_rewards.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    references = [Reference(r"\boxed{5}", "5", "correct", 4), Reference(r"\boxed{7}", "7", "incorrect", 4)]
    bundles = [bundle_of(Problem(f"p{i}", f"{i} more?", "5"), references, f"p{i}/0") for i in range(4)]
    return {
        "bundles": write_rows(tmp_path / "bundles.jsonl", map(as_row, bundles)),
        "model_name_or_path": tiny,
        "output_dir": tmp_path / "out",
        "use_cpu": True,
        "max_steps": 2,
        "num_generations": 2,
        "per_device_train_batch_size": 2,
        "max_completion_length": 16,
        "logging_steps": 1,
        "report_to": "none",
    }


def test_own_rewards_are_weighed_beside_the_verified_one(keys: dict[str, Any], tmp_path: Path) -> None:
    own = ["--reward_funcs", "own_rewards.brevity", "--reward_weights", "1.0", "0.5"]
    assert grpo.main([*options(keys), *own, "--callbacks", "own_rewards:Count"]) == 0
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in log if "rewards/brevity/mean" in entry]
    assert len(steps) == 2
    for entry in steps:
        verified, brevity = (entry[f"rewards/{name}/mean"] for name in ("verifiable_reward", "brevity"))
        assert brevity < 0
        assert entry["reward"] == pytest.approx(verified + 0.5 * brevity, abs=1e-4)
    assert (tmp_path / "out" / "steps.txt").read_text() == "1\n2\n"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--reward_funcs", "own_rewards.nothing"], "reward_funcs 'own_rewards.nothing': cannot be imported"),
        (["--reward_funcs", "no_such.reward"], "reward_funcs 'no_such.reward': cannot be imported"),
        (["--reward_funcs", "brevity"], "reward_funcs 'brevity': cannot be imported"),
        (
            ["--reward_funcs", "own_rewards.brevity", "--reward_weights", "1.0"],
            "reward_weights has 1 weights for 2 rewards",
        ),
        (["--reward_weights", "1.0", "2.0"], "reward_weights has 2 weights for 1 rewards"),
        (["--callbacks", "own_rewards.Missing"], "callbacks 'own_rewards.Missing': cannot be imported"),
        (["--callbacks", "own_rewards.not_a_callback"], "a int; expected a TrainerCallback"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    more: list[str], says: str, keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grpo.main([*options(keys), *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
