"""`leave_out_bad_golds`: a few golds that cannot be parsed are left out, counted and named, if asked for."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import a2r, write_rows

from a2r_train.commands.init import guessed
from a2r_train.config import parse
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.explore import ExploreConfig, load_problems
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate.probe.config import ProbeConfig
from a2r_train.evaluate.probe.run import prepared, probe

BAD = {3: r"\frac{", 17: "nan"}


def _rows(count: int = 40, bad: dict[int, str] | None = None) -> list[dict[str, Any]]:
    golds = [(BAD if bad is None else bad).get(i, str(i + 1)) for i in range(count)]
    return [{"id": f"p{i}", "problem": f"{i} + 1?", "answer": gold} for i, gold in enumerate(golds)]


def _rollouts(rows: list[dict[str, Any]], own: bool) -> list[dict[str, Any]]:
    made = []
    for i, row in enumerate(rows):
        given = {"problem": row["problem"], "answer": row["answer"]} if own else {}
        for n in range(4):
            made.append({"problem_id": row["id"], **given, "text": rf"way {n}: \boxed{{{i + 1}}}"})
    return made


def test_explore_asks_the_others_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_rows(tmp_path / "p.jsonl", _rows())
    with pytest.raises(InputError, match=r"of 2 problems: row 4.*out with leave_out_bad_golds: true"):
        load_problems(ExploreConfig(path, "m", "out"))
    found = load_problems(ExploreConfig(path, "m", "out", leave_out_bad_golds=True))
    assert [one.id for one in found] == [f"p{i}" for i in range(40) if i not in BAD]
    says = r"left out 2 of 40 problems, .*: row 4, problem 'p3' .*; row 18, problem 'p17' \(math\): 'nan'$"
    assert [bool(re.search(says, text)) for text in caplog.messages] == [True]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_bundle_leaves_out_their_rollouts_too(own: bool, share: float, tmp_path: Path) -> None:
    rows = _rows()
    rollouts = write_rows(tmp_path / "r.jsonl", _rollouts(rows, own))
    problems = "" if own else write_rows(tmp_path / "p.jsonl", rows)
    config = BundleConfig(rollouts, str(tmp_path / "out"), problems, test_share=share, bundles_per_problem=1)
    with pytest.raises(InputError, match="leave_out_bad_golds: true"):
        bundle(config)
    config.leave_out_bad_golds = True
    folder = bundle(config)
    made = [json.loads(line) for path in folder.glob("t*.jsonl") for line in path.open()]
    assert {one["problem_id"] for one in made} == {f"p{i}" for i in range(40) if i not in BAD}
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").open()]
    assert dropped == [{"problem_id": f"p{i}", "answer": gold} for i, gold in BAD.items()]
    counts = re.findall(r"\| problem\(s\) whose gold .* \| (\d+) \|", (folder / "README.md").read_text())
    assert sum(map(int, counts)) == 2


def test_many_are_no_mistakes(tmp_path: Path) -> None:
    rows = _rows(bad=dict.fromkeys(range(8), r"\frac{"))
    path = write_rows(tmp_path / "p.jsonl", rows)
    rollouts = write_rows(tmp_path / "r.jsonl", _rollouts(rows, own=False))
    says = "cannot parse the golds of 8 of 40 problems, too many to be mistakes"
    with pytest.raises(InputError, match=says):
        load_problems(ExploreConfig(path, "m", "out", leave_out_bad_golds=True))
    with pytest.raises(InputError, match=says):
        bundle(BundleConfig(rollouts, str(tmp_path / "out"), path, leave_out_bad_golds=True))


def test_init_writes_it_for_all_stages(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_rows(tmp_path / "p.jsonl", _rows())
    with pytest.raises(InputError, match="or leave such problems out with --leave_out_bad_golds"):
        guessed(path)
    assert a2r("init", "mine", "--data", path, "--model", tiny, "--leave_out_bad_golds") == 0
    assert "38 problems" in capsys.readouterr().out
    for kind, name in ((ExploreConfig, "explore"), (BundleConfig, "bundle")):
        (config,) = parse([kind], ["--config", f"mine/{name}.yaml"])
        assert config.leave_out_bad_golds
    assert a2r("run", "mine", "--dry_run") == 0
    assert capsys.readouterr().out.count("38 problems") == 2


def _elsewhere(tmp_path: Path) -> str:
    """Rollouts made elsewhere, of which every fourth is labelled wrong."""
    made = _rollouts(_rows(), own=True)
    return write_rows(tmp_path / "r.jsonl", [one | {"is_correct": i % 4 > 0} for i, one in enumerate(made)])


def test_evaluate_leaves_out_their_labels_too(tmp_path: Path) -> None:
    path = _elsewhere(tmp_path)
    config = EvaluateConfig(path, str(tmp_path / "out"), k=4, draws=50)
    with pytest.raises(InputError, match="leave_out_bad_golds: true"):
        evaluate(config)
    found = evaluate(replace(config, leave_out_bad_golds=True))["diagnostics"]["outside"]
    assert (found["problems"], found["labelled"], found["differing"]) == (38, 4 * 38, 38)


def test_probe_leaves_them_out(tmp_path: Path) -> None:
    config = ProbeConfig(_elsewhere(tmp_path), str(tmp_path / "out"), draws=50)
    with pytest.raises(InputError, match="leave_out_bad_golds: true"):
        probe(config)
    assert len(prepared(replace(config, leave_out_bad_golds=True)).problems) == 38


def test_grid_leaves_them_out(tmp_path: Path, tiny: str) -> None:
    problems, out = write_rows(tmp_path / "p.jsonl", _rows(8, {3: r"\frac{"})), tmp_path / "grid"
    given = ["--problems", problems, "--explorers", tiny, "--synthesizers", tiny, "--output_dir", str(out)]
    given += ["--k", "2", "--max_completion_tokens", "4", "--draws", "50"]
    assert a2r("grid", *given) == 2
    assert a2r("grid", *given, "--leave_out_bad_golds", "true") == 0
    assert [cell["n"] for cell in json.loads((out / "grid.json").read_text())["cells"]] == [7]
