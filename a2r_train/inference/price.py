"""What an answer costs: its tokens by stage, and their price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

COUNTED = ("explorer_prompt", "references", "synthesizer_prompt", "synthesis")  # read and written, by stage


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens that one model reads and writes."""

    prompt: float = 0.0
    completion: float = 0.0


def no_tokens() -> dict[str, int]:
    """The tokens by stage before any is read or written."""
    return dict.fromkeys(COUNTED, 0)


def dollars(tokens: Mapping[str, int], prices: Mapping[str, Price], explorer: str, synthesizer: str) -> float:
    """The price of tokens by stage; a model that is not in the table costs nothing."""
    first, second = prices.get(explorer, Price()), prices.get(synthesizer, Price())
    cost = tokens["explorer_prompt"] * first.prompt + tokens["references"] * first.completion
    cost += tokens["synthesizer_prompt"] * second.prompt + tokens["synthesis"] * second.completion
    return cost / 1e6
