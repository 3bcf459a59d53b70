"""A recipe is data: it runs no code."""

from pathlib import Path
from typing import Any

import pytest

from a2r_train.config import load_yaml
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig


@pytest.mark.parametrize("read", [load_yaml, PromptConfig.load])
def test_a_recipe_runs_no_code(read: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"system: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']\n")
    with pytest.raises(InputError, match=r"recipe\.yaml:1: .* is not valid YAML") as raised:
        read(str(tmp_path / "recipe.yaml"))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "ran").exists()
