"""What is kept of an evaluation: the same table without the models, a changed text found out, and the models
asked again.
"""

import json
import lzma
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keep_results
import pytest
import torch
from conftest import a2r, save_tiny, write_rows
from safetensors.torch import load_file, save_file

from a2r_train.commands import rescore as rescoring
from a2r_train.data.builder import bundle_of, reference_of
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate.answers import Generator, Task
from a2r_train.evaluate.kept import Compared, Rescored, find_evaluations, rescore
from a2r_train.evaluate.kept_bundles import bundles_of, read_kept, write_kept
from a2r_train.models import load_tokenizer
from a2r_train.records import Bundle, Problem, Reference, Rollout, write

ROOT = Path(__file__).parents[2]

# Every row that asks a model: probes, rounds, adaptive, self-refine, prompted methods and longer budgets.
ALL = {
    "diagnostics": "all",
    "k_sweep": "1,2,6",
    "rounds": 2,
    "rounds_population": 4,
    "rounds_subset": 2,
    "self_refine": 2,
    "genselect": True,
    "universal_self_consistency": True,
    "budgets": "2",
    "samples": 2,
}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    """Models that a test may remove."""
    return {
        "base": save_tiny(tmp_path / "models" / "base", 1),
        "explorer": save_tiny(tmp_path / "models" / "explorer", 0),
    }


@pytest.fixture
def full(config: EvaluateConfig, models: dict[str, str]) -> EvaluateConfig:
    """An evaluation with all rows, on bundles that stand for the validation's, too."""
    given: dict[str, Any] = {**ALL, **models, "adaptive_validation": config.bundles, "chunk_bundles": 4}
    return replace(config, **given)


