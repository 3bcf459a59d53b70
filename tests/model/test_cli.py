"""What the command line shows and takes, beside what the tests of the stages ask of it."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import a2r, options
from test_train import bundle

from a2r_train.commands import run as pipeline
from a2r_train.config import parse
from a2r_train.data.explore import ExploreConfig
from a2r_train.errors import InputError
from a2r_train.records import write
from a2r_train.train import grpo, sft
from a2r_train.train.arguments import check_launch

ROOT = Path(__file__).parents[2]
DDP = str(ROOT / "accelerate_configs" / "ddp.yaml")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout on one line, stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        status = a2r(*arguments)
    shown = capsys.readouterr()
    return status, " ".join(shown.out.split()), shown.err


@pytest.mark.parametrize(
    ("verb", "key", "says"),
    [
        ("explore", "--samples_per_problem", "show the resolved config and one prompt"),
        ("bundle", "--mixture", "show the resolved config and one rendered bundle"),
        ("evaluate", "--self_refine", "show the resolved config and the rows"),
        ("merge", "--sha256", "show the resolved config, and stop"),
        ("grid", "--explorers", "show the resolved config and the pairs"),
        ("run", "--accelerate-config", "a config of accelerate"),
        ("gather", "shards", "the output folders of explore's shards"),
        ("solve", "--max-completion-tokens", "of either model"),
        ("check", "--help", "Preflight of a training recipe"),
        ("plot", "run", "the output folder of sft or grpo"),
    ],
)
def test_help_names_the_keys_and_what_they_do(
    verb: str, key: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown, error = run(capsys, verb, "--help")
    assert (status, error) == (0, "")
    assert f"a2r {verb}" in shown
    assert key in shown
    assert says in shown


@pytest.mark.parametrize("trainer", ["sft", "grpo"])
def test_help_of_the_trainers(
    trainer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [f"scripts/{trainer}.py", "-h"])
    with pytest.raises(SystemExit) as ended:
        {"sft": sft, "grpo": grpo}[trainer].main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert f"usage: {trainer}.py --config RECIPE [--key value ...]" in shown
    assert "--plain_share" in shown


@pytest.mark.parametrize(
    "given", [["--config=recipes/tiny/explore-test.yaml"], ["--config", "recipes/tiny/explore-test.yaml"]]
)
def test_a_recipe_is_named_in_either_way(
    given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    status, shown, _ = run(capsys, "explore", *given, "--samples-per-problem", "3", "--dry_run")
    assert status == 0
    assert "700 problems, 2100 rollouts" in shown


@pytest.mark.parametrize(
    ("verb", "changes", "says"),
    [
        ("explore-test", ["--temperature", "-1"], "temperature"),
        ("explore-test", ["--engine", "vlm"], "engine"),
        ("explore-test", ["--shard", "9/2"], "shard '9/2': expected i/n"),
        ("explore-test", ["--samples_per_problem", "-3"], "samples_per_problem is -3; expected at least 1"),
        ("evaluate", ["--diagnostics", "nonsense"], "diagnostics: unknown name 'nonsense'"),
        ("evaluate", ["--genselect", "true", "--base", ""], "genselect: needs a synthesizer"),
    ],
)
def test_a_dry_run_finds_what_the_stage_would(
    verb: str,
    changes: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    stage, given = (
        verb.partition("-")[0],
        ["--config", f"recipes/tiny/{verb}.yaml", "--output_dir", str(tmp_path / "out")],
    )
    refused = [run(capsys, stage, *given, *changes, *dry) for dry in ([], ["--dry_run"])]
    assert {(status, error) for status, _, error in refused} == {(2, refused[0][2])}
    assert says in refused[0][2]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_names_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundles = [bundle(i) for i in range(3)]
    write(bundles, tmp_path / "bundles.jsonl")
    keys = {"bundles": tmp_path / "bundles.jsonl", "base": ROOT / "data/tiny/synthesizer",
    "output_dir": tmp_path / "out",
            "max_bundles": 2, "self_refine": 1, "diagnostics": "order",
            "max_completion_tokens": 40}  # fmt: skip
    status, shown, error = run(capsys, "evaluate", *options(keys), "--dry_run")
    assert (status, error) == (0, "")
    assert "rows to generate for 2 bundles: " in shown
    assert "self-refine, diagnostics order 2 problems x 1 bundle tell a trained synthesizer apart" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [["--config"], ["--config="]])
def test_a_recipe_without_a_path(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "explore", *given) == (2, "", "error: --config: expected the path of a YAML recipe\n")


@pytest.mark.parametrize("option", ["--max_completion_tokens", "--max-completion-tokens"])
def test_options_are_spelled_as_in_recipes_or_with_dashes(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "solve", option, "8") == (
        2,
        "",
        "error: solve: expected either a question or --file\n",
    )


def test_run_launches_as_many_processes_as_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("bundle", "sft"):
        (tmp_path / f"{stage}.yaml").touch()
    started: list[list[str]] = []
    monkeypatch.setattr(pipeline, "wait", lambda command: bool(started.append(command)))
    pipeline.run(str(tmp_path), DDP, 2)
    assert started[0] == [
        sys.executable,
        "-m",
        "a2r_train.cli",
        "bundle",
        "--config",
        str(tmp_path / "bundle.yaml"),
    ]
    launched = [
        "accelerate.commands.launch",
        "--config_file",
        DDP,
        "--num_processes",
        "2",
        "-m",
        "a2r_train.train.sft",
    ]
    assert started[1][2:9] == launched


def test_a_dry_run_of_a_folder_starts_nothing_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("sft", "explore-b", "explore-a"):
        (tmp_path / f"{stage}.yaml").write_text(f"output_dir: {tmp_path}/out-{stage}\n")
    monkeypatch.setattr(pipeline, "wait", lambda command: pytest.fail(f"started {command}"))
    status, out, _ = run(capsys, "run", str(tmp_path), "--dry_run")
    missing = "missing: --problems, --model"
    expected = [
        f"to do explore {tmp_path}/explore-a.yaml -> {tmp_path}/out-explore-a",
        f"fails: {tmp_path}/explore-a.yaml: {missing}",
        f"to do explore {tmp_path}/explore-b.yaml -> {tmp_path}/out-explore-b",
        f"fails: {tmp_path}/explore-b.yaml: {missing}",
        f"to do sft {tmp_path}/sft.yaml -> {tmp_path}/out-sft",
        f"fails: {tmp_path}/sft.yaml: missing: --bundles",
    ]
    assert (status, out) == (2, " ".join(expected))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            ["--processes", "2"],
            "processes: name a launch config for them, as in --accelerate_config accelerate_configs/ddp.yaml",
        ),
        (
            ["--accelerate_config", "none.yaml"],
            "none.yaml: no such file; expected an accelerate config",
        ),
    ],
)
def test_run_without_a_way_to_launch(given: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "run", "recipes/tiny", *given) == (2, "", f"error: {says}\n")


def test_one_process_that_sees_several_gpus() -> None:
    check_launch(SimpleNamespace(n_gpu=1))  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"^one process sees 4 GPUs: start one process per GPU .* --processes 4\), or let"
    ):
        check_launch(SimpleNamespace(n_gpu=4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("named", "pair"),
    [
        ((), (f"{ROOT}/data/tiny/explorer", f"{ROOT}/data/tiny/synthesizer")),
        (("--synthesizer", "mine"), ("mine", "mine")),
        (("--explorer", "mine"), ("mine", "mine")),
        (("--synthesizer", "mine", "--explorer", "other"), ("other", "mine")),
    ],
)
def test_a_model_named_alone_is_both(
    named: tuple[str, ...],
    pair: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def loop(explorer: str, synthesizer: str, **_: Any) -> None:
        raise InputError(f"{explorer} and {synthesizer}")

    monkeypatch.setattr("a2r_train.inference.two_stage.TwoStage", loop)
    assert run(capsys, "solve", "2?", *named) == (2, "", f"error: {pair[0]} and {pair[1]}\n")


@pytest.mark.parametrize(
    ("key", "value", "package"),
    [
        ("report_to", "wandb", "wandb"),
        ("attn_implementation", "flash_attention_2", "flash-attn or kernels"),
        ("load_in_4bit", "true", "bitsandbytes"),
        ("use_liger_kernel", "true", "liger-kernel"),
    ],
)
def test_a_package_that_is_not_there(
    key: str, value: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = set[str]()
    monkeypatch.setattr("a2r_train.config.importlib.util.find_spec", lambda name, *_: name in there or None)
    given = ["--bundles", "b.jsonl", "--use_cpu", "true", f"--{key}", value]
    for kinds in (sft.ARGUMENTS, grpo.ARGUMENTS):
        with pytest.raises(InputError, match=f"^{key} {value} needs {package}, which is not installed"):
            parse(kinds, given)
    there |= {package.partition(" ")[0].replace("-", "_")}
    parse(sft.ARGUMENTS, given)


def test_a_number_stands_for_a_text_in_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "explore.yaml").write_text("problems: 5\nmodel: 7b\noutput_dir: 7\nseed: 3\n")
    (config,) = parse([ExploreConfig], ["--config", str(tmp_path / "explore.yaml")])
    assert (config.problems, config.output_dir, config.seed) == ("5", "7", 3)
    (tmp_path / "sft.yaml").write_text("bundles: 5\nmodel_name_or_path: 7\noutput_dir: 8\nrun_name: 9\n")
    data, args, model = parse(sft.ARGUMENTS, ["--config", str(tmp_path / "sft.yaml")])
    assert (data.bundles, args.output_dir, args.run_name, model.model_name_or_path) == ("5", "8", "9", "7")
