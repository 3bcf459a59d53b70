"""`a2r rescore`: kept tables come out the same again, without a model and without a text.

One of each kind is made again here. `a2r rescore data/results` makes all 61: CONTRIBUTING.md.
"""

import re
from pathlib import Path

import pytest

from a2r_train.commands.rescore import report_scores
from a2r_train.evaluate.kept import find_evaluations

ROOT = Path(__file__).parents[2]
SETS = ("four-bundles", "eight-references", "over-control")
WITH_ANSWERS = {
    *("gsm8k/evaluation-0.5b", "gsm8k-1.5b/evaluation-1.5b", "gsm8k-trained/first-1.5b"),
    "gsm8k-trained/four-bundles-1.5b",
    *(f"gsm8k-answers/{name}{end}" for name in SETS for end in ("", "-seed-1")),
    "gsm8k-levers-1.5b/unsolved-explorer",
    "gsm8k-levers-1.5b/unsolved-synthesizer",
}
SHARING = {f"gsm8k-answers/{name}-agreement{end}" for name in SETS for end in ("", "-seed-1")}
TABLES = (
    *("mawps", "mbpp", "gsm8k-levers/validation/", "gsm8k-levers-1.5b/"),
    "gsm8k-trained/two-bundles",
)
SAMPLE = {
    "gsm8k-1.5b/evaluation-1.5b": "same bytes",
    "gsm8k/votes-4": "same bytes",
    "gsm8k/evaluation-1.5b": "pass@1, pass@4, maj@4, maj@equal_tokens",
    "mawps/1.5b": "only the table is kept; not checked",
}

pytestmark = pytest.mark.usefixtures("at_root")


def test_what_is_kept_of_each_shipped_result() -> None:
    """Answers of twelve, which six share, rollouts of ten and of the votes, and the tables of the rest."""
    found = {str(path.relative_to("data/results")) for path in find_evaluations("data/results")}
    assert len(found) == 61
    judged = {name for name in found if Path("data/results", name, "manifest.json").is_file()}
    votes = {name for name in found if "/votes-" in name}
    assert {name for name in judged if Path("data/results", name, "syntheses").is_dir()} == WITH_ANSWERS
    assert WITH_ANSWERS | SHARING | votes <= judged
    assert len(judged - WITH_ANSWERS - SHARING - votes) == 10
    assert all(name.startswith(TABLES) for name in found - judged)


def test_one_of_each_kind_comes_out_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_scores([Path("data/results", name) for name in SAMPLE])
    said = dict(re.findall(r"^data/results/(\S+): (.*)$", capsys.readouterr().out, re.MULTILINE))
    assert said.keys() == SAMPLE.keys()
    for name, begins in SAMPLE.items():
        assert said[name].startswith(begins), name
