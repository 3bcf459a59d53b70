"""The table of docs/results/answers-alone.md where the vote answers what cannot be read."""

import pytest
from test_results import ROOT, table_of

from a2r_train.evaluate.pooled import pool

PAGE, SYSTEM = "docs/results/answers-alone.md", "synthesizer/grpo+fallback"
CONTROL, VOTED, BASE = (
    f"synthesizer/{name}" for name in ("no_references", "no_references+fallback", "base+fallback")
)
RIVALS = ("maj@4", "maj@equal_tokens", CONTROL, VOTED, BASE)
GSM8K, MATH = ["four-bundles", "four-bundles-seed-1"], ["math", "math-seed-1"]
COLUMNS = {
    "GSM8K": (GSM8K, RIVALS),
    "over the control": (["over-control", "over-control-seed-1"], ("maj@4", CONTROL, VOTED)),
    "MATH": (MATH, ("maj@4", CONTROL, VOTED, BASE)),
    "GSM8K and MATH": ([*GSM8K, *MATH], ("maj@4", CONTROL, VOTED, BASE)),
}
TABLES = {  # by the head of their first column: what is added to the folders' names
    "both, unreadable ones by vote, against": "",
    "both, agreeing and unreadable ones by vote, against": "-agreement",
}


def pooled(folders: list[str], rivals: tuple[str, ...]) -> dict[str, str]:
    """The difference to each rival, with its interval."""
    paths = [str(ROOT / "data/results/gsm8k-answers" / folder) for folder in folders]
    _, _, _, _, *lines = pool(paths, SYSTEM, rivals)
    found = {}
    for line in lines:
        rival, difference, span, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        found[rival] = f"{difference} ({span.partition(',')[0].replace('+', '')})"
    return found


@pytest.mark.parametrize("head", TABLES)
def test_the_tables_with_the_fallback_are_those_of_the_pooled_scores(head: str) -> None:
    heads, lines = table_of(PAGE, head)
    assert heads[1:] == list(COLUMNS)
    for place, (folders, rivals) in enumerate(COLUMNS.values(), 1):
        of_table = [
            f"{name.removesuffix('-seed-1')}{TABLES[head]}" + "-seed-1" * ("-seed-1" in name)
            for name in folders
        ]
        found = pooled(of_table, rivals)
        assert [line[place] for line in lines] == [found.get(rival, "") for rival in RIVALS]
