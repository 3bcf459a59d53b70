"""How commands start and end, as processes."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_the_command_shows_its_help_without_anything_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['a2r', '--help']\nfrom a2r_train.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stages = (
        *("explore", "bundle", "sft", "grpo", "evaluate", "solve", "merge", "run", "check", "plot", "grid"),
        *("rescore", "compare", "init", "export", "probe"),
    )
    for verb in stages:
        assert verb in done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "from a2r_train.evaluate.report import page, terminal, words",
        "import warnings, a2r_train.train\n"  # hidden before a library can warn
        "assert any('is_gradient_checkpointing' in f[1].pattern for f in warnings.filters if f[1])",
    ],
)
def test_reports_and_hidden_warnings_need_no_torch(code: str) -> None:
    code = f"import sys\n{code}\nassert not {{'torch', 'transformers'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_starts_without_anything_heavy_and_names_what_is_public() -> None:
    code = (
        "import sys, a2r_train\n"
        "from a2r_train import judge, majority, Problem, Rollout, Bundle, Synthesis, InputError\n"
        "assert judge(r'\\boxed{4}', '4') == 'correct'\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import a2r_train.evaluate.config\n"
        "assert all(callable(getattr(a2r_train, name)) for name in a2r_train.__all__)\n"
        "from a2r_train import *\n"
        "assert {'TwoStage', 'explore', 'bundle', 'sft', 'grpo', 'evaluate'} <= {*dir()}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


ROOT = Path(__file__).parents[2]


def test_script_ends_with_status_2(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("bundels: x\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "grpo.py"), "--config", str(recipe)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert (
        done.stderr.strip().splitlines()[-1]
        == f"error: {recipe}: unknown key 'bundels'; did you mean 'bundles'?"
    )


def test_a_report_needs_no_torch() -> None:
    code = (
        "import sys\nfrom a2r_train.evaluate.report import page, terminal, words\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
