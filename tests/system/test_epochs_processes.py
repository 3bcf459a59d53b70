"""Two processes go on in a later epoch."""

from pathlib import Path

from conftest import options
from launching import in_turn
from test_epochs import EPOCHS, GRPO, differences, write_files


def test_two_processes_do_so_too(tmp_path: Path) -> None:
    """accelerate skips the batches of one of several processes in another way than those of one alone."""
    files = write_files(tmp_path)
    given = {
        **EPOCHS,
        **GRPO,
        "gradient_accumulation_steps": 2,
        "bundles": files / "bundles.jsonl",
        "output_dir": files / "out",
    }
    arguments = ["--config", "recipes/tiny/grpo.yaml", *options(given)]
    (tmp_path / "turns").mkdir()
    with in_turn("ddp", tmp_path / "turns") as run:
        assert differences(lambda: run("scripts/grpo.py", *arguments), files / "out") == []
