"""Rollouts to bundles: grouping, the four mixtures, caps, splits, decontamination, and rollouts made
elsewhere.
"""

import json
import random
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import bundle_with, files_of, write_rows
from hypothesis import given
from hypothesis import strategies as st

from a2r_train.data.builder import make_bundles
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.decontaminate import Evaluation, Method
from a2r_train.data.mixture import Facts, cap_all_wrong, choose
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.records import Bundle, Problem, Reference, Rollout
from a2r_train.verify.vote import agreement_of


def a_bundle(problem: int, number: int, n_correct: int, k: int = 4) -> Bundle:
    answers = ["1"] * n_correct + ["2"] * (k - n_correct)
    asked = Problem(f"p{problem}", "x?", "1", "exact")
    return bundle_with(asked, answers, f"p{problem}/{number}", texts=[f"{number} {i}" for i in range(k)])


def facts_of(bundles: list[Bundle], share_correct: dict[str, float]) -> Facts:
    problems = list(dict.fromkeys(b.problem_id for b in bundles))
    return Facts(
        np.array([problems.index(b.problem_id) for b in bundles]),
        np.array([len(b.references) for b in bundles]),
        np.array([b.n_correct for b in bundles]),
        np.array([b.majority_verdict == "correct" for b in bundles]),
        np.array([share_correct.get(b.problem_id, 0.0) for b in bundles]),
        np.array([agreement_of([r.answer for r in b.references], b.verifier).encode() for b in bundles]),
    )


def mixed(bundles: list[Bundle], mixture: str, **options: object) -> tuple[list[Bundle], Counter[str]]:
    settings = {"easy_percent": 50.0, "max_share_correct": 0.5, "rng": random.Random(0), **options}
    facts = facts_of(bundles, settings.pop("share_correct", {}))  # type: ignore[arg-type]
    kept, dropped = choose(facts, mixture, **settings)  # type: ignore[arg-type]
    return [bundles[at] for at in kept], dropped


def test_all_keeps_all() -> None:
    bundles = [a_bundle(i, 0, i % 5) for i in range(10)]
    assert mixed(bundles, "all") == (bundles, Counter())


@pytest.mark.parametrize(("percent", "easy"), [(0.0, 0), (50.0, 5), (100.0, 10), (1000.0, 24)])
def test_hard_plus_easy_keeps_every_hard_bundle_and_so_many_easy_ones(percent: float, easy: int) -> None:
    bundles = [a_bundle(i, j, 1 if i < 5 else 3) for i in range(17) for j in range(2)]
    kept, dropped = mixed(bundles, "hard_plus_easy", easy_percent=percent)
    assert [b for b in kept if b.majority_verdict != "correct"] == bundles[:10]
    assert len(kept) == 10 + easy
    assert kept == sorted(kept, key=bundles.index)
    assert sum(dropped.values()) == 34 - len(kept)
    if easy <= 12:  # no problem comes twice before every problem has come once
        assert len({b.problem_id for b in kept[10:]}) == easy


def test_accuracy_band_looks_at_all_rollouts_and_leaves_both_ends_out() -> None:
    share = {"p0": 0.0, "p1": 0.1, "p2": 0.5, "p3": 0.49, "p4": 1.0}
    kept, dropped = mixed([a_bundle(i, 0, 2) for i in range(5)], "accuracy_band", share_correct=share)
    assert [b.problem_id for b in kept] == ["p1", "p3"]
    assert dropped == Counter({"outside the accuracy band": 3})


def test_balanced_has_one_of_each_and_no_more_correct_than_wrong() -> None:
    kept, _ = mixed([a_bundle(i, 0, i) for i in range(5)], "balanced")
    assert [b.n_correct for b in kept] == [1, 2]


def test_an_unknown_mixture_is_named() -> None:
    with pytest.raises(InputError, match="expected one of all, hard_plus_easy"):
        mixed([a_bundle(0, 0, 1)], "hard")


@given(st.lists(st.integers(0, 4), max_size=40), st.floats(0, 1))
def test_the_cap_on_all_wrong_bundles_holds_and_is_reached(counts: list[int], share: float) -> None:
    bundles = [a_bundle(i, 0, n) for i, n in enumerate(counts)]
    found, dropped = cap_all_wrong(np.array(counts, dtype=int), share, random.Random(0))
    kept = [bundles[at] for at in found]
    wrong = sum(b.n_correct == 0 for b in kept)
    assert wrong <= share * len(kept) + 1e-9
    assert [b for b in kept if b.n_correct] == [b for b in bundles if b.n_correct]
    if sum(dropped.values()):
        assert wrong + 1 > share * (len(kept) + 1) - 1e-9


