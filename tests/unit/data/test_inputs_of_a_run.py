"""What belongs to a run besides its config: the files of its sets, and the code of verifiers."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import files_of, write_rows

from a2r_train import output
from a2r_train.data import build
from a2r_train.data.bundle import BundleConfig, bundle, check_folder
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.records import Bundle
from a2r_train.verifier_code import code_of, sources_of
from a2r_train.verify import pool
from a2r_train.verify import traits as known

ADDED = "has been added since this run; name another output folder, or remove this one"


def chunk(folder: Path, number: int) -> None:
    """Rollouts of two problems, as explore writes them."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"problem_id": f"p{i}", "sample": j, "text": rf"{j} \boxed{{{i + j % 2}}}"}
        for i in (2 * number, 2 * number + 1)
        for j in range(4)
    ]
    write_rows(folder / f"{number:06d}.jsonl", rows)


def config(tmp_path: Path, rollouts: str, name: str = "out", **keys: Any) -> BundleConfig:
    rows = [{"id": f"p{i}", "problem": f"0 + {i}?", "answer": str(i)} for i in range(8)]
    problems = write_rows(tmp_path / "problems.jsonl", rows)
    return BundleConfig(rollouts, str(tmp_path / name), problems, k=2, processes=1, **keys)


def kill(config: BundleConfig, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """Run it until so many parts are judged."""
    judge, judged = build.bundle_part, []

    def killed(task: Any) -> None:
        if len(judged) == after:
            raise KeyboardInterrupt
        judged.append(task)
        judge(task)

    with monkeypatch.context() as patch:
        patch.setattr(build, "bundle_part", killed)
        with pytest.raises(KeyboardInterrupt):
            bundle(config)
    for path in [*output._locks]:  # which the system does when a process ends
        output._locks.pop(path).release(force=True)


@pytest.mark.parametrize("naming", ["{}", "{}/", "{}/*.jsonl", "{}, other.jsonl"])
@pytest.mark.parametrize("was_killed", [True, False])
def test_files_that_join_a_set_or_leave_it_make_another_run(
    naming: str, was_killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chunks = tmp_path / "chunks"
    for number in (0, 2):
        chunk(chunks, number)
    write_rows(tmp_path / "other.jsonl", [{"problem_id": "p7", "sample": 0, "text": "7"}])
    run = config(tmp_path, naming.format(chunks))
    kill(run, monkeypatch) if was_killed else bundle(run)
    before = files_of(tmp_path / "out")
    chunk(chunks, 1)
    for refused in (bundle, check_folder):
        with pytest.raises(InputError, match=rf"chunks/000001\.jsonl {ADDED}"):
            refused(run)
    assert files_of(tmp_path / "out") == before
    (chunks / "000001.jsonl").unlink()
    (chunks / "000002.jsonl").rename(chunks / "gone")
    with pytest.raises(InputError, match=r"chunks/000002\.jsonl has been removed since this run"):
        bundle(run)
    (chunks / "gone").rename(chunks / "000002.jsonl")
    assert (bundle(run) / "done.json").exists()


def test_a_finished_run_does_not_need_its_input(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    chunk(tmp_path / "chunks", 0)
    run = config(tmp_path, str(tmp_path / "chunks"))
    bundle(run)
    (tmp_path / "chunks" / "000000.jsonl").unlink()
    bundle(run)
    assert caplog.messages[-1] == f"{run.output_dir}: done already"


def test_only_sets_that_a_folder_fixes_are_compared(tmp_path: Path) -> None:
    """A training that has only sampled targets may get another validation set, but no other bundles."""
    for name in ("train-0", "valid-0", "valid-1"):
        write_rows(tmp_path / f"{name}.jsonl", [{}])
    keys, out = ("bundles", "validation"), tmp_path / "out"
    recipe = {"bundles": f"{tmp_path}/train-*.jsonl", "validation": f"{tmp_path}/valid-*.jsonl"}
    output.prepare(out, recipe, inputs=keys)
    (tmp_path / "valid-1.jsonl").unlink()
    output.check(out, recipe, inputs=keys, fixed=("bundles",))
    with pytest.raises(InputError, match=r"valid-1\.jsonl has been removed since this run"):
        output.check(out, recipe, inputs=keys)
    write_rows(tmp_path / "train-1.jsonl", [{}])
    with pytest.raises(InputError, match=rf"train-1\.jsonl {ADDED}"):
        output.check(out, recipe, inputs=keys, fixed=("bundles",))


def test_shards_that_a_stage_writes_in_place_of_a_file_are_its_set(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    for number in range(2):
        (tmp_path / f"train-{number:05d}-of-00002.parquet").write_text("")
    output.prepare(tmp_path / "out", {"bundles": str(path)}, inputs=["bundles"])
    output.check(tmp_path / "out", {"bundles": str(path)}, inputs=["bundles"])
    path.write_text("{}\n")
    with pytest.raises(InputError, match=r"has been removed since this run"):
        output.check(tmp_path / "out", {"bundles": str(path)}, inputs=["bundles"])


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module of a verifier, in a package on the import path."""
    path = tmp_path / "lib" / "of_mine" / "judges.py"
    path.parent.mkdir(parents=True)
    path.write_text("def judge(answer, gold):\n    return answer == gold\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    pool._stop_all()  # workers that run already have another import path
    monkeypatch.setattr(known, "_own", cache(known._own.__wrapped__))
    return path


@pytest.mark.parametrize("named_by", ["recipe", "problems", "rollouts"])
@pytest.mark.parametrize("was_killed", [True, False])
def test_another_verdict_of_a_verifier_makes_another_run(
    named_by: str, was_killed: bool, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "PART_BYTES", 600)
    name = "of_mine.judges:judge"
    own = {} if named_by == "recipe" else {"verifier": name}
    rows = [
        {"problem": f"0 + {i}?", "answer": str(i), "text": rf"{j} \boxed{{{i + j % 2}}}", **own}
        for i in range(20)
        for j in range(4)
    ]
    run = BundleConfig(
        write_rows(tmp_path / "r.jsonl", rows), str(tmp_path / "out"), k=2, processes=1, **(
            {"verifier": name} if named_by == "recipe" else {}
        )
    )  # fmt: skip
    if named_by == "problems":
        some = [{"id": str(i), **rows[4 * i]} for i in range(20)]
        run.problems = write_rows(tmp_path / "p.jsonl", some)
        write_rows(
            tmp_path / "r.jsonl",
            [{"problem_id": str(at // 4), "sample": at % 4, "text": r["text"]} for at, r in enumerate(rows)],
        )
    kill(run, monkeypatch, after=1) if was_killed else bundle(run)
    before = code.read_text()
    code.write_text(before.replace("answer == gold", "False"))
    with pytest.raises(InputError, match=f"verifier {name} has changed since this run; name another"):
        bundle(run)
    code.write_text(before)
    made = bundle(run)
    assert sum(one.n_correct for one in read(Bundle, str(made / "train.jsonl"))) >= 20


def test_a_verifier_of_the_working_directory_is_found(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_of("of_mine.judges.judge>=0.5") == str(code)
    monkeypatch.chdir(tmp_path)
    Path("here_alone.py").write_text("")
    assert os.path.samefile(code_of("here_alone:judge"), "here_alone.py")
    assert [code_of(name) for name in ("math", "no_such.module.f", "of_mine.f")] == [""] * 3


def test_what_a_verifier_imports_is_its_code_too(code: Path, tmp_path: Path) -> None:
    """From its own folder, whatever the form of the import; not from elsewhere, and not a2r_train."""
    lib = code.parents[1]
    code.write_text(
        "import json\nimport of_mine.units as u\nfrom . import rounding\nfrom .deep.parts import half\n"
        "from a2r_train.records import Rollout\n\n"
        "def judge(answer, gold):\n    import late_one\n    return True\n"
    )
    imports = {
        "of_mine/units.py": "import of_mine.judges\nfrom outside import x\n",
        "of_mine/rounding.py": "from .units import m",
        "of_mine/deep/__init__.py": "from .. import further",
        "of_mine/deep/parts.py": "from . import __init__ as d",
        "of_mine/further.py": "a syntax error",
        "late_one.py": "",
    }
    for name, text in {**imports, "of_mine/unused.py": "", "a2r_train/records.py": ""}.items():
        (lib / name).parent.mkdir(exist_ok=True)
        (lib / name).write_text(text)
    (tmp_path / "outside.py").write_text("")
    assert sources_of("of_mine.judges:judge") == [str(code), *sorted(str(lib / name) for name in imports)]
    assert sources_of("of_mine.deep.f")[0] == str(lib / "of_mine/deep/__init__.py")
    assert sources_of("math") == sources_of("no_such.f") == []


def test_another_helper_of_a_verifier_makes_another_run(code: Path, tmp_path: Path) -> None:
    """A verifier without helpers keeps the digest that earlier versions have noted."""
    chunk(tmp_path / "chunks", 0)
    alone = output._code_digests([f"{output.VERIFIER}of_mine.judges:judge"])
    assert [*alone.values()] == [output._digest(str(code))]
    code.write_text("from .same import same as judge\n")
    helper = code.with_name("same.py")
    helper.write_text("def same(answer, gold):\n    return answer == gold\n")
    run = config(tmp_path, str(tmp_path / "chunks"), verifier="of_mine.judges:judge")
    bundle(run)
    helper.write_text("def same(answer, gold):\n    return answer != gold\n")
    with pytest.raises(InputError, match="judges:judge has changed since this run"):
        bundle(run)


def test_a_second_run_of_a_process_has_its_own_evaluation_set(tmp_path: Path) -> None:
    for number in range(4):
        chunk(tmp_path / "chunks", number)
    rollouts = str(tmp_path / "chunks")
    for evaluated in (0, 1):
        row = {"problem": f"0 + {evaluated}?", "answer": "1"}
        asked = write_rows(tmp_path / f"eval{evaluated}.jsonl", [row])
        folder = bundle(config(tmp_path, rollouts, "out", decontaminate_against=asked))
        left = {one.problem_id for one in read(Bundle, str(folder / "train.jsonl"))}
        assert {"p0", "p1"} - left == {f"p{evaluated}"}
        folder.rename(tmp_path / f"made{evaluated}")