def keep(config: EvaluateConfig, target: Path, *more: str) -> Path:
    """Records, bundles and evaluation as the script keeps them, each by its command line."""
    records, folder = target / "records", target / "evaluation"
    rollouts, kept = records / f"{Path(config.rollouts).name}.xz", str(records / "bundles.kept.json")
    assert keep_results.main(["records", config.rollouts, str(records)]) == 0
    given = ["--rollouts", str(rollouts), "--golds", str(records / "golds.jsonl"), "--problems", "a:set"]
    assert keep_results.main(["bundles", config.bundles, kept, *given]) == 0
    options = ["--rollouts", str(rollouts), "--bundles", kept]
    options += ["--adaptive_validation", kept] if config.adaptive_validation else []
    assert keep_results.main(["evaluation", config.output_dir, str(folder), *options, *more]) == 0
    return folder


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the first row of a compressed file."""
    rows = [json.loads(line) for line in lzma.decompress(path.read_bytes()).splitlines()]
    edit(rows[0])
    path.write_bytes(lzma.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def without_sources(config: EvaluateConfig, tmp_path: Path) -> None:
    """Only what is kept is left."""
    shutil.rmtree(tmp_path / "models")
    shutil.rmtree(config.output_dir)
    for path in (config.bundles, config.rollouts):
        Path(path).unlink()


def test_every_row_comes_out_the_same_without_the_models(
    full: EvaluateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = evaluate(full)
    names = {row["name"] for row in results["rows"]}
    assert {"rounds", "adaptive", "self-refine", "genselect", "pass@1/2x", "maj@equal_cost"} <= names
    assert all(one["flops"] for one in results["diagnostics"]["cost"].values())
    made = {
        path.relative_to(full.output_dir).as_posix()
        for path in Path(full.output_dir).glob("syntheses/*/*.jsonl")
    }
    tasks = json.loads((Path(full.output_dir) / "manifest.json").read_text())["tasks"]
    assert {name for files in tasks.values() for name in files} == made
    assert tasks["probe/solution"] == tasks["synthesizer/base"]  # two tasks that ask the same
    assert tasks["adaptive/2"] == tasks["adaptive-validation/2"]
    assert {"rounds/2", "self-refine/2", "probe/k=6", "probe/injected", "adaptive/4"} <= tasks.keys()

    folder = keep(full, tmp_path / "kept")
    without_sources(full, tmp_path)
    monkeypatch.chdir(tmp_path / "kept")  # whatever the working directory is
    assert rescoring.main([str(tmp_path / "kept")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder}: same bytes"


def test_a_changed_text_is_found_out(
    config: EvaluateConfig, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(config, **models)  # type: ignore[arg-type]
    evaluate(config)
    folder = keep(config, tmp_path / "kept")
    without_sources(config, tmp_path)
    (chunk,) = folder.glob("syntheses/synthesizer-base/*.jsonl.xz")
    gold = bundles_of(str(tmp_path / "kept" / "records" / "bundles.kept.json"))[0].answer
    change(chunk, lambda row: row.update(text=f"\\boxed{{{gold}}}"))
    assert rescoring.main([str(tmp_path / "kept")]) == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert "synthesizer/base: bundle" in said
    assert f"judged '{gold}' correct" in said
    assert "row synthesizer/base: accuracy" in said
    assert "row synthesizer/alone:" not in said

    change(chunk, lambda row: row.update(bundle_id="other"))
    with pytest.raises(InputError, match="are not those of its bundles"):
        rescoring.main([str(folder)])


def test_a_verdict_that_does_not_follow_from_its_text_is_found_out(
    config: EvaluateConfig, models: dict[str, str], tmp_path: Path
) -> None:
    config = replace(config, **models)  # type: ignore[arg-type]
    evaluate(config)
    folder = keep(config, tmp_path / "kept")
    records = tmp_path / "kept" / "records"
    assert rescore(folder).said == rescore(folder).others == []
    change(records / "rollouts.jsonl.xz", lambda row: row.update(verdict="correct"))
    said = rescore(folder).said
    assert "rollout of problem p1, sample 0: stored '100' correct, judged '100' incorrect" in said
    keep_results.keep_records(Path(config.rollouts), records)
    kept = records / "bundles.kept.json"
    drawn = read_kept(str(kept))
    first = (*drawn.bundles[0][:2], [0, *(sample for sample in drawn.bundles[0][2] if sample)][:4])
    write_kept(
        replace(drawn, bundles=[first, *drawn.bundles[1:]]), kept
    )  # so that the first rollout is in it
    change(records / "rollouts.jsonl.xz", lambda row: row.update(verdict="timeout"))
    assert rescore(folder).said[0].startswith("bundle p1/0, reference 1: stored '100' timeout, judged ")


@pytest.fixture
def again(
    config: EvaluateConfig, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> EvaluateConfig:
    """An evaluation whose models may answer again, below the folder `again`."""
    monkeypatch.setattr(rescoring, "OUT", tmp_path / "again")
    given: dict[str, Any] = {**models, "chunk_bundles": 1}
    return replace(config, **given)


def test_the_models_answer_again(
    again: EvaluateConfig,
    models: dict[str, str],
    problems: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluate(again)
    folder = keep(again, tmp_path / "kept")
    shutil.move(tmp_path / "models", tmp_path / "moved")
    asked = [str(tmp_path / "kept"), "--regenerate", "--problems", problems]
    for name in models:
        asked += [f"--{name}", str(tmp_path / "moved" / name)]
    asked += ["--sft", "/nowhere"]  # a row that is not in the kept table is not added
    assert rescoring.main(asked) == 0
    said = capsys.readouterr().out
    assert said.count("| inside | ") == len(json.loads((folder / "results.json").read_text())["rows"])
    assert (tmp_path / "again" / "kept" / "evaluation" / "results.json").exists()

    kept = json.loads((folder / "results.json").read_text())
    row = next(row for row in kept["rows"] if row["name"] == "synthesizer/base")
    row.update(low=1.0, high=1.0)
    (folder / "results.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="was already regenerated; remove it"):
        rescoring.main(asked)  # else the answers of the first time would be compared again
    shutil.rmtree(tmp_path / "again")
    assert rescoring.main(asked) == 1
    outside = [line for line in capsys.readouterr().out.splitlines() if "outside" in line]
    assert [line.split(" | ")[0] for line in outside] == ["| synthesizer/base"]


def test_the_first_bundles_alone_are_answered_again(
    again: EvaluateConfig, problems: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row is compared with what is kept of those bundles, not with the whole table."""
    evaluate(again)
    folder = keep(again, tmp_path / "kept")
    chunks = sorted(folder.glob("syntheses/synthesizer-base/*"))[:3]
    for one, chunk in zip(read(Bundle, again.bundles)[:3], chunks, strict=True):
        change(chunk, lambda row, gold=one.answer: row.update(text=f"\\boxed{{{gold}}}"))  # type: ignore[misc]
    asked_again = ["--regenerate", "--max_bundles", "3", "--problems", problems]
    assert rescoring.main([str(tmp_path / "kept"), *asked_again]) == 1
    rows = [
        line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "side |" in line
    ]
    table = {name: (kept, new, same) for name, kept, _, new, _, same in rows}
    assert table.pop("synthesizer/base") == ("100.00", "0.00", "0 of 3")  # changed are the first three
    assert all(kept == new for kept, new, _ in table.values())
    asked = {"explorer/greedy", "synthesizer/alone", "synthesizer/alone@T", "synthesizer/base@T"}
    assert {name: same for name, (_, _, same) in table.items() if same != "-"} == dict.fromkeys(
        asked, "3 of 3"
    )
    part = tmp_path / "again" / "kept" / "evaluation-first-3"
    assert json.loads((part / "results.json").read_text())["setup"]["bundles"] == 3
    with pytest.raises(InputError, match="--max_bundles: works only with --regenerate"):
        rescoring.main([str(tmp_path / "kept"), "--max_bundles", "3"])


