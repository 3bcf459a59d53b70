"""What bundle tells of the texts it read, and of what it left out."""

import json
from pathlib import Path

import pytest
from conftest import write_rows

from a2r_train.data.bundle import BundleConfig, bundle


def config_of(tmp_path: Path, name: str, **options: object) -> BundleConfig:
    return BundleConfig(output_dir=str(tmp_path / name), **options)  # type: ignore[arg-type]


def test_texts_that_are_there_twice_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As where a file was pasted behind itself; its bundles would hold one solution again and again."""
    rows = [
        {"problem": f"{i} + 1?", "answer": str(i + 1), "text": rf"way {n}: \boxed{{{i + 1}}}"}
        for i in range(4)
        for n in range(4)
    ]
    for times in (1, 2):
        caplog.clear()
        path = write_rows(tmp_path / f"{times}.jsonl", rows * times)
        bundle(config_of(tmp_path, f"out-{times}", rollouts=path, problems=""))
        says = [r.getMessage() for r in caplog.records if "the text of an earlier one" in r.getMessage()]
        assert len(says) == times - 1
    assert says[0].startswith(f"{path}: 16 of 32 training rollouts have the text of an earlier one")


def test_what_is_left_out_of_the_test_set_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rows = [
        {"problem": f"{i} + 1?", "answer": str(i + 1), "text": rf"way {n}: \boxed{{{i + 1}}}"}
        for i in range(40)
        for n in range(2 + 2 * (i % 2))
    ]
    path = write_rows(tmp_path / "r.jsonl", rows)
    out = bundle(config_of(tmp_path, "out", rollouts=path, problems="", test_share=0.5))
    tested = len({json.loads(line)["problem_id"] for line in (out / "test-rollouts.jsonl").open()})
    count = len((out / "test.jsonl").read_text().splitlines())
    assert 0 < count < tested
    says = f"{count} test bundles; 100.0% of {2 * tested + 2 * count} rollouts are correct; left out: "
    assert f"{says}{tested - count} problem(s) with fewer than k rollouts" in caplog.messages


@pytest.mark.parametrize("marker", ["[THINK]", "<Thought>", "<|channel|>analysis", "<seed:think>", "<think>"])
def test_thoughts_in_other_markers_are_counted(
    marker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    r"""A box in such a thought makes a right solution wrong, and references would show thoughts."""
    ends = {"<think>": "</think>"}.get(marker, "end of thought")
    texts = [
        rf"{marker} \boxed{{1}}? {ends} \boxed{{2}}",
        r"so \boxed{2}",
        r"way 2: \boxed{2}",
        r"as [THINK]: \boxed{2}",
    ]
    rows = [{"problem": f"1 + 1 {i}?", "answer": "2", "text": text} for i in range(3) for text in texts]
    path = write_rows(tmp_path / "r.jsonl", rows)
    bundle(config_of(tmp_path, "out", rollouts=path, problems=""))
    says = [text for text in caplog.messages if "does not open a thought" in text]
    assert [text.startswith(f"{path}: 3 of 12 training rollouts begin with") for text in says] == [True] * (
        marker != "<think>"
    )


def test_texts_of_others_that_were_cut_are_called_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = {"text": "let me think", "finish_reason": "length"}
    rows = [{"problem": f"1 + 1 {i}?", "answer": "2", "text": rf"{i}: \boxed{{2}}"} for i in range(12)]
    rows = [row | (cut if at % 3 else {}) for row in rows for at in range(4)]
    bundle(config_of(tmp_path, "out", rollouts=write_rows(tmp_path / "r.jsonl", rows), problems=""))
    assert [text for text in caplog.messages if "raise max_completion_tokens" in text]


def test_a_share_that_holds_out_nothing_is_told(
    problems: str, rollouts: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle(config_of(tmp_path, "out", rollouts=rollouts, problems=problems, test_share=1e-6))
    assert "test_share 1e-06 holds out no problem, so there is no test set; raise it" in caplog.messages
