"""The page of faults."""

import fault_table
from bad_inputs import Said


def test_the_page_shows_what_was_lost_and_every_line() -> None:
    rows = [
        fault_table.Row("SIGKILL", "sft", 10, 9, "losses of steps [3]"),
        fault_table.Row("SIGKILL", "grpo", 10, 10, "nothing"),
    ]
    page = fault_table.document(rows, [Said("a bar", "explore", 2, "a | b")], kills=10, seed=0)
    assert "| SIGKILL |  |  | 9 of 10 | 10 of 10 |  |\n" in page
    assert "- SIGKILL, sft: losses of steps [3]\n" in page
    assert page.endswith("| a bar | explore | 2 | `a \\| b` |\n")
