"""The examples of README.md run as written."""

import contextlib
import io
import re
from typing import Any

import pytest
from conftest import a2r
from test_readme_commands import (
    COMMANDS,
    VLLM,
    blocks,
    is_placeholder,
)

from a2r_train.engines.vllm_copies import import_vllm
from a2r_train.inference.two_stage import Answer

pytestmark = pytest.mark.usefixtures("at_root")


def test_vllm_has_the_options_that_the_pages_give_it() -> None:
    pytest.importorskip("vllm")
    import_vllm()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    assert {option for action in parser._actions for option in action.option_strings} >= VLLM


def test_the_python_of_the_readme_runs_as_written() -> None:
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in blocks("README.md", "python", "py"):
            exec(compile(block, "README.md", "exec"), names)
    (answer,) = (value for value in names.values() if isinstance(value, Answer))
    assert len(answer.references) == 4
    assert answer.text
    assert all(answer.tokens.values())


def test_solve_as_the_readme_writes_it(capfd: pytest.CaptureFixture[str]) -> None:
    commands = [
        c
        for page, c in COMMANDS
        if c[:2] == ["a2r", "solve"] and len(c) > 2 and not is_placeholder(" ".join(c[3:]))
    ]
    assert commands
    for command in commands:
        assert a2r(*command[1:]) == 0
        shown = capfd.readouterr().out
        assert re.search(r"^\d* +tokens: explorer_prompt \d+, references \d+,", shown, re.MULTILINE), shown
        assert "reference 4" in shown
