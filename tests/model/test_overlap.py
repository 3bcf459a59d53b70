"""An evaluation on problems that were trained on: refused, or red."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
from conftest import a2r, options, write_rows

from a2r_train.data.read import read
from a2r_train.data.trained_on import write_trained_on
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate.kept import rescore
from a2r_train.evaluate.overlap import overlaps
from a2r_train.evaluate.run import read_inputs
from a2r_train.records import Bundle


def test_it_is_refused_or_red(
    config: EvaluateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = copytree(config.base, tmp_path / "trained")
    problems = [bundle.problem for bundle in read(Bundle, config.bundles)]
    write_trained_on(trained, config.base, "SFT", "train.jsonl", [problems[0], problems[2], "another"])
    config = replace(config, sft=str(trained), temperature=0.0)
    line = f"2 of 7 test problems were trained on: {trained} read them in SFT, from train.jsonl"
    with pytest.raises(InputError, match="2 of 7 test problems"):
        evaluate(config)
    assert not Path(config.output_dir).exists()
    names = ("bundles", "output_dir", "sft", "base", "temperature", "max_completion_tokens", "draws")
    keys = {name: getattr(config, name) for name in names}
    assert a2r("evaluate", *options(keys)) == 2
    assert f"error: {line}" in capsys.readouterr().err
    assert a2r("evaluate", *options({**keys, "allow_overlap": "true"})) == 0
    assert "2 of 7 test problems" in capsys.readouterr().out
    html = (Path(config.output_dir) / "report.html").read_text()
    assert f'<p class="bad"><b>{line}</b></p>' in html


def test_a_test_set_that_chose_the_step_is_red(
    config: EvaluateConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be looked at, as one evaluates on validation problems on purpose; but it is no test."""
    chosen = copytree(config.base, tmp_path / "chosen")
    problems = [bundle.problem for bundle in read(Bundle, config.bundles)]
    write_trained_on(chosen, config.base, "GRPO", "train.jsonl", ["another"], ("test.jsonl", problems[:3]))
    evaluate(replace(config, grpo=str(chosen), temperature=0.0))
    line = (
        f"3 of 7 test problems chose the step that is kept: {chosen} was validated on them in GRPO, from "
        "test.jsonl"
    )
    assert f"{config.bundles}: {line}" in caplog.messages
    for name in ("report.md", "report.html"):
        assert line in (Path(config.output_dir) / name).read_text()
    assert rescore(Path(config.output_dir)).said == []
    later = copytree(config.base, tmp_path / "later")  # a model that goes on from it
    write_trained_on(later, str(chosen), "GRPO", "more.jsonl", ["yet another"])
    assert [str(one) for one in overlaps([str(later)], read(Bundle, config.bundles))] == [
        line.replace(str(chosen), str(later))
    ]


@pytest.mark.parametrize("answer", ["", "77"])
def test_a_repeated_test_problem_is_told(
    answer: str, config: EvaluateConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It would count once more in every mean, and narrow its interval."""
    rows = [json.loads(line) for line in Path(config.bundles).read_text().splitlines()]
    again = {**rows[0], "id": "again", "problem_id": "again", "problem": f"{rows[0]['problem']} "}
    path = write_rows(tmp_path / "again.jsonl", [*rows, {**again, "answer": answer or again["answer"]}])
    if answer:
        with pytest.raises(InputError, match="have the same text but the answers"):
            read_inputs(replace(config, bundles=path))
        return
    read_inputs(replace(config, bundles=path))
    assert "again.jsonl: 1 problems repeat the text of an earlier one, as row 8 that of row 1" in caplog.text