@pytest.mark.parametrize(
    ("values", "inside"),
    [
        ((0.5, 0.4, 0.6, 0.6), True),
        ((0.5, 0.4, 0.6, 0.61), False),
        ((0.5, 0.4, 0.6, None), False),
        ((None,) * 4, True),
    ],
)
def test_inside(values: tuple[float, float, float, float], inside: bool) -> None:
    assert Compared("x", *values).inside == inside


def test_an_evaluation_without_generation(config: EvaluateConfig, tmp_path: Path) -> None:
    config = replace(config, base="", explorer="")
    evaluate(config)
    rows = [row["name"] for row in json.loads((Path(config.output_dir) / "results.json").read_text())["rows"]]
    assert rescore(keep(config, tmp_path / "kept")) == Rescored(rows, [], [])
    # not compressed, and its inputs where the config names them
    assert rescore(Path(config.output_dir)) == Rescored(rows, [], [])
    kept = json.loads((tmp_path / "kept/evaluation/scores.json").read_text())  # what `a2r pool` reads
    kept["rows"]["pass@1"][0] = 0.123
    (tmp_path / "kept/evaluation/scores.json").write_text(json.dumps(kept))
    assert rescore(tmp_path / "kept/evaluation").said == ["scores.json: row pass@1: other scores"]


def test_answers_that_another_evaluation_has_are_stored_once(config: EvaluateConfig, tmp_path: Path) -> None:
    evaluate(replace(config, temperature=0.0))
    first, second = keep(config, tmp_path / "first"), keep(config, tmp_path / "second")
    assert list(first.rglob("*.xz"))
    assert not list(second.rglob("*.xz"))
    assert rescore(first).said == rescore(second).said == []
    for chunk in first.rglob("*.xz"):
        change(chunk, lambda row: row.update(verdict="timeout"))
    assert rescore(second).said == rescore(first).said != []


@pytest.mark.parametrize("verdict", ["correct", "unverified"])
def test_an_answer_that_came_with_its_text_is_kept_as_the_evaluation_keeps_it(
    verdict: str, tmp_path: Path
) -> None:
    """A text in which no answer can be read keeps the one that came with it, once that has been judged."""
    problem = Problem("p", "What is 2 + 3?", "5")
    references = [Reference("so it is five", "5", verdict, 3), Reference("\\boxed{6}", "6", "incorrect", 3)]
    path = tmp_path / "bundles.jsonl"
    write([bundle_of(problem, references, "p/0")], path)
    results = evaluate(EvaluateConfig(str(path), str(tmp_path / "out"), draws=20))
    voted = {row["name"]: row["accuracy"] for row in results["rows"]}["pass@1"]
    assert voted == (0.5 if verdict == "correct" else 0.0)
    assert rescore(tmp_path / "out").said == []


