"""`python_tests` without its sandbox: what a test is, where a program stands, and when values are equal."""

import json
from typing import Any

import pytest
from conftest import write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from a2r_train.data.ingest import ingest
from a2r_train.data.read import Columns, read
from a2r_train.data.rollouts import with_their_problems
from a2r_train.data.spill import distinct
from a2r_train.errors import InputError
from a2r_train.records import Problem
from a2r_train.verify import extract, has_vote, majority, traits_of
from a2r_train.verify.extract import last_block, written
from a2r_train.verify.programs import NoTest, check_tests, hidden_tests, same, signature
from a2r_train.verify.sandbox_server import plain

keys = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=1) | st.floats(0, 2),
    lambda inner: st.lists(inner, max_size=2).map(tuple) | st.frozensets(inner, max_size=2),
    max_leaves=3,
)
plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=12,
)


def sent(value: Any) -> Any:
    """What arrives of a value that a program returned."""
    return json.loads(json.dumps(plain(value)))


def row(*tests: Any, **more: Any) -> dict[str, Any]:
    return {"id": "p", "metadata": {"test_list": list(tests), **more}}


@given(plain_data)
@settings(max_examples=300)
def test_what_a_program_returns_arrives(value: Any) -> None:
    assert same(value, sent(value))
    assert not same([value], sent(value))


@given(st.dictionaries(keys, st.integers(0, 3)) | st.sets(keys), st.randoms())
@settings(max_examples=200)
def test_the_order_of_members_does_not_count(value: Any, random: Any) -> None:
    tag, *members = sent(value)
    random.shuffle(members)
    assert same(value, [tag, *members])


@given(plain_data, plain_data)
@settings(max_examples=300)
def test_values_are_equal_as_python_has_it(one: Any, other: Any) -> None:
    assert same(one, sent(other)) == (one == other)


@pytest.mark.parametrize(
    ("expected", "returned", "equal"),
    [
        (1, True, True), (1, 1.0, True), (0.1 + 0.2, 0.3, False), ("1", 1, False), ([1], (1,), False),
        ({1, 2}, frozenset({2, 1}), True), ({1: "a", 2: "b"}, {2: "b", 1: "a"}, True),
        ([[1, {2: (3,)}]], [[1, {2: (3,)}]], True), (set(), {}, False), (-5, -5, True),
        ({1: 2}, {1.0: 2}, True), (1 + 2j, 1 + 2j, True),
        (b"x", bytearray(b"x"), True), ([1, 2], [1, 2, 3], False), ({1, 2}, {1}, False), (None, 0, False),
    ],
)  # fmt: skip
def test_equality(expected: Any, returned: Any, equal: bool) -> None:
    assert same(expected, sent(returned)) is equal