@pytest.mark.parametrize(("share", "right", "most"), [(0.12, 22, 3), (0.03, 97, 3), (0.08, 207, 18)])
def test_the_cap_on_all_wrong_bundles_is_not_rounded_away(share: float, right: int, most: int) -> None:
    """In floats 0.12 * 22 / 0.88 is a little below 3."""
    counts = np.array([1] * right + [0] * (most + 5))
    found, _ = cap_all_wrong(counts, share, random.Random(0))
    assert len(found) == right + most


PROBLEM = Problem("p", "1?", "1")


def rollouts_of(texts: list[str]) -> list[Rollout]:
    return [Rollout("p", i, text, "1", "correct", completion_tokens=i) for i, text in enumerate(texts)]


def test_bundles_of_a_problem_are_disjoint_while_rollouts_last() -> None:
    made = make_bundles(PROBLEM, rollouts_of([f"t{i}" for i in range(9)]), k=4, k_min=0, count=2, seed=0)
    texts = [reference.text for b in made for reference in b.references]
    assert len(texts) == len(set(texts)) == 8
    assert [b.id for b in made] == ["p/0", "p/1"]


def test_equal_bundles_are_made_once() -> None:
    assert len(make_bundles(PROBLEM, rollouts_of(["a", "b", "c", "d"]), k=4, k_min=0, count=3, seed=0)) == 1
    assert len(make_bundles(PROBLEM, rollouts_of(["a"] * 12), k=4, k_min=0, count=3, seed=0)) == 1


def test_k_is_drawn_from_its_range() -> None:
    made = make_bundles(PROBLEM, rollouts_of([f"t{i}" for i in range(40)]), k=4, k_min=2, count=30, seed=0)
    assert {len(b.references) for b in made} == {2, 3, 4}


def test_problems_with_fewer_than_k_rollouts_have_bundles_of_what_there_is(tmp_path: Path) -> None:
    rows = [
        {"problem": f"{i}+2?", "answer": "5", "text": rf"{j}: \boxed{{5}}"}
        for i in range(4)
        for j in range(3)
    ]
    path = write_rows(tmp_path / "r.jsonl", rows)
    keys = {"rollouts": path, "k": 4, "mixture": "all"}
    made = read(Bundle, str(bundle(config_of(tmp_path, "some", **keys, k_min=2)) / "train.jsonl"))
    assert {b.problem_id for b in made} == {"0", "1", "2", "3"}
    assert {len(b.references) for b in made} <= {2, 3}
    with pytest.raises(InputError, match="no bundle is left"):
        bundle(config_of(tmp_path, "none", **keys))


def test_references_are_what_the_rollouts_were_and_unparsable_answers_do_not_vote() -> None:
    rollouts = [Rollout("p", i, f"t{i}", "", "unparsable", completion_tokens=i) for i in range(3)]
    rollouts.append(Rollout("p", 3, "t3", "1.0", "correct", completion_tokens=3))
    (made,) = make_bundles(PROBLEM, rollouts, k=4, k_min=0, count=1, seed=5)
    kept = sorted(made.references, key=lambda reference: reference.tokens)
    assert kept[:3] == [Reference(f"t{n}", "", "unparsable", n) for n in range(3)]
    assert kept[3] == Reference("t3", "1.0", "correct", 3)
    assert (made.n_correct, made.majority_answer, made.majority_verdict) == (1, "1.0", "correct")
    (silent,) = make_bundles(
        PROBLEM,
        [replace(r, answer="", verdict="unparsable") for r in rollouts],
        k=4,
        k_min=0,
        count=1,
        seed=5,
    )
    assert (silent.majority_answer, silent.majority_verdict) == ("", "unparsable")


def config_of(tmp_path: Path, name: str, **options: object) -> BundleConfig:
    return BundleConfig(output_dir=str(tmp_path / name), **options)  # type: ignore[arg-type]


def test_the_split_is_by_problem(problems: str, rollouts: str, tmp_path: Path) -> None:
    config = config_of(
        tmp_path, "out", rollouts=rollouts, problems=problems, k=2, test_share=0.5, test_bundles_per_problem=2
    )
    folder = bundle(config)
    train, test = (read(Bundle, str(folder / f"{name}.jsonl")) for name in ("train", "test"))
    assert not {b.problem_id for b in train} & {b.problem_id for b in test}
    assert {b.problem_id for b in [*train, *test]} == {f"p{i}" for i in range(1, 8)}
    assert Counter(Counter(b.problem_id for b in [*train, *test]).values()) == Counter({2: 7})


