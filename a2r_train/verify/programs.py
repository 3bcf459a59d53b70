"""`python_tests`: a program is right if its function returns what the hidden tests of its problem expect.

The tests are asserts: a call with literals on one side of `==` and a literal on the other. The calls go to
the sandbox, the expected values never do. What comes back is compared here, as plain data. So a program can
earn reward only by returning the right values.
"""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from a2r_train.errors import InputError
from a2r_train.records import CORRECT, INCORRECT, TIMEOUT, Verdict
from a2r_train.verify import sandbox

log = logging.getLogger(__name__)

NAME = "python_tests"
TESTS, SETUP = "test_list", "test_setup_code"  # in the metadata, as MBPP (arXiv 2108.07732) names them
LIMITS = ("cpu_s", "wall_s")  # in the metadata, if a problem needs more time than others
CACHE_SIZE = 100_000
MAX_NAMED = 50  # problems in one message
MAX_LIMIT_S = 60.0

_cache: dict[sandbox.Run, sandbox.Ended] = {}


class NoTest(InputError):
    """A problem has no assert that can be judged outside the program."""


@dataclass(frozen=True)
class HiddenTests:
    """The hidden tests of a problem: calls as source, what each has to return, and the asserts of other
    forms, which are not used. `function` is the one that the tests call.
    """

    calls: tuple[str, ...]
    expected: tuple[Any, ...]
    function: str
    setup: str = ""
    cpu_s: float = sandbox.CPU_S
    wall_s: float = sandbox.WALL_S
    dropped: tuple[str, ...] = ()

    def run(self, program: str) -> sandbox.Run:
        whole = f"{program}\n\n{self.setup}" if self.setup else program
        return sandbox.Run(whole, self.calls, self.cpu_s, self.wall_s)


def hidden_tests(row: Mapping[str, Any]) -> HiddenTests:
    """The tests in the metadata of a problem.

    Raises InputError for a problem without tests, and for a test that is not Python.
    """
    metadata = row.get("metadata") or {}
    place = f"problem {row['id']!r}: " if row.get("id") else ""
    if not isinstance(metadata, Mapping) or not metadata.get(TESTS):
        raise InputError(f"{place}{NAME} needs hidden tests: a list of asserts as {TESTS!r} in the metadata")
    known = {key: metadata.get(key) for key in (TESTS, SETUP, *LIMITS)}
    try:
        return _tests(json.dumps(known))
    except NoTest as error:
        raise NoTest(f"{place}{error}") from None
    except (InputError, TypeError) as error:
        raise InputError(f"{place}{error}") from None