@pytest.mark.parametrize(
    "junk",
    [
        "correct", ["int"], ["int", "zz"], ["int", ["int"]], ["any"], [], {}, {"int": "0x9"},
        ["float", "nan"], ["list", 9], [["int", "0x9"]], ["dict", 1], ["tuple"], 9, 9.0,
        ["complex", "1"], ["bytes", "0x9"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("expected", [9, "nine", [9], {"a": 9}, {9}, (9,), None, True])
def test_junk_is_equal_to_nothing(junk: Any, expected: Any) -> None:
    assert not same(expected, junk) or (expected, junk) == ("correct", "correct")


def test_what_a_program_writes_cannot_make_it_long() -> None:
    deep: Any = ["list"]
    for _ in range(900):
        deep = ["list", deep]
    assert not same([1], deep)
    assert not same({1, 2}, ["set", *[["int", hex(i * (2**61 - 1))] for i in range(20_000)]])


def test_a_test_is_a_call_and_a_literal_on_either_side() -> None:
    tests = hidden_tests(row("assert f(1, [2], k={'a': (3,)}) == -4", "assert 'x' == f(())"))
    assert tests.calls == ("f(1, [2], k={'a': (3,)})", "f(())")
    assert tests.expected == (-4, "x")
    assert tests.function == "f"


@pytest.mark.parametrize(
    "other",
    [
        "assert f(1)", "assert f(g(1)) == 2", "assert f(x) == 2", "assert int(f(1)) == int(2)", "f(1) == 2",
        "assert not f(1) == 2", "assert f(1) == 2 == 3", "assert f(1) == g(2)", "assert a.f(1) == 2",
        "assert f(1.0/3) == 2", "assert f(1) != 2", "assert f(*[1]) == 2", "assert f(1) == 2; import os",
    ],
)  # fmt: skip
def test_asserts_of_another_form_are_left_out_and_known(other: str) -> None:
    assert hidden_tests(row("assert f(0) == 1", other)).dropped == (other,)
    with pytest.raises(NoTest, match="problem 'p': none of 1 tests is a call with literals"):
        hidden_tests(row(other))


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({}, "needs hidden tests: a list of asserts as 'test_list'"),
        ({"test_list": []}, "needs hidden tests"),
        ({"test_list": "assert f(1) == 1"}, "expected a list of asserts"),
        ({"test_list": [1]}, "expected a list of asserts"),
        ({"test_list": ["assert f(1 == 1"]}, r"the test 'assert f\(1 == 1' does not parse"),
        ({"test_list": ["assert f(" + "(" * 500]}, "does not parse"),
        ({"test_list": ["assert f(0x" + "f" * 4000 + ") == 1"]}, "does not parse"),
        ({"test_list": ["assert f(1) == 1"], "cpu_s": -1}, "cpu_s is -1; expected seconds"),
        ({"test_list": ["assert f(1) == 1"], "wall_s": "long"}, "wall_s is 'long'"),
        ({"test_list": ["assert f(1) == 1"], "test_setup_code": 7}, "expected Python source"),
    ],
)
def test_tests_that_cannot_be_used(metadata: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        hidden_tests({"id": "p", "metadata": metadata})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("```\nx\n```\nand\n```py\ny\n```\nend", "y"),
        ("  ```python\n  if x:\n      y\n  ```", "if x:\n    y"),
        ("~~~\nx\n~~~", "x"),
        ("````\n```\nx\n```\n````", "```\nx\n```"),
        ("```python\nx = 1", ""),
        ("```python\nx\n```\nthen\n```python\ncut", "x"),
        ("```x = 1```", ""),
        ("no code", ""),
        ("<think>\n```\nx\n```\n</think>\n\nnothing", ""),
        ("```\n```", ""),
        ('```python\ndef f():\n    """As in\n    ```\n    f()\n    ```\n    """\n```',
         'def f():\n    """As in\n    ```\n    f()\n    ```\n    """'),
        ("1. so:\n    ```\n    x\n    ```", "x"),
        ("```\ndef f():\n    return 1\n    ```", "def f():\n    return 1"),
        ("```\nx\n```\n\nQuestion: another\n```\ny\n```", "x"),
        ("Problem 1: this\n```\nx\n```\nor better:\n```\ny\n```", "y"),
    ],
)  # fmt: skip
def test_the_answer_is_the_last_complete_block(text: str, program: str) -> None:
    assert extract(text, "python_tests") == program


SOLVED = "def f(x):\n    return x + 1"
FENCED = f"```python\n{SOLVED}\n```"


@pytest.mark.parametrize(
    "after",
    [
        "Output:\n```\n2\n```", "```output\n2\n```", "```python\nprint(f(1))\n```", "```\n>>> f(1)\n2\n```",
        "```python\nresult = f(1)\nprint(result)\n```", "Run it:\n```bash\npython f.py\n```",
        "Usage:\n```python\nfrom solution import f\n\nprint(f(1))  # 2\n```", "```json\n[2]\n```",
        "```python\nassert f(1) == 2\nassert f(2) == 3\n```",
        "```python\ndef test_f():\n    assert f(1) == 2\n```",
        "```python\nimport unittest\n\n\nclass TestF(unittest.TestCase):\n    def test(self):\n"
        "        self.assertEqual(f(1), 2)\n```",
        "```python\ndef main():\n    print(f(int(input())))\n\n\nmain()\n```",
        "In Java:\n```java\nclass F {\n    int f(int x) { return x + 1; }\n}\n```",
        "```python\n# f takes time O(1)\n```", "```python\ndef g():\n    return f(1)\n```\n```\n2\n```",
    ],
)  # fmt: skip
def test_what_uses_or_tests_a_program_is_not_the_program(after: str) -> None:
    assert extract(f"{FENCED}\n\n{after}", "python_tests") == SOLVED


