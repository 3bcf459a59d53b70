"""Training with a prompt in sections: three rewards are logged, and targets without sections are left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import bundle_row, options, write_rows

from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.records import Bundle, Problem, Synthesis, as_row
from a2r_train.train import grpo
from a2r_train.train.targets import read_targets

PROMPT = """\
sections: {solution: Own, verdicts: Verdicts, answer: Final}
synthesizer_template: "{problem}\\n{references}\\n## Own\\n## Verdicts\\n## Final"
"""
WRITTEN = "## Own\n\\boxed{5}\n## Verdicts\nReference 1: right\nReference 2: wrong\n## Final\n\\boxed{5}"


@pytest.fixture
def keys(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompt.yaml").write_text(PROMPT)
    rows = [bundle_row(Problem(f"p{i}", f"{i} more?", "5"), ["5", "7"], f"p{i}/0") for i in range(4)]
    return {
        "bundles": write_rows(tmp_path / "bundles.jsonl", rows),
        "prompt": "prompt.yaml",
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


def test_three_rewards_are_logged_and_told(
    keys: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert grpo.main(options(keys)) == 0
    assert (
        "preflight: green, sections: weights 1 for the answer, 0.3 for the own solution, 0.2 for the "
        "verdicts, of which one on a right reference earns or loses 1.00, on a wrong one 1.00"
    ) in caplog.text
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    names = ("verifiable_reward", "own_solution_reward", "verdicts_reward")
    steps = [entry for entry in log if all(f"rewards/{name}/mean" in entry for name in names)]
    assert len(steps) == 2
    assert all("complete_sections" in step for step in steps)
    card = (tmp_path / "out" / "README.md").read_text()
    told = "`verifiable_reward` 1, `own_solution_reward` 0.3, `verdicts_reward` 0.2"
    assert f"| rewards and their weights | {told} |" in card
    assert PromptConfig.load(tmp_path / "out" / "prompt.yaml").sections


def test_a_dry_run_shows_the_weights(
    keys: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert grpo.main([*options(keys), "--dry_run", "true"]) == 0
    assert "reward_weights:\n- 1.0\n- 0.3\n- 0.2\n" in capsys.readouterr().out
    assert grpo.main([*options(keys), "--reward_weights", "1.0"]) == 2
    assert "reward_weights has 1 weights for 3 rewards" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_targets_without_sections_are_left_out(keys: dict[str, Any], tmp_path: Path) -> None:
    bundles, prompt = read(Bundle, keys["bundles"]), PromptConfig.load("prompt.yaml")

    def targets(*texts: str) -> str:
        made = [
            Synthesis("p0/0", i, text, "", "unverified", 1, 1, "stop", "", 0) for i, text in enumerate(texts)
        ]
        return write_rows(tmp_path / "targets.jsonl", map(as_row, made))

    bare, unsaid = r"\boxed{5}", WRITTEN.replace("Reference 2: wrong", "")
    wrong = WRITTEN.replace("## Final\n\\boxed{5}", "## Final\n\\boxed{7}")
    given = targets(bare, unsaid, wrong, WRITTEN)
    assert [target.text for target in read_targets(given, bundles, prompt)] == [WRITTEN]
    assert [target.sample for target in read_targets(given, bundles, prompt, {"p0/0"})] == [0, 1, 3]
    with pytest.raises(InputError, match="none of 2 targets is correct; 1 are, but lack sections"):
        read_targets(targets(bare, wrong), bundles, prompt)
