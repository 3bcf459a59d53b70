"""Evaluations of two seeds and two test sets as one."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import a2r, bundle_with

from a2r_train.errors import InputError
from a2r_train.evaluate.pooled import pool, read_scores, write_scores
from a2r_train.evaluate.rows.row import Row
from a2r_train.records import Problem

RANDOM = np.random.default_rng(0)
VOTE, CONTROL, TRAINED = "maj@4", "synthesizer/no_references", "synthesizer/grpo"


def evaluated(
    folder: Path,
    texts: Sequence[str],
    gain: float,
    verifier: str = "math",
    gold: str = "5",
    **rows: np.ndarray,
) -> str:
    """An evaluation whose trained synthesizer is that much above its vote, and as good as its control. The id
    of a problem is its place.
    """
    vote = RANDOM.integers(0, 2, len(texts)).astype(float)
    gains = (RANDOM.random(len(texts)) < gain).astype(float)
    scores = {VOTE: vote, TRAINED: np.maximum(vote, gains), CONTROL: np.maximum(vote, gains[::-1]), **rows}
    bundles = [bundle_with(Problem(str(i), text, gold, verifier), ["5"]) for i, text in enumerate(texts)]
    write_scores(folder, bundles, [Row(name, score, 1.0) for name, score in scores.items()])
    return str(folder)


FIRST, SECOND = [f"{i} more?" for i in range(200)], [f"{i} fewer?" for i in range(100)]


def test_seeds_are_averaged_and_test_sets_are_joined(tmp_path: Path) -> None:
    folders = [
        evaluated(tmp_path / name, texts, 0.3)
        for name, texts in (("a0", FIRST), ("a1", FIRST), ("b0", SECOND), ("b1", SECOND))
    ]
    said, _, head, _, vote, control = pool(folders)
    assert said.endswith("of 300 problems, the mean of 4 evaluations.")
    assert (
        head
        == f"| {TRAINED}, against | pooled | interval | p | smallest detectable | {' | '.join(folders)} |"
    )
    rows = [read_scores(folder).rows for folder in folders]
    own = [100 * float(np.mean(one[TRAINED] - one[VOTE])) for one in rows]
    mean = (200 * np.mean(own[:2]) + 100 * np.mean(own[2:])) / 300
    cells = [cell.strip() for cell in vote.strip("|").split("|")]
    assert cells[0] == VOTE
    assert float(cells[1]) == pytest.approx(mean, abs=0.06)
    assert [float(cell) for cell in cells[5:]] == pytest.approx(own, abs=0.06)
    assert "not told apart" not in vote
    assert "not told apart" in control


@pytest.mark.parametrize(
    ("given", "rivals"),
    [
        (["maj@k", "maj@equal_cost"], ["maj@k"]),
        (
            ["maj@4", "maj@equal_tokens"],
            ["maj@4"],
        ),  # the second is the same vote, as no further rollouts exist
        (
            ["reference/random", "best-of-4/medoid", "best-of-4/mbr-exec"],
            ["reference/random", "best-of-4/medoid"],
        ),
    ],
)
def test_the_votes_or_what_replaces_them_are_rivals(
    given: list[str], rivals: list[str], tmp_path: Path
) -> None:
    vote, other = RANDOM.random(200), RANDOM.random(200)
    scores = {TRAINED: np.ones(200), CONTROL: RANDOM.random(200)}
    scores |= {name: other if "medoid" in name or name == "maj@equal_cost" else vote for name in given}
    bundles = [bundle_with(Problem(str(i), text, "5"), ["5"]) for i, text in enumerate(FIRST)]
    write_scores(tmp_path, bundles, [Row(name, score, 1.0) for name, score in scores.items()])
    lines = pool([str(tmp_path)])[4:]
    assert [line.split("|")[1].strip() for line in lines] == [*rivals, CONTROL]


def test_a_second_evaluation_of_the_same_answers_tells_no_more(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "a", FIRST, 0.1)
    again = str(shutil.copytree(folder, tmp_path / "again"))
    once, twice = pool([folder])[4], pool([folder, again])[4]
    assert once.split("|")[2:6] == twice.split("|")[2:6]


def part_of(folder: str, there: Path, texts: Sequence[str], chosen: Sequence[int]) -> str:
    """The same evaluation of some of its problems, in that order."""
    bundles = [bundle_with(Problem(str(at), texts[i], "5"), ["5"]) for at, i in enumerate(chosen)]
    rows = [Row(name, scores[list(chosen)], 1.0) for name, scores in read_scores(folder).rows.items()]
    write_scores(there, bundles, rows)
    return str(there)


def test_no_order_and_no_missing_problem_makes_more_problems(tmp_path: Path) -> None:
    whole = evaluated(tmp_path / "a", FIRST, 0.1)
    other_order = part_of(whole, tmp_path / "b", FIRST, range(199, -1, -1))
    all_but_one = part_of(whole, tmp_path / "c", FIRST, range(1, 200))
    once = pool([whole])
    for folders in ([whole, other_order], [all_but_one, whole], [whole, other_order, all_but_one]):
        said, *table = pool(folders)
        assert "of 200 problems" in said
        for line, alone in zip(table[3:], once[4:], strict=True):
            (difference, told), (same, as_told) = (one.split("|")[2:6:3] for one in (line, alone))
            assert difference == same
            assert float(told) == pytest.approx(float(as_told), rel=0.1)  # it is resampled in another order


def test_a_problem_has_the_mean_of_the_evaluations_that_have_it(tmp_path: Path) -> None:
    texts = FIRST[:3]
    rows = {VOTE: np.zeros(3), TRAINED: np.array([1.0, 0.0, 0.0])}
    whole = evaluated(tmp_path / "a", texts, 0.0, **rows)
    part = evaluated(tmp_path / "b", texts[:2], 0.0, **{name: np.zeros(2) for name in rows})
    assert pool([whole, part])[0].startswith(f"{TRAINED} is right in 16.7 % of 3 problems")


def test_problems_with_the_same_text_are_counted_each(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "a", [*FIRST[:2], *FIRST[:2]], 0.5)
    again = str(shutil.copytree(folder, tmp_path / "again"))
    assert "of 4 problems" in pool([folder, again])[0]


def test_scores_of_an_earlier_version_are_asked_for_anew(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    old = {"set": "0", "verifiers": ["math"], "problems": ["0"], "rows": {VOTE: [1.0]}}
    (folder / "scores.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"a/scores\.json: written by an earlier version.*evaluate` again"):
        pool([str(folder)])


def test_what_is_compared_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"rounds": np.ones(200)}
    folders = [evaluated(tmp_path / "a", FIRST, 0.3, **given), evaluated(tmp_path / "b", FIRST, 0.3)]
    assert pool(folders[:1], row="rounds")[2].startswith("| rounds, against")
    assert pool(folders)[2].startswith(f"| {TRAINED}, against")
    assert a2r("pool", *folders, "--row", CONTROL, "--against", VOTE) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"| {VOTE} | +")
    assert a2r("pool", *folders, "--row", TRAINED, "--against", f"{CONTROL}, {VOTE},") == 0
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        f"| {CONTROL}",
        f"| {VOTE}",
    ]
    with pytest.raises(InputError, match=r"b: no row 'rounds'; expected it in all evaluations"):
        pool(folders, row="rounds")
    with pytest.raises(InputError, match=r"c: no scores\.json; name the output folder of `a2r evaluate`"):
        pool([str(tmp_path / "c")])
    with pytest.raises(InputError, match=r"a is named twice; name each evaluation once"):
        pool([folders[0], folders[0]])
    with pytest.raises(InputError, match=r"/b/\.\./a/ is named twice"):
        pool([folders[0], f"{folders[1]}/../a/"])
    other = evaluated(tmp_path / "d", FIRST, 0.3, verifier="exact")
    with pytest.raises(InputError, match=r"d was judged by exact, and .*a by math"):
        pool([folders[0], other])
    with pytest.raises(InputError, match="no row 'maj@8'"):
        pool(folders, against=["maj@8"])


def test_golds_that_differ_are_refused(tmp_path: Path) -> None:
    """As where a gold was corrected between the two; a file of an earlier version tells no golds."""
    folders = [evaluated(tmp_path / "a", FIRST, 0.3), evaluated(tmp_path / "b", FIRST, 0.3, gold="6")]
    with pytest.raises(InputError, match=r"b: a problem has the answer '6', and in .*a '5'; correct one"):
        pool(folders)
    path = tmp_path / "b" / "scores.json"
    old = json.loads(path.read_text())
    del old["golds"]
    path.write_text(json.dumps(old))
    assert pool(folders)
    for by_vote in ([VOTE], {VOTE: 1.0}):  # an earlier version named the rows alone
        path.write_text(json.dumps(old | {"by_vote": by_vote}))
        with pytest.raises(InputError, match=rf"{VOTE}: skip_agreement is 0 in .*a, 1 in .*b; evaluate all"):
            pool(folders)


def test_a_row_is_not_compared_with_itself(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "a", FIRST, 0.3)
    assert [line.split(" | ")[0] for line in pool([folder], CONTROL)[4:]] == [f"| {VOTE}"]
    with pytest.raises(InputError, match="--against maj@4: is the compared row itself"):
        pool([folder], VOTE, [CONTROL, VOTE])