def test_without_the_answers_the_rows_of_rollouts_are_made_again(
    config: EvaluateConfig,
    models: dict[str, str],
    problems: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = replace(config, **models)  # type: ignore[arg-type]
    evaluate(config)
    folder = keep(config, tmp_path / "kept", "--answers", "none")
    without_sources(config, tmp_path)
    assert not (folder / "syntheses").exists()
    assert rescoring.main([str(folder)]) == 0
    rows = "pass@1, pass@4, maj@4, maj@equal_tokens, maj@equal_cost"
    others = len(json.loads((folder / "results.json").read_text())["rows"]) - 5
    said = f"{rows} are the same; the answers behind the other {others} rows are not kept"
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder}: {said}"

    kept = json.loads((folder / "results.json").read_text())
    next(row for row in kept["rows"] if row["name"] == "maj@equal_tokens")["accuracy"] = 0.999
    (folder / "results.json").write_text(json.dumps(kept))
    assert rescore(folder).said[0].startswith("row maj@equal_tokens: accuracy 0.999 kept, ")
    with pytest.raises(InputError, match=r"tasks: .* not kept"):
        rescoring.main([str(folder), "--regenerate", "--max_bundles", "2", "--problems", problems])

    (folder / "manifest.json").unlink()  # the table alone
    with pytest.raises(InputError, match="neither answers nor rollouts are kept"):
        rescoring.main([str(folder)])


def test_kept_bundles_have_no_text_and_get_it_from_their_set(
    bundles: str, rollouts: str, problems: str, tmp_path: Path
) -> None:
    path, golds = tmp_path / "kept" / "b.kept.json", tmp_path / "golds.jsonl"
    keep_results.keep_bundles(Path(bundles), path, Path(rollouts), golds, problems)
    assert "What is" not in path.read_text() + golds.read_text()
    assert "Sum" not in path.read_text() + golds.read_text()
    whole = read(Bundle, bundles)
    for named in ("", problems):  # the set that the file names, and another
        assert bundles_of(str(path), named) == whole
    assert bundles_of(str(path))[0].references == whole[0].references

    other = write_rows(tmp_path / "other.jsonl", [{"id": "p1", "problem": "?", "answer": "7"}])
    with pytest.raises(InputError, match=r"has the answer '7', but the kept gold is '3'|is missing"):
        bundles_of(str(path), other)
    few = write_rows(tmp_path / "few.jsonl", [{"problem_id": "p1", "sample": 0, "text": "x"}])
    with pytest.raises(InputError, match="bundle p1/0: reference 1 is not among the rollouts"):
        keep_results.keep_bundles(Path(bundles), path, Path(few), golds, problems)


@pytest.mark.parametrize("first", ["10", "11"])
def test_of_rollouts_of_one_text_each_reference_is_its_own(first: str, tmp_path: Path) -> None:
    """One text may be spelt by other tokens, and so have another count of them, as bundle 862/1 of
    gsm8k-1.5b."""
    counts = {"10": (10, 11, 10), "11": (11, 10, 10)}[first]
    rows: list[dict[str, Any]] = [
        {"problem_id": "p1", "sample": n, "text": "\\boxed{3}", "answer": "3", "verdict": "correct"}
        | {"completion_tokens": count}
        for n, count in enumerate(counts)
    ]
    rollouts = write_rows(tmp_path / "rollouts.jsonl", rows)
    references = [reference_of(read(Rollout, rollouts)[n]) for n in (2, 1, 0)]
    whole = bundle_of(Problem("p1", "What is 1 + 2?", "3"), references, "p1/0")
    write([whole], str(tmp_path / "bundles.jsonl"))
    kept, golds = tmp_path / "kept" / "b.kept.json", tmp_path / "golds.jsonl"
    keep_results.keep_bundles(tmp_path / "bundles.jsonl", kept, Path(rollouts), golds, "")
    assert bundles_of(str(kept))[0].references == whole.references
    assert len(set(read_kept(str(kept)).bundles[0][2])) == 3

    other = replace(whole, references=[replace(references[0], tokens=12), *references[1:]])
    write([other], str(tmp_path / "bundles.jsonl"))
    with pytest.raises(InputError, match=r"its content differs from .*, first in bundle p1/0"):
        keep_results.keep_bundles(tmp_path / "bundles.jsonl", kept, Path(rollouts), golds, "")


