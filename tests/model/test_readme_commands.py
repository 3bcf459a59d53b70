"""README.md and CONTRIBUTING.md: every command, option, path and link in them is real, and their examples
run.
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from accelerate.commands.launch import launch_command_parser
from conftest import a2r, write_rows

from a2r_train import cli
from a2r_train.commands import compare, rescore
from a2r_train.commands.export import ExportConfig
from a2r_train.commands.grid import GridConfig
from a2r_train.commands.merge import MergeConfig
from a2r_train.data.bundle import BundleConfig
from a2r_train.data.explore import ExploreConfig
from a2r_train.data.read import read
from a2r_train.evaluate import EvaluateConfig
from a2r_train.evaluate.probe.config import ProbeConfig
from a2r_train.inference.serve.config import ServeConfig
from a2r_train.records import Problem
from a2r_train.train import grpo, sft
from a2r_train.train.arguments import BundleArguments, ModelArguments

ROOT = Path(__file__).parents[2]
NAMES = [
    "README.md",
    "CONTRIBUTING.md",
    *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md"))),
]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
STAGES: dict[str, list[Any]] = {
    "merge": [MergeConfig],
    "explore": [ExploreConfig],
    "bundle": [BundleConfig],
    "evaluate": [EvaluateConfig],
    "probe": [ProbeConfig],
    "grid": [GridConfig],
    "export": [ExportConfig],
    "serve": [ServeConfig],
    "sft": [BundleArguments, sft.SynthesizerSFTConfig, ModelArguments],
    "grpo": [BundleArguments, grpo.SynthesizerGRPOConfig, ModelArguments],
}
STAGES["check"] = [*STAGES["sft"], *STAGES["grpo"]]
PROGRAMS = ("a2r", "accelerate", "bash", "python", "python3", "sbatch", "vllm")
SBATCH = {"--array", "--wrap"}
VLLM = {"--model", "--data-parallel-size", "--enforce-eager", "--no-enable-chunked-prefill"}
SHIPPED = ("a2r_train/", "accelerate_configs/", "data/", "recipes/", "scripts/", "tests/")


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def shell_commands(page: str) -> Iterator[list[str]]:
    """The commands of the shell blocks as words, without variables in front; a block without a language may
    hold a drawing.
    """
    for block in blocks(page, "bash", "sh", "shell", "console", ""):
        for line in block.replace("\\\n", " ").splitlines():
            if line.removeprefix("$ ").lstrip().startswith(PROGRAMS) or re.match(r"\s*(\w+=\S* )+", line):
                yield from split(line.removeprefix("$ "))


def split(line: str) -> Iterator[list[str]]:
    words = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    words.whitespace_split = True
    command: list[str] = []
    for word in [*words, ";"]:
        if word and set(word) <= set("|&;"):
            while command and re.fullmatch(r"\w+=.*", command[0]):
                command = command[1:]
            if command:
                yield command
            command = []
        else:
            command.append(word)
            if command[-2:-1] == ["--wrap"]:  # what Slurm runs
                yield from split(word)


def inline(page: str) -> list[str]:
    """What stands between backticks outside the fenced blocks."""
    prose = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


COMMANDS = [(page, command) for page in PAGES for command in shell_commands(page)]
COMMANDS += [
    (page, shlex.split(code)) for page in PAGES for code in inline(page) if code.split()[0] in PROGRAMS
]


def options_of(kinds: list[Any]) -> set[str]:
    return {
        "--config",
        *(f"--{field.name}" for kind in kinds for field in dataclasses.fields(kind) if field.init),
    }


def own_options(verb: str) -> set[str]:
    """The options of a verb that reads them itself."""
    source = ROOT / "a2r_train" / "commands" / f"{verb}.py"
    return {*re.findall(r'"(--\w+)"', source.read_text(encoding="utf-8"))} if source.is_file() else set()


def verbs() -> dict[str, set[str]]:
    """The verbs of `a2r` with their options."""
    group: Any = typer.main.get_command(cli.app)
    named = {
        verb: [option for p in command.params for option in p.opts]
        for verb, command in group.commands.items()
    }
    for verb, parser in (("rescore", rescore.parser()), ("compare", compare.parser())):
        named[verb] += [option for action in parser._actions for option in action.option_strings]
    given = {
        verb: {*options, *(f"--{o[2:].replace('-', '_')}" for o in options)}
        for verb, options in named.items()
    }
    return {
        verb: options | (options_of(STAGES[verb]) if verb in STAGES else own_options(verb)) | {"--help"}
        for verb, options in given.items()
    }


def known_options(command: list[str]) -> set[str]:
    """The options of a command, whose program, verb, script or module must exist."""
    program, *rest = command
    if program == "a2r":
        verb = next((word for word in rest if not word.startswith("-")), "")
        assert not verb or verb in verbs(), f"a2r has no verb {verb!r}"
        return verbs().get(verb, set()) | {"--help"}
    scripts = [word for word in rest if word.endswith((".py", ".sh", ".sbatch"))]
    for script in scripts:
        assert (ROOT / script).is_file(), f"{script} does not exist"
    script = scripts[-1] if scripts else ""
    if program == "vllm":
        assert rest[0] == "serve"
        return VLLM
    if program == "sbatch":
        assert scripts or "--wrap" in rest
        return SBATCH | options_of(STAGES.get(Path(script).stem, []))
    if program == "accelerate":
        launcher = {o for action in launch_command_parser()._actions for o in action.option_strings}
        return launcher | options_of(STAGES.get(Path(script).stem, []))
    if "-m" in rest:
        module = rest[rest.index("-m") + 1]
        if module.startswith("vllm."):
            return VLLM
        assert not module.startswith("a2r_train") or (ROOT / (module.replace(".", "/") + ".py")).is_file(), (
            module
        )
        return options_of(STAGES.get(module.rpartition(".")[2], []))
    source = (ROOT / script).read_text(encoding="utf-8") if script else ""
    stage = options_of(STAGES[Path(script).stem]) if Path(script).stem in STAGES else set()
    return {word for word in rest if f'"{word}"' in source} | stage


def is_placeholder(path: str) -> bool:
    return bool(re.search(r"[<>{}*…]|\.\.\.|\b[A-Z]{3,}\b", path))


pytestmark = pytest.mark.usefixtures("at_root")


def test_commands_are_found() -> None:
    """Else the tests below would hold for nothing."""
    found = {" ".join(command[:2]) for page, command in COMMANDS if page == "README.md"}
    assert {
        "bash scripts/quickstart.sh",
        "a2r explore",
        "a2r bundle",
        "a2r evaluate",
        "accelerate launch",
        "a2r solve",
    } <= found
    assert any(command[0] == "bash" for page, command in COMMANDS if page == "CONTRIBUTING.md")
    assert {command[0] for page, command in COMMANDS if page == "docs/scaling.md"} >= {"sbatch", "vllm"}
    assert list(split("sbatch --wrap 'a2r run x'")) == [
        ["a2r", "run", "x"],
        ["sbatch", "--wrap", "a2r run x"],
    ]
    assert list(split("A=1 a2r run x && python y.py | tee z")) == [
        ["a2r", "run", "x"],
        ["python", "y.py"],
        ["tee", "z"],
    ]


@pytest.mark.parametrize(
    ("page", "command"), COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60]
)
def test_a_command_is_real(page: str, command: list[str]) -> None:
    known = known_options(command)
    for word in command[1:]:
        if command[0] == "bash":
            break  # the rest is for pytest
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{page}: {' '.join(command)}: {word}"
    for word in command[1:]:
        if word.startswith(SHIPPED) and not is_placeholder(word):
            assert (ROOT / word).exists(), f"{page}: {word}"


@pytest.mark.parametrize("page", PAGES)
def test_options_and_paths_in_the_text_are_real(page: str) -> None:
    of_any = set().union(*verbs().values(), *map(options_of, STAGES.values()))
    for code in inline(page):
        if code.startswith("--"):
            assert code.split()[0].partition("=")[0] in of_any, f"{page}: {code}"
        if code.startswith(SHIPPED) and not is_placeholder(code):
            assert (ROOT / code).exists(), f"{page}: {code}"


@pytest.mark.parametrize("page", PAGES)
def test_links_point_to_files(page: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", PAGES[page])
    for target in targets:
        if not target.startswith(("http://", "https://", "mailto:", "#")):
            assert ((ROOT / page).parent / target.partition("#")[0]).exists(), f"{page}: {target}"


def test_solve_with_the_prompt_of_the_recipe(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    problems = read(Problem, "data/tiny/validation.jsonl")[:3]
    assert a2r("solve", problems[0].problem, "--prompt", "recipes/tiny/prompt.yaml") == 0
    shown = capfd.readouterr().out
    assert re.search(r"^\d+ +tokens: explorer_prompt \d+, references \d+,", shown, re.MULTILINE), shown
    path = write_rows(tmp_path / "three.jsonl", [dataclasses.asdict(p) for p in problems])
    assert a2r("solve", "--file", path, "--prompt", "recipes/tiny/prompt.yaml") == 0
    answers = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [a["problem"] for a in answers] == [p.problem for p in problems]
    assert all(re.fullmatch(r"\d+", a["answer"]) and len(a["references"]) == 4 for a in answers)
    assert re.search(rf"^{answers[0]['answer']} +tokens", shown, re.MULTILINE)


@pytest.mark.parametrize(("k", "panel"), [("1", "synthesis"), ("2", "answer of the references")])
def test_solve_says_who_gave_the_answer(k: str, panel: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Two greedy references agree, so their vote answers; a single one has no vote."""
    question = "Ada has 3 times as many books as Ben and 12 more. Ada has 57. How many has Ben?"
    assert a2r("solve", question, "--k", k, "--skip-agreement", "0.75", "--temperature", "0") == 0
    shown = capfd.readouterr().out
    titles = re.findall(r"─ ([a-z ]+[a-z]) ─", shown)
    assert titles[-1] == panel
