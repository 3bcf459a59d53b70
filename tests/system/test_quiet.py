"""Warnings that nobody can act on are not shown; all others are."""

import logging
import os
import warnings

import pytest

from a2r_train.quiet import BARS, hide_bars, hide_warnings


def test_others_names_for_each_other_are_hidden() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        hide_warnings()
        for text in ("`is_gradient_checkpointing` is deprecated and will be removed", "something else"):
            warnings.warn(text, FutureWarning, stacklevel=1)
    assert [str(one.message) for one in shown] == ["something else"]


def test_a_logged_one_is_hidden_and_the_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    hide_warnings()
    for text in ("Setting accelerator to CPU. If you have GPU", "something else"):
        logging.getLogger("DeepSpeed").warning(text)
    assert caplog.messages == ["something else"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bars_are_for_a_terminal(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BARS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    hide_bars()
    assert {os.environ.get(name) for name in BARS} == {None if is_terminal else "1"}
    for name in BARS:
        monkeypatch.delenv(name, raising=False)
