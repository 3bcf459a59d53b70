"""What is imported is left out of the garbage collection of the tests.

The trainers collect all garbage several times a run, and each time Python looks at every object of torch,
transformers and TRL, of which none ever goes. That was a third of the time of the tests that train.
"""

import gc
import sys
from collections.abc import Generator

import pytest

MANY = 100  # modules: so many new ones are worth a look at all objects, which takes a third of a second

gc.set_threshold(10_000)  # as in tests/quick_start
_left_out = 0


def leave_out_what_is_imported() -> None:
    """Also what the first test of a file imports, as the library of a trainer."""
    global _left_out
    if len(sys.modules) - _left_out >= MANY:
        gc.collect()  # real garbage is not to stay
        gc.freeze()
        _left_out = len(sys.modules)


def pytest_collection_finish() -> None:
    leave_out_what_is_imported()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    yield  # before, the test's own objects are still there
    leave_out_what_is_imported()
