"""Bundles whose prompts are measured with a tokenizer."""

from collections import Counter
from pathlib import Path
from shutil import copytree

import pytest
from conftest import a2r, options, write_rows
from test_bundle import config_of

from a2r_train.data.bundle import bundle
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.records import Bundle


def test_the_card_counts_what_was_kept_and_dropped(
    tiny: str, problems: str, rollouts: str, tmp_path: Path
) -> None:
    options = {"rollouts": rollouts, "problems": problems, "mixture": "balanced", "tokenizer": tiny}
    folder = bundle(config_of(tmp_path, "out", **options))
    kept, text = read(Bundle, str(folder / "train.jsonl")), (folder / "README.md").read_text()
    made = bundle(config_of(tmp_path, "all", rollouts=rollouts, problems=problems))
    dropped = len(read(Bundle, str(made / "train.jsonl"))) - len(kept)
    assert f"## train: {len(kept)} bundles of {len({b.problem_id for b in kept})} problems" in text
    assert f"| not balanced | {dropped} |" in text
    for n, count in Counter(b.n_correct for b in kept).items():
        assert f"| {n} | {count} | {count / len(kept):.1%} |" in text
    bins = [line.split("|")[2] for line in text.partition("in tokens")[2].splitlines() if " to " in line]
    assert sum(map(int, bins)) == len(kept)


def test_prompts_are_measured_as_the_synthesizer_renders_them(
    tiny: str, problems: str, rollouts: str, tmp_path: Path
) -> None:
    own = copytree(tiny, tmp_path / "own")
    (own / "prompt.yaml").write_text("max_prompt_tokens: 40\n")
    with pytest.raises(InputError, match="over the budget of 40"):
        bundle(config_of(tmp_path, "out", rollouts=rollouts, problems=problems, tokenizer=str(own)))
    assert not (tmp_path / "out").exists()


def programs(folder: Path) -> str:
    """Twelve problems of MBPP's shape, each with four programs, as somebody else kept them."""
    texts = [f"```python\ndef f(a):\n    return {value}\n```" for value in ("a", "1 * a", "2", "3")]
    row = {"code": "def f(a):\n    return a", "test_list": ["assert f(1) == 1"], "generations": texts}
    rows = [{"task_id": number, "text": f"Write f, number {number}.", **row} for number in range(12)]
    return write_rows(folder / "programs.jsonl", rows)


def test_bundles_that_evaluate_refuses_are_told_as_they_are_made(
    speaking: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"rollouts": programs(tmp_path), "test_share": 0.3}
    folder = bundle(config_of(tmp_path, "out", **config))
    asked = options({"bundles": folder / "test.jsonl", "base": speaking, "output_dir": tmp_path / "e"})
    assert a2r("evaluate", *asked, "--dry_run") == 2
    refused = capsys.readouterr().err.removeprefix("error: ").strip()
    assert refused.startswith("the prompt's synthesizer_template asks for \\boxed{}, which python_tests does")
    (said,) = [line for line in caplog.messages if "evaluate and the trainers will refuse" in line]
    assert said.endswith(refused)
    caplog.clear()
    prompt = "recipes/prompts/prompt-code.yaml"  # the remedy that it names
    folder = bundle(config_of(tmp_path, "mended", **config, prompt=prompt))
    assert "evaluate and the trainers will refuse" not in caplog.text
    asked = options({"bundles": folder / "test.jsonl", "base": speaking, "output_dir": tmp_path / "e"})
    assert a2r("evaluate", *asked, "--dry_run") == 0
