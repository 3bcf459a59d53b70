"""Bundles whose prompts are measured with a tokenizer."""

from collections import Counter
from pathlib import Path
from shutil import copytree

import pytest
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