@pytest.mark.parametrize(
    "later",
    [
        "def f(x):\n    return 1 + x\n\n\nprint(f(1))", "def f(x):\n    return f(x - 1) + 1",
        "f = lambda x: x + 1",
        "async def f(x):\n    return x", "class F:\n    pass",
        "import math\n\n\ndef g(x):\n    return math.floor(x)",
        "def f(x):\n    return x +",
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", ["python", "", "py", "Python 3", "{.python}", "python, linenums=1"])
def test_a_later_program_replaces_the_earlier(later: str, language: str) -> None:
    assert extract(f"{FENCED}\n\nBetter:\n```{language}\n{later}\n```", "python_tests") == later


@pytest.mark.parametrize("only", ["print(1)", "import math\nf = math.floor", "SELECT 1", "5"])
def test_without_a_definition_the_last_block_counts(only: str) -> None:
    assert extract(f"```\nx\n```\n\n```\n{only}\n```", "python_tests") == only


def test_many_blocks_take_no_longer_than_their_text() -> None:
    blocks = "".join(f"```\ndef f{i}():\n    f{i - 1}()\n```\n" for i in range(4000))
    assert extract(blocks, "python_tests") == "def f0():\n    f-1()"


@given(st.text(alphabet="ab`~ \n"))
def test_any_text_has_a_block_or_none(text: str) -> None:
    assert isinstance(last_block(text), str)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>5</answer>", "5"), ("<answer>4</answer> no, <answer> 5 </answer>", "5"), ("<answer>5", ""),
        ("<Answer>a\nb</Answer>", "a\nb"), ("5", ""), ("<answer><answer>5</answer>", "5"),
        ("<answer></answer>", ""),
    ],
)  # fmt: skip
def test_tagged_answers(text: str, answer: str) -> None:
    assert extract(text, "reasoning_gym") == answer


@pytest.mark.parametrize("verifier", ["math", "exact", "python_tests", "reasoning_gym"])
def test_what_is_written_is_found(verifier: str) -> None:
    assert extract(f"So\n\n{written('x + 1', verifier)}", verifier) == "x + 1"


def test_votes() -> None:
    assert not has_vote("python_tests")
    assert majority(["x", "x", "y"], "python_tests").groups == []
    assert majority(["a  b", "c", "a b", ""], "reasoning_gym").groups == [[0, 2], [1]]
    assert {traits_of(name).vote for name in ("math", "exact", "multiple_choice")} == {"equivalence"}


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("def f(a, b=2, *c, d, **e):\n    pass", "f(a, b=2, *c, d, **e)"),
        ("def f(a: int) -> int:\n    pass", "f(a)"),
        ("def g():\n    pass\ndef f():\n    pass", "f()"),
        ("f = 1", ""),
        ("f = g = lambda a, b=2: a", "f(a, b=2)"),
        ("def f(", ""),
    ],
)
def test_signature(program: str, found: str) -> None:
    assert signature(program, "f") == found


MBPP = {
    "task_id": 7,
    "text": "Write f.",
    "code": "def f(a):\r\n    return a",
    "test_list": ["assert f(1) == 1"],
}


