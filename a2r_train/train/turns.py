"""Turn markers in the targets of others: trained on, they would teach the model to open a second turn."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from accelerate import PartialState

from a2r_train.errors import InputError
from a2r_train.markers import THINK_CLOSE, THINK_OPEN, marker_pattern
from a2r_train.prompts import Prompter
from a2r_train.records import Synthesis

log = logging.getLogger(__name__)


def without_turns(targets: Sequence[Synthesis], prompter: Prompter, source: str) -> list[Synthesis]:
    """The targets without the token that ends their turn, which is trained on anyway.

    Raises InputError for a target with any other turn marker.
    """
    ends, markers = _ends(prompter), _markers(prompter)
    made, cut = [], 0
    for target in targets:
        text = _without_end(target.text, ends)
        cut += text != target.text
        if found := _marker_in(text, prompter, markers):
            raise InputError(
                f"{source}: the target for bundle {target.bundle_id!r} holds {found!r}, by which the model "
                "parts turns; supply the text of the answer alone"
            )
        made.append(replace(target, text=text))
    if cut and PartialState().is_main_process:
        log.warning(
            "%s: %d of %d targets end in the token that ends a turn; it is removed, as each target gets one",
            source,
            cut,
            len(targets),
        )
    return made


def _ends(prompter: Prompter) -> list[str]:
    tokenizer: Any = prompter.tokenizer
    return [str(token) for token in tokenizer.convert_ids_to_tokens(prompter.stop_ids())]


def _without_end(text: str, ends: Sequence[str]) -> str:
    kept = text.rstrip()
    return next((kept.removesuffix(end).rstrip() for end in ends if kept.endswith(end)), text)


def _markers(prompter: Prompter) -> tuple[re.Pattern[str], str]:
    """What may be a marker, and a conversation, which shows those of turns."""
    chat = prompter.explorer("0said0")
    shown = f"{prompter.text(chat)}\n{prompter.conversation(chat, '1said1')}\n{' '.join(_ends(prompter))}"
    return marker_pattern(prompter.tokenizer, (), ""), shown


def _marker_in(text: str, prompter: Prompter, markers: tuple[re.Pattern[str], str]) -> str:
    """The first turn marker of a text, "" if it has none. A label such as `Answer:` may be meant as prose."""
    pattern, shown = markers
    for match in pattern.finditer(prompter.canonical(text)):
        found = match.group().strip()
        if found in shown and found not in (THINK_OPEN, THINK_CLOSE) and not found[0].isalnum():
            return found
    return ""
