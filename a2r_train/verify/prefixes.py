"""Symbols of units by the case of their letters."""

from __future__ import annotations

import re

# Also G and M alone are units: gauss and moles per litre. `NM` is a nautical mile.
_PREFIXED = re.compile(r"[TGMkhdcmnpf](?:[mgsAKVWJNFCTHSMGBbLl]|Hz|Pa|mol|eV|Wb)|NM")


def has_own_case(word: str) -> bool:
    """Whether these letters name a unit in just this case, so that it counts: `Mm` and `nM` are not `mm` and
    `nm`, but `CM`, `KG` and `Km` can only be what they are in lower case.
    """
    return _PREFIXED.fullmatch(word) is not None