def test_rows_of_mbpp(tmp_path: Any, caplog: Any) -> None:
    other = {**MBPP, "task_id": 8, "test_list": ["assert f(g) == 1"]}
    path = tmp_path / "mbpp.jsonl"
    path.write_text(json.dumps(MBPP) + "\n" + json.dumps(other) + "\n")
    (problem,) = read(Problem, str(path))
    assert problem.problem == "Write f.\n\nThe function is `f(a)`."
    assert (problem.id, problem.verifier, problem.answer) == ("7", "python_tests", "def f(a):\n    return a")
    assert problem.metadata == {"test_list": ["assert f(1) == 1"]}
    assert "left out 1 problem(s), as none of their tests" in caplog.text
    assert caplog.text.rstrip().endswith("on the other: 8")


LISTED = [{**MBPP, "generations": ["```python\nx\n```", "none"]}]
EACH = [{**MBPP, "completion": text} for text in LISTED[0]["generations"]]
PLAIN = {"id": "7", "problem": "1 + 1?", "answer": "2", "generations": LISTED[0]["generations"]}
UNTESTED = {**LISTED[0], "task_id": 8, "test_list": ["assert f(g) == 1"]}


@pytest.mark.parametrize("rows", [LISTED, EACH, [UNTESTED, *LISTED], [PLAIN], [{**PLAIN, "id": 7}]])
def test_rollouts_beside_their_problems_keep_the_ids_of_these(
    rows: list[dict[str, Any]], tmp_path: Any, caplog: Any
) -> None:
    path = write_rows(tmp_path / "made.jsonl", rows)
    (problem,), found = with_their_problems(path, Columns())
    assert (problem.id, [one.text for one in found]) == ("7", PLAIN["generations"])
    told = caplog.text.count("left out 1 problem(s)")
    assert told == (UNTESTED in rows)
    store = ingest("", path, Columns(), tmp_path / "store", 1, 1)  # as bundle reads them
    ids = [one for file in store.files("problems") for one in distinct(file, "id")]
    assert (set(ids), store.rollouts) == ({"7"}, 2)
    assert caplog.text.count("left out 1 problem(s)") == 2 * told


def test_rows_of_programs_without_rollouts_are_none(tmp_path: Any) -> None:
    path = write_rows(tmp_path / "made.jsonl", [MBPP])
    with pytest.raises(InputError, match=r"made.jsonl:1: no column 'texts'|no column 'text'"):
        with_their_problems(path, Columns())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": ""}, "field 'text' has no text"),
        ({"code": None}, "field 'code' has no text"),
        ({"code": "def g(): pass"}, "does not define 'f'"),
        ({"test_list": ["assert f(1 == 1"]}, "does not parse"),
        ({"test_list": "assert"}, "expected a list of asserts"),
    ],
)
def test_bad_rows_of_mbpp(change: dict[str, Any], says: str, tmp_path: Any) -> None:
    path = tmp_path / "mbpp.jsonl"
    path.write_text(json.dumps({**MBPP, **change}) + "\n")
    with pytest.raises(InputError, match=f"mbpp.jsonl:1: .*{says}"):
        read(Problem, str(path))


def test_the_tests_of_a_table_are_json(tmp_path: Any) -> None:
    path = tmp_path / "mbpp.csv"
    path.write_text('text,code,test_list\nWrite f.,def f(a): return a,"[""assert f(1) == 1""]"\n')
    (problem,) = read(Problem, str(path))
    assert problem.metadata == {"test_list": ["assert f(1) == 1"]}


def test_a_text_that_does_not_name_the_function_is_told(caplog: Any) -> None:
    rows = [{**row("assert f(1) == 1"), "problem": text} for text in ("Write f.", "Write it.")]
    check_tests(rows)
    assert "1 problems do not name the function that their tests call" in caplog.text


def test_the_shipped_problems() -> None:
    found = [p for name in ("train", "test") for p in read(Problem, f"data/code/{name}.jsonl")]
    assert len(found) >= 60
    assert len({problem.problem for problem in found}) == len(found)
    assert not any("assert" in problem.problem for problem in found)
    assert all(len(set(hidden_tests({"metadata": p.metadata}).calls)) >= 5 for p in found)
