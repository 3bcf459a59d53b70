"""Values of cells as the types of records: what pandas, tables and Parquet write for a text, a number or an
object.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from a2r_train.config import check_keys
from a2r_train.data.files import literal
from a2r_train.errors import InputError
from a2r_train.records import VERDICTS, Reference

# A message, or a list of them, as JSON or Python writes it.
_CHAT = re.compile(
    r"""\s*\[?\s*\{\s*["'](?:(?=.*\bcontent["']\s*:)(?=.*\brole["']\s*:)|(?=.*\bvalue["']\s*:)from["']\s*:)""",
    re.DOTALL,
)


def is_null(value: Any) -> bool:
    """Whether a value is missing; pandas writes NaN for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_chat(value: Any) -> bool:
    """Whether a value, or the first item of a list, is a chat or its text."""
    if isinstance(value, str) and value[:1] not in "[{ \n":  # most texts, for speed
        return False
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, str | list | dict) and bool(_CHAT.match(str(first)))


def typed(value: Any, hint: str, place: str) -> Any:
    """The value of a cell as the type that a record's field has. Raises InputError if it is no such value."""
    if hint in ("str", "Verdict"):
        return _text(value, hint, place)
    if hint == "int":
        return _whole(value, place)
    if hint == "bool":
        return _truth(value, place)
    if hint == "float":
        return _number(value, place)
    if hint.startswith("dict"):
        return _mapping(value, place)
    if hint == "Reference":
        return _reference(value, place)
    if isinstance(value, str):
        value = literal(value)
    if not isinstance(value, list):
        raise InputError(f"{place}: {str(value)[:80]!r}; expected a list, or its JSON")
    inner = hint.removeprefix("list[").removesuffix("]")
    return [typed(item, inner, place) for item in value]


def _whole(value: Any, place: str) -> int:
    """A whole number; also 3.0, which pandas writes in a column with missing values, and its text, as in a
    CSV.
    """
    if isinstance(value, str) and (digits := re.fullmatch(r"\s*(-?[0-9]{1,18})(\.0*)?\s*", value)):
        return int(digits[1])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{place}: {value!r}; expected a whole number")
    return value


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InputError(f"{place}: {str(value)[:80]!r}; expected a number")
    return float(value)


def _truth(value: Any, place: str) -> bool:
    if isinstance(value, bool):
        return value
    raise InputError(f"{place}: {str(value)[:80]!r}; expected true or false")


def _text(value: Any, hint: str, place: str) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise InputError(f"{place}: bytes that are not UTF-8; expected text") from None
    if is_null(value):  # also NaN in a list of texts
        raise InputError(f"{place}: null; expected text")
    if isinstance(value, bool | list | dict):
        raise InputError(f"{place}: a {type(value).__name__}; expected text")
    if hint == "Verdict" and value not in VERDICTS:
        raise InputError(
            f"{place}: {value!r}; expected {', '.join(VERDICTS)}, or no column: `a2r bundle` judges"
        )
    if isinstance(value, datetime) and value.time() == time.min:  # how pandas keeps a date
        value = value.date()
    if isinstance(value, time) and value.second == value.microsecond == 0:
        value = value.strftime("%H:%M")
    if isinstance(value, float) and value.is_integer():  # pandas writes 3 so in a column with missing values
        value = int(value)
    if isinstance(value, float | Decimal) and math.isfinite(value):
        value = format(Decimal(str(value)), "f")  # 1e-07, which no verifier reads, is 0.0000001
    # half of a surrogate pair, which no tokenizer takes, becomes `?`
    return str(value).encode(errors="replace").decode()


def _mapping(value: Any, place: str) -> dict[str, Any]:
    """An object, or the JSON text of one, as in tables."""
    if isinstance(value, str):
        value = literal(value)
    if not isinstance(value, dict):
        raise InputError(f"{place}: {str(value)[:80]!r}; expected an object, or its JSON")
    found: dict[str, Any] = _plain(value, place)
    return found


def _plain(value: Any, place: str) -> Any:
    """A value as JSON has it: Parquet also holds dates, decimal numbers and bytes."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one, place) for one in value]
    if isinstance(value, dict):
        names = (key if isinstance(key, str | int | float | None) else str(key) for key in value)
        return {name: _plain(one, place) for name, one in zip(names, value.values(), strict=True)}
    if isinstance(value, date | time):  # a datetime is a date too
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == int(value) else float(value)
    if isinstance(value, bytes):
        return _text(value, "str", place)
    raise InputError(
        f"{place}: holds a {type(value).__name__}, which JSON does not have; store it as text or as a number"
    )


def _reference(value: Any, place: str) -> Reference:
    if not isinstance(value, dict):
        raise InputError(
            f"{place}: a reference is {str(value)[:40]!r}; expected an "
            "object with text, answer, verdict, tokens"
        )
    hints = {known.name: str(known.type) for known in fields(Reference)}
    check_keys(value, set(hints), place)
    if value.get("text") is None:
        raise InputError(f"{place}: a reference without text")
    known = {
        name: typed(given, hints[name], f"{place}: {name}")
        for name, given in value.items()
        if given is not None
    }
    return Reference(**known)