def test_the_same_config_gives_the_same_bytes_and_another_seed_others(
    problems: str, rollouts: str, tmp_path: Path
) -> None:
    made = [
        bundle(config_of(tmp_path, name, rollouts=rollouts, problems=problems, k=3, seed=seed))
        / "train.jsonl"
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert made[0].read_bytes() == made[1].read_bytes() != made[2].read_bytes()


def test_a_second_run_changes_nothing(problems: str, rollouts: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, "out", rollouts=rollouts, problems=problems)
    before = files_of(bundle(config))
    assert files_of(bundle(config)) == before
    own = {"config.yaml", "inputs.json", "versions.json", "done.json", "task.yaml"}
    assert {"train.jsonl", "README.md", "dropped.jsonl", *own} == set(before)


def contaminated(train: list[Problem], evaluation: list[Problem], method: Method) -> dict[str, str]:
    """What of the training problems must go, and the problems that they meet."""
    known = Evaluation(evaluation, method)
    return {problem.id: other for problem in train if (other := known.met(problem))}


LONG = "Tom has 12 red pens and 7 blue pens and gives 3 of them to his sister Ann on Monday"


def test_ngram_decontamination_meets_reworded_text_but_not_other_numbers() -> None:
    evaluation = [Problem("e0", LONG + " morning. How many?", "16"), Problem("e1", "What is 2 + 2?", "4")]
    train = [
        Problem("same", "Well: " + LONG.upper().replace(" AND", ", AND") + "!", "16"),
        Problem("number", LONG.replace("12", "13").replace("3 of", "4 of"), "16"),
        Problem("short", "what is 2+2", "4"),
        Problem("longer", "What is 2 + 2 + 2?", "6"),
        Problem("sign", "What is 2 * 2?", "4"),
    ]
    assert contaminated(train, evaluation, "ngram") == {"same": "e0", "short": "e1"}
    assert contaminated(train, evaluation, "none") == {}


CHINESE = "小明有12支红笔和7支蓝笔，星期一他把其中3支送给了妹妹，"
JAPANESE = "太郎くんは赤いペンを12本、ボールペンを7本持っていて、そのうち3本を妹にあげました。"


@pytest.mark.parametrize(
    ("shared", "begun", "ended"),
    [(CHINESE, "请看这道题：", "问他还剩几支笔？"), (JAPANESE, "問題です。", "残りは何本ですか。")],
    ids=["Chinese", "Japanese"],
)
def test_ngram_decontamination_reads_scripts_without_spaces(shared: str, begun: str, ended: str) -> None:
    evaluation = [Problem("e", shared + ended, "16")]
    train = [
        Problem("same", f"{begun}{shared}", "16"),
        Problem("number", shared.replace("12", "13").replace("7", "8").replace("3", "4"), "17"),
        Problem("other", f"{begun}{ended}", "1"),
    ]
    assert contaminated(train, evaluation, "ngram") == {"same": "e"}


def test_template_decontamination_meets_equal_source_and_numbers() -> None:
    evaluation = [Problem("e", "Tom has 12 pens, 3 are red.", "9", source="pens")]
    train = [
        Problem("same", "Ann has 12 cups, 3 are blue.", "9", source="pens"),
        Problem("order", "Ann has 3 cups, 12 are blue.", "9", source="pens"),
        Problem("source", "Ann has 12 cups, 3 are blue.", "9", source="cups"),
    ]
    assert contaminated(train, evaluation, "template") == {"same": "e"}
    with pytest.raises(InputError, match="expected ngram, template or none"):
        contaminated(train, evaluation, "exact")  # type: ignore[arg-type]


def test_template_decontamination_meets_the_same_text_of_another_source() -> None:
    evaluation = [Problem("e", "Tom has 12 pens, 3 are blue.", "9", source="pens-test")]
    train = [
        Problem("same", "tom has 12  PENS, 3 are blue.", "9", source="pens"),
        Problem("other", "Ann has 12 cups, 3 are blue.", "9", source="pens"),
    ]
    assert contaminated(train, evaluation, "template") == {"same": "e"}


def test_the_name_of_a_file_is_no_template(tmp_path: Path) -> None:
    """Several files lend their names to problems without a source, which those of other files never share."""
    texts = {name: f"{LONG} {name}. How many are left of {i}?" for i, name in enumerate(("a", "b", "c"))}
    files = {
        name: write_rows(tmp_path / f"{name}.jsonl", [{"problem": text, "answer": "9"}])
        for name, text in [*texts.items(), ("x", f"Well: {LONG}, and so on."), ("y", "Say 5, not 6.")]
    }
    made = ("train", ("a", "b", "c")), ("test", ("x", "y"))
    rows = {
        name: write_rows(
            tmp_path / f"{name}.jsonl",
            [{"problem_id": f"{one}/0", "text": rf"\boxed{{{9 + n}}}"} for one in some for n in range(3)],
        )
        for name, some in made
    }
    problems, tests = (",".join(files[one] for one in some) for _, some in made)
    options = {"problems": problems, "rollouts": rows["train"], "test_problems": tests, "k": 2}
    options |= {"test_rollouts": rows["test"], "decontamination": "template"}
    with pytest.raises(InputError, match=r"no bundle is left \(3 problem"):
        bundle(config_of(tmp_path, "out", **options))


VIETNAMESE = "Một cửa hàng bán được hai mươi ba quả táo vào buổi sáng và mười bảy quả táo vào buổi chiều"


def test_decontamination_reads_one_form_of_unicode() -> None:
    evaluation = [
        Problem("e0", unicodedata.normalize("NFC", VIETNAMESE), "40"),
        Problem("e1", CHINESE, "16"),
        Problem("e2", "What is 6 × 2?", "12"),
    ]
    train = [
        Problem("decomposed", unicodedata.normalize("NFD", VIETNAMESE) + "?", "40"),
        Problem("wide", CHINESE.replace("12", "\uff11\uff12"), "16"),
        Problem("sign", "what is 6*2", "12"),
        Problem("other sign", "What is 6 ÷ 2?", "3"),
    ]
    expected = {"decomposed": "e0", "wide": "e1", "sign": "e2"}
    assert contaminated(train, evaluation, "ngram") == expected


def test_template_decontamination_reads_words_where_there_is_no_template() -> None:
    evaluation = [
        Problem("e0", "Is seven a prime?", "yes", source="primes"),
        Problem("e1", "What is 2 + 2?", "4"),
        Problem("e2", "What is 3 + 3?", "6", source="sums"),
    ]
    train = [
        Problem("same", "is seven a prime", "yes", source="other"),
        Problem("words", "Is nine a square?", "yes", source="primes"),
        Problem("numbers", "Of 2 cups, 2 break. How many are left?", "0"),
        Problem("alone", "what is 2+2", "4", source="sums"),
        Problem("both", "what is 3+3", "6"),
    ]
    assert contaminated(train, evaluation, "template") == {"same": "e0", "alone": "e1", "both": "e2"}


def test_contaminated_problems_are_dropped_and_listed(problems: str, rollouts: str, tmp_path: Path) -> None:
    evaluation = write_rows(
        tmp_path / "e.jsonl", [{"id": "e9", "problem": "what is 5 + 10 ?", "answer": "15"}]
    )
    folder = bundle(
        config_of(tmp_path, "out", rollouts=rollouts, problems=problems, decontaminate_against=evaluation)
    )
    assert "p5" not in {b.problem_id for b in read(Bundle, str(folder / "train.jsonl"))}
    assert json.loads((folder / "dropped.jsonl").read_text()) == {"problem_id": "p5", "evaluation_id": "e9"}
    assert "| problem(s) like one of an evaluation set | 1 |" in (folder / "README.md").read_text()


def test_problems_to_keep_out_need_no_answers(problems: str, rollouts: str, tmp_path: Path) -> None:
    """A benchmark's questions are often there without them."""
    asked = write_rows(tmp_path / "e.jsonl", [{"question": "what is 5 + 10 ?"}])
    again = write_rows(tmp_path / "f.jsonl", [{"problem": "What is 6 + 12?", "answer": None}])
    config = config_of(
        tmp_path, "out", rollouts=rollouts, problems=problems, decontaminate_against=f"{asked},{again}"
    )
    folder = bundle(config)
    dropped = [json.loads(line)["problem_id"] for line in (folder / "dropped.jsonl").open()]
    assert dropped == ["p5", "p6"]


def test_the_test_set_itself_is_decontaminated_against(problems: str, rollouts: str, tmp_path: Path) -> None:
    options = {
        "rollouts": rollouts,
        "problems": problems,
        "test_rollouts": rollouts,
        "test_problems": problems,
    }
    with pytest.raises(InputError, match="no bundle is left"):
        bundle(config_of(tmp_path, "out", **options))
    assert not (tmp_path / "out").exists()


def test_rollouts_made_elsewhere_are_verified_by_us(tmp_path: Path) -> None:
    texts = ["So \\boxed{0.5}", "\\boxed{2}", "no idea", "It is \\boxed{\\frac{1}{2}}"]
    rows = [{"question": "Half?", "gold": "1/2", "text": text, "verdict": "correct"} for text in texts]
    columns = json.dumps({"problem": "question", "answer": "gold"})
    options = {
        "rollouts": write_rows(tmp_path / "r.jsonl", rows),
        "columns": columns,
        "bundles_per_problem": 1,
    }
    (made,) = read(Bundle, str(bundle(config_of(tmp_path, "out", **options)) / "train.jsonl"))
    verdicts = {reference.text: reference.verdict for reference in made.references}
    assert [verdicts[text] for text in texts] == ["correct", "incorrect", "unparsable", "correct"]
    assert (made.n_correct, made.majority_verdict, made.answer) == (2, "correct", "1/2")


def test_unjudged_rollouts_of_gsm8k_problems_are_judged(tmp_path: Path) -> None:
    problems = write_rows(tmp_path / "p.jsonl", [{"question": "Eggs?", "answer": "9 * 2 = 18\n#### 18"}])
    rollouts = [{"problem_id": "0", "sample": i, "text": f"\\boxed{{{18 + i % 2}}} {i}"} for i in range(4)]
    options = {
        "rollouts": write_rows(tmp_path / "r.jsonl", rollouts),
        "problems": problems,
        "bundles_per_problem": 1,
    }
    (made,) = read(Bundle, str(bundle(config_of(tmp_path, "out", **options)) / "train.jsonl"))
    assert (made.answer, made.n_correct, sorted(reference.answer for reference in made.references)) == (
        "18",
        2,
        ["18", "18", "19", "19"],
    )


def test_a_set_with_other_names_is_bundled_with_the_columns_it_was_explored_with(
    problems: str, rollouts: str, tmp_path: Path
) -> None:
    plain = config_of(tmp_path, "plain", rollouts=rollouts, problems=problems, decontaminate_against=problems)
    renamed = [{"id": p.id, "question": p.problem, "gold": p.answer} for p in read(Problem, problems)]
    columns = json.dumps(
        {"problem": "question", "answer": "gold"}
    )  # the rollouts' own `answer` stays what it is
    other = replace(
        plain,
        output_dir=str(tmp_path / "other"),
        problems=write_rows(tmp_path / "q.jsonl", renamed),
        columns=columns,
    )
    halves = [replace(c, decontaminate_against="", test_share=0.4) for c in (plain, other)]
    made = [files_of(bundle(c)) for c in halves]
    assert made[0]["train.jsonl"] == made[1]["train.jsonl"]
    assert made[0]["test.jsonl"] == made[1]["test.jsonl"]
    with pytest.raises(
        InputError, match="no bundle is left"
    ):  # the set that it is held against has these names, too
        bundle(replace(other, output_dir=str(tmp_path / "met"), decontaminate_against=other.problems))
    # A test set may have other names again: here those of the records.
    tested = replace(
        other,
        test_problems=problems,
        test_rollouts=rollouts,
        decontamination="none",
        decontaminate_against="",
    )
    bundle(replace(tested, output_dir=str(tmp_path / "tested")))
    assert len(read(Bundle, str(tmp_path / "tested" / "test.jsonl"))) == 7
    with pytest.raises(InputError, match=r"^columns: none of the files has a column 'quest'$"):
        bundle(replace(plain, output_dir=str(tmp_path / "none"), columns='{"problem": "quest"}'))
    with pytest.raises(
        InputError,
        match=r"q\.jsonl:1: no column 'golden'; the columns are .*is it 'gold'\? then set",
    ):
        bundle(
            replace(
                other,
                output_dir=str(tmp_path / "none"),
                columns='{"problem": "question", "answer": "golden"}',
            )
        )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"k": 2, "k_min": 3}, "expected 1 <= k_min <= k"),
        ({"k": 0}, "expected 1 <= k_min <= k"),
        ({"k": 7}, "no bundle is left"),
        ({"test_share": 0.9999}, "every problem is in the test split; lower test_share, or add problems"),
        ({"columns": "{text"}, "expected column names"),
        ({"columns": '["text"]'}, "expected column names"),
        ({"test_share": 0.5, "test_rollouts": "x.jsonl"}, "both given"),
        ({"test_problems": "x.jsonl"}, "test_problems needs test_rollouts"),
        ({"max_all_wrong": 1.5}, "expected a share from 0 to 1"),
        ({"problems": ""}, "no column 'problem'"),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_written(
    options: dict[str, object], says: str, problems: str, rollouts: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        bundle(config_of(tmp_path, "out", **{"rollouts": rollouts, "problems": problems, **options}))
    assert says in str(error.value)
    assert not (tmp_path / "out").exists()
