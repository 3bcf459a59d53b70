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
import rescore as rescoring
import torch
from conftest import save_tiny
from safetensors.torch import load_file, save_file

from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate.answers import Generator, Task
from a2r_train.evaluate.kept import Compared, find_evaluations, rescore
from a2r_train.models import load_tokenizer
from a2r_train.records import Bundle, Rollout

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


def keep(config: EvaluateConfig, target: Path) -> Path:
    """Records and evaluation as the script keeps them, each by its command line."""
    options = []
    for key in ("bundles", "rollouts", "adaptive_validation"):
        if path := getattr(config, key):
            assert keep_results.main(["records", path, str(target / "records")]) == 0
            options += [f"--{key}", str(target / "records" / f"{Path(path).name}.xz")]
    folder = target / "evaluation"
    assert keep_results.main(["evaluation", config.output_dir, str(folder), *options]) == 0
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
    gold = read(Bundle, str(tmp_path / "kept" / "records" / "bundles.jsonl.xz"))[0].answer
    change(chunk, lambda row: row.update(text=f"\\boxed{{{gold}}}"))
    assert rescoring.main([str(tmp_path / "kept")]) == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert "synthesizer/base: bundle" in said
    assert f"judged '{gold}' correct" in said
    assert "row synthesizer/base: accuracy" in said
    assert "row synthesizer/alone:" not in said

    change(chunk, lambda row: row.update(bundle_id="other"))
    assert rescoring.main([str(folder)]) == 2
    assert "are not those of its bundles" in capsys.readouterr().err


def test_a_verdict_that_does_not_follow_from_its_text_is_found_out(
    config: EvaluateConfig, models: dict[str, str], tmp_path: Path
) -> None:
    config = replace(config, **models)  # type: ignore[arg-type]
    evaluate(config)
    folder = keep(config, tmp_path / "kept")
    records = tmp_path / "kept" / "records"
    assert rescore(folder) == []
    change(records / "rollouts.jsonl.xz", lambda row: row.update(verdict="correct"))
    (line, *_) = rescore(folder)
    assert line == "rollout of problem p1, sample 0: stored '100' correct, judged '100' incorrect"
    keep_results.keep_records(Path(config.rollouts), records)
    change(records / "bundles.jsonl.xz", lambda row: row["reference_verdicts"].__setitem__(0, "timeout"))
    assert rescore(folder)[0].startswith("bundle p1/0, reference 1: stored ")


@pytest.fixture
def again(
    config: EvaluateConfig, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> EvaluateConfig:
    """An evaluation whose models may answer again, below the folder `again`."""
    monkeypatch.setattr(rescoring, "OUT", tmp_path / "again")
    given: dict[str, Any] = {**models, "chunk_bundles": 1}
    return replace(config, **given)


def test_the_models_answer_again(
    again: EvaluateConfig, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(again)
    folder = keep(again, tmp_path / "kept")
    shutil.move(tmp_path / "models", tmp_path / "moved")
    asked = [str(tmp_path / "kept"), "--regenerate"]
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
    assert rescoring.main(asked) == 2  # else the answers of the first time would be compared again
    assert "was regenerated already; remove it" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "again")
    assert rescoring.main(asked) == 1
    outside = [line for line in capsys.readouterr().out.splitlines() if "outside" in line]
    assert [line.split(" | ")[0] for line in outside] == ["| synthesizer/base"]


def test_the_first_bundles_alone_are_answered_again(
    again: EvaluateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row is compared with what is kept of those bundles, not with the whole table."""
    evaluate(again)
    folder = keep(again, tmp_path / "kept")
    chunks = sorted(folder.glob("syntheses/synthesizer-base/*"))[:3]
    for one, chunk in zip(read(Bundle, again.bundles)[:3], chunks, strict=True):
        change(chunk, lambda row, gold=one.answer: row.update(text=f"\\boxed{{{gold}}}"))  # type: ignore[misc]
    assert rescoring.main([str(tmp_path / "kept"), "--regenerate", "--max_bundles", "3"]) == 1
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
    with pytest.raises(SystemExit):
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
    assert rescore(keep(config, tmp_path / "kept")) == []
    assert (
        rescore(Path(config.output_dir)) == []
    )  # not compressed, and its inputs where the config names them


def test_wrong_input_is_one_line(
    config: EvaluateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(config, base="", explorer="")
    evaluate(config)
    with pytest.raises(InputError, match="no evaluation below it"):
        find_evaluations(tmp_path / "nothing")
    folder = keep(config, tmp_path / "kept")
    assert keep_results.main(["evaluation", config.output_dir, str(folder)]) == 2
    assert "holds something already" in capsys.readouterr().err
    other = str(folder.parent / "records" / "rollouts.jsonl.xz")
    assert keep_results.main(["evaluation", config.output_dir, str(tmp_path / "x"), "--bundles", other]) == 2
    assert f"{other}: other content than {config.bundles}" in capsys.readouterr().err
    missing = [
        "evaluation",
        config.output_dir,
        str(tmp_path / "x"),
        "--bundles",
        str(tmp_path / "typo.jsonl.xz"),
    ]
    Path(config.bundles).rename(tmp_path / "away.jsonl")  # so that there is nothing to compare with
    assert keep_results.main(missing) == 2
    assert "typo.jsonl.xz: No such file or directory" in capsys.readouterr().err
    Path(tmp_path / "away.jsonl").rename(config.bundles)
    assert not (tmp_path / "x").exists()
    (folder.parent / "records" / "bundles.jsonl.xz").write_bytes(b"no")
    assert rescoring.main([str(folder)]) == 2
    assert "not a whole xz file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        rescoring.main([str(folder), "--base", "x"])


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
    with pytest.raises(ValueError, match="asked two things"):
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