def check_tests(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise InputError for a problem without tests. Warn about tests that are not used, and about problems
    whose text does not name the function.
    """
    unnamed = [str(row["id"]) for row in rows if hidden_tests(row).function not in row["problem"]]
    if unnamed:
        log.warning(
            "%d problems do not name the function that their tests call, so no model can know it: %s; name "
            "it in the text of the problem",
            len(unnamed),
            _first(unnamed),
        )
    dropped = {str(row["id"]): len(tests.dropped) for row in rows if (tests := hidden_tests(row)).dropped}
    if dropped:
        log.warning(
            "%d tests are left out, as they are not a call with literals on one side of == and a literal on "
            "the other: problems %s",
            sum(dropped.values()),
            _first([*dropped]),
        )


def warn_failing(rows: Sequence[Mapping[str, Any]], place: str) -> None:
    """Warn about problems whose reference solution fails their own tests: no program could learn to pass
    them. Raises InputError as `hidden_tests`.
    """
    verdicts = judge_programs([row["answer"] for row in rows], rows)
    failing = [str(row["id"]) for row, one in zip(rows, verdicts, strict=True) if one == INCORRECT]
    if failing:
        log.warning(
            "%s: the reference solution of %d of %d problems fails their own tests: %s; correct the solution "
            "or the tests, or leave the problems out, because the trainers refuse them",
            place,
            len(failing),
            len(rows),
            _first(failing),
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (" and others" if len(names) > MAX_NAMED else "")


@lru_cache(maxsize=10_000)
def _tests(metadata: str) -> HiddenTests:
    known = json.loads(metadata)
    given, setup = known[TESTS], known[SETUP] or ""
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise InputError(f"{TESTS} is {str(given)[:60]!r}; expected a list of asserts")
    if not isinstance(setup, str):
        raise InputError(f"{SETUP} is {str(setup)[:60]!r}; expected Python source")
    parsed = [(one, _parsed(one)) for one in given]
    usable = [test for _, test in parsed if test]
    if not usable:
        raise NoTest(
            f"none of {len(given)} tests is a call with literals on one side of == and a literal on the "
            f"other, such as {given[0][:80]!r}"
        )
    limits = {key: _limit(key, known[key]) for key in LIMITS if known[key] is not None}
    calls, expected, functions = zip(*usable, strict=True)
    dropped = tuple(one for one, test in parsed if not test)
    return HiddenTests(calls, expected, functions[0], setup, **limits, dropped=dropped)


def _limit(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_LIMIT_S:
        raise InputError(f"{key} is {value!r}; expected seconds, at most {MAX_LIMIT_S:g}")
    return float(value)


def _parsed(test: str) -> tuple[str, Any, str] | None:
    """(call, expected value, function) of an assert; None for one of another form.

    Raises InputError unless it is Python.
    """
    try:
        return _read(ast.parse(test.strip()).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or type(error).__name__
        raise InputError(f"the test {test[:80]!r} does not parse ({reason})") from None


def _read(body: list[ast.stmt]) -> tuple[str, Any, str] | None:
    """The same for the statements of a test; raises ValueError for a number too long for Python to write."""
    compared = body[0].test if len(body) == 1 and isinstance(body[0], ast.Assert) else None
    if not isinstance(compared, ast.Compare) or [type(op) for op in compared.ops] != [ast.Eq]:
        return None
    for call, literal in (
        (compared.left, compared.comparators[0]),
        (compared.comparators[0], compared.left),
    ):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and _has_literals(call):
            known = _literal(literal)
            if known:
                return ast.unparse(call), known[0], call.func.id
    return None


def _has_literals(call: ast.Call) -> bool:
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return all(_literal(value) for value in values)


def _literal(node: ast.expr) -> tuple[Any] | None:
    """The value of a literal, in a tuple; None for anything else."""
    try:
        return (ast.literal_eval(node),)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def judge_programs(programs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Verdicts of programs, each by the tests of its problem; equal runs are made once.

    `timeout` if the sandbox did not answer; a program that exceeds its limits is incorrect. Raises InputError
    as `hidden_tests`.
    """
    tests = [hidden_tests(row) for row in rows]
    runs = [test.run(program) for test, program in zip(tests, programs, strict=True)]
    ended = run_once(runs)
    return [_verdict(test, one) for test, one in zip(tests, ended, strict=True)]


def run_once(runs: Sequence[sandbox.Run]) -> list[sandbox.Ended]:
    """How each run ended; equal ones are made once, and results are cached."""
    new = [run for run in dict.fromkeys(runs) if run not in _cache]
    found = dict(zip(new, sandbox.run_all(new), strict=True))
    known = {run: found[run] if run in found else _cache[run] for run in dict.fromkeys(runs)}
    if len(_cache) + len(found) > CACHE_SIZE:
        _cache.clear()
    _cache.update(islice(((run, one) for run, one in found.items() if one.how != "lost"), CACHE_SIZE))
    return [known[run] for run in runs]


def behaviours(programs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each program returns on the inputs of its problem's tests, as text that is equal if the values
    are; "" for one that returns nothing. Raises InputError as `hidden_tests`.
    """
    runs = [hidden_tests(row).run(program) for row, program in zip(rows, programs, strict=True)]
    return [_behaviour(returned(one)) for one in run_once(runs)]


def _behaviour(values: list[Any]) -> str:
    try:
        return json.dumps([_canonical(value) for value in values]) if values else ""
    except (*JUNK, RecursionError):
        return ""


def _canonical(value: Any) -> Any:
    """The value with one spelling for equal numbers, and one order for sets and dicts."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and value[0] in ("list", "tuple", "set", "frozenset", "dict"):
        parts = [
            [_canonical(part) for part in one] if value[0] == "dict" else _canonical(one) for one in value[1:]
        ]
        if value[0] in ("list", "tuple"):
            return [value[0], *parts]
        return [value[0].removeprefix("frozen"), *sorted(parts, key=json.dumps)]
    number = _scalar(value)
    if isinstance(number, bytes):
        return ["bytes", number.hex()]
    whole = isinstance(number, float) and number.is_integer()
    return ["number", hex(int(number)) if whole or isinstance(number, int) else repr(number)]


def _verdict(tests: HiddenTests, ended: sandbox.Ended) -> Verdict:
    if ended.how == "lost":
        return TIMEOUT
    values = returned(ended)
    if len(values) != len(tests.expected):
        return INCORRECT
    right = all(same(known, value) for known, value in zip(tests.expected, values, strict=True))
    return CORRECT if right else INCORRECT


def returned(ended: sandbox.Ended) -> list[Any]:
    """What a run claims to have returned, as `sandbox_server.plain` writes it; [] for anything else."""
    try:
        values = json.loads(ended.values) if ended.how == "returned" else []
    except (ValueError, RecursionError):
        return []
    return values if isinstance(values, list) else []


JUNK = (ValueError, TypeError, LookupError, OverflowError)  # raised for anything but plain data


def same(expected: Any, value: Any) -> bool:
    """Whether a value that came from a program is equal to the expected one, as Python's == has it.

    It walks along the expected value, so that the output of a program cannot make it slow. Junk is False.
    """
    try:
        return _same(expected, value)
    except (*JUNK, RecursionError):
        return False


def _same(expected: Any, value: Any) -> bool:
    tag, parts = (value[0], value[1:]) if isinstance(value, list) else ("", [])
    if isinstance(expected, list | tuple):
        pairs = zip(expected, parts, strict=False)
        fits = tag == type(expected).__name__ and len(parts) == len(expected)
        return fits and all(_same(one, part) for one, part in pairs)
    if isinstance(expected, set | frozenset):
        return tag in ("set", "frozenset") and len(parts) == len(expected) and _matched(list(expected), parts)
    if isinstance(expected, dict):
        items = [["tuple", *pair] for pair in parts]
        return tag == "dict" and len(parts) == len(expected) and _matched([*expected.items()], items)
    try:
        return bool(expected == _scalar(value))
    except JUNK:  # another member of a set may still be equal
        return False


def _matched(expected: list[Any], parts: list[Any]) -> bool:
    """Whether each expected member has a part of its own that equals it."""
    left = list(parts)
    for one in expected:
        at = next((i for i, part in enumerate(left) if _same(one, part)), None)
        if at is None:
            return False
        del left[at]
    return True


def _scalar(value: Any) -> Any:
    """Raises ValueError, TypeError or LookupError for anything but a scalar."""
    if value is None or isinstance(value, bool | str):
        return value
    tag, *parts = value
    if tag == "int":
        return int(parts[0], 16)
    if tag == "float":
        return float.fromhex(parts[0])
    if tag == "complex":
        return complex(float.fromhex(parts[0]), float.fromhex(parts[1]))
    if tag == "bytes":
        return bytes.fromhex(parts[0])
    raise ValueError(tag)


def signature(program: str, function: str) -> str:
    """`name(parameters)` as a program defines it, without annotations; "" if it does not."""
    try:
        body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    for node in reversed(body):
        if parameters := _parameters(node, function):
            for one in ast.walk(parameters):
                if isinstance(one, ast.arg):
                    one.annotation = None
            return f"{function}({ast.unparse(parameters)})"
    return ""


def _parameters(node: ast.stmt, function: str) -> ast.arguments | None:
    """The parameters, if this statement defines the function, with `def` or as a lambda."""
    if isinstance(node, ast.FunctionDef) and node.name == function:
        return node.args
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Lambda):
        return None
    names = (target.id for target in node.targets if isinstance(target, ast.Name))
    return node.value.args if function in names else None