def test_wrong_input_is_one_line(
    config: EvaluateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(config, base="", explorer="")
    evaluate(config)
    with pytest.raises(InputError, match="no evaluation below it"):
        find_evaluations(tmp_path / "nothing")
    folder = keep(config, tmp_path / "kept")
    assert keep_results.main(["evaluation", config.output_dir, str(folder)]) == 2
    assert "the folder is not empty" in capsys.readouterr().err
    other = str(folder.parent / "records" / "rollouts.jsonl.xz")
    assert keep_results.main(["evaluation", config.output_dir, str(tmp_path / "x"), "--bundles", other]) == 2
    assert f"{other}: its content differs from {config.bundles}" in capsys.readouterr().err
    typo = str(tmp_path / "typo.jsonl.xz")
    missing = ["evaluation", config.output_dir, str(tmp_path / "x"), "--bundles", typo]
    Path(config.bundles).rename(tmp_path / "away.jsonl")  # so that there is nothing to compare with
    assert keep_results.main(missing) == 2
    assert "typo.jsonl.xz: No such file or directory" in capsys.readouterr().err
    Path(tmp_path / "away.jsonl").rename(config.bundles)
    assert not (tmp_path / "x").exists()
    (folder.parent / "records" / Path(other).name).write_bytes(b"no")
    assert a2r("rescore", str(folder)) == 2
    assert "not a complete xz file" in capsys.readouterr().err
    assert a2r("rescore", str(folder), "--base", "x") == 2
    assert "--base: works only with --regenerate" in capsys.readouterr().err


def test_kept_rollouts_are_bundled_as_they_are(rollouts: str, problems: str, tmp_path: Path) -> None:
    packed = keep_results.keep_records(Path(rollouts), tmp_path / "kept")
    first = packed.read_bytes()
    assert keep_results.keep_records(Path(rollouts), tmp_path / "kept").read_bytes() == first
    assert read(Rollout, str(packed)) == read(Rollout, rollouts)
    for name, path in (("a", rollouts), ("b", str(packed))):
        bundle(BundleConfig(path, str(tmp_path / name), problems))
    assert (tmp_path / "a" / "train.jsonl").read_bytes() == (tmp_path / "b" / "train.jsonl").read_bytes()


def test_one_name_is_one_question(config: EvaluateConfig, tmp_path: Path) -> None:
    work = Generator(config, tmp_path / "out")
    bundles = read(Bundle, config.bundles)
    work.syntheses(Task("x", config.base), bundles)
    with pytest.raises(ValueError, match="two tasks are named"):
        work.syntheses(Task("x", config.base), bundles[1:])


def test_an_adapter_is_kept_in_bfloat16(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model

    from a2r_train.models import load_model

    source, target = tmp_path / "grpo", tmp_path / "kept"
    model = get_peft_model(load_model(tiny), LoraConfig(target_modules="all-linear", r=2))
    model.save_pretrained(source)
    load_tokenizer(tiny).save_pretrained(source)
    (source / "prompt.yaml").write_text("reference: full\n")
    weights = load_file(source / "adapter_model.safetensors")
    save_file(
        {name: 0.1 * torch.randn_like(t) for name, t in weights.items()}, source / "adapter_model.safetensors"
    )
    assert keep_results.main(["adapter", str(source), str(target)]) == 0
    kept = load_file(target / "adapter_model.safetensors")
    assert {t.dtype for t in kept.values()} == {torch.bfloat16}
    assert (target / "prompt.yaml").exists()
    assert not (target / "tokenizer.json").exists()
    assert load_tokenizer(str(target)).get_vocab() == load_tokenizer(tiny).get_vocab()  # the base's
    loaded = load_model(str(target)).state_dict()
    assert all(
        torch.allclose(t, loaded[name], atol=0.005)
        for name, t in load_model(str(source)).state_dict().items()
    )
    assert not all(
        torch.allclose(t, loaded[name], atol=0.005) for name, t in load_model(tiny).state_dict().items()
    )

    monkeypatch.setattr(keep_results, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="MB in bfloat16"):
        keep_results.keep_adapter(source, tmp_path / "more")
    assert not (tmp_path / "more").exists()
    with pytest.raises(InputError, match="expected the folder of a LoRA adapter"):
        keep_results.keep_adapter(Path(tiny), tmp_path / "more")
