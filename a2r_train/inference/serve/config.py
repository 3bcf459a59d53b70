"""The keys of `a2r serve`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from a2r_train.config import check_least
from a2r_train.errors import InputError
from a2r_train.inference.adaptive import Adaptive
from a2r_train.paths import TINY_PAIR


def _key(default: Any, says: str) -> Any:
    return field(default=default, metadata={"help": says})


@dataclass(kw_only=True)
class ServeConfig:
    """What is served, where, and within which limits; lengths in tokens, times in seconds."""

    explorer: str = _key("", "the model of stage 1; if empty, the synthesizer")
    synthesizer: str = _key("", "the model of stage 2; if empty, the explorer; if both are, data/tiny")
    explorer_url: str = _key(
        "", "base URLs of the explorer's servers, comma-separated; if empty, one is started"
    )
    synthesizer_url: str = _key("", "the same for the synthesizer")
    explorer_served_as: str = _key("", "the explorer's name at its servers, if different")
    synthesizer_served_as: str = _key("", "the synthesizer's name at its servers, if different")
    name: str = _key("a2r", "the model's name at this endpoint")
    host: str = _key("127.0.0.1", "address to listen on; 0.0.0.0 for all addresses of this machine")
    port: int = _key(8000, "port to listen on")
    k: int = _key(4, "references per request, unless it asks for another number")
    most_k: int = _key(32, "most references that a request may ask for")
    most_n: int = _key(8, "most syntheses that a request may ask for")
    explore_temperature: float = _key(1.0, "temperature of the explorer, unless a request sets it")
    temperature: float = _key(0.0, "temperature of the synthesizer, unless a request sets it")
    max_reference_completion_tokens: int = _key(1024, "longest completion of the explorer")
    max_completion_tokens: int = _key(1024, "longest synthesis, unless a request sets a length")
    verifier: str = _key("math", "how answers are extracted and votes counted")
    prompt: str = _key("", "a prompt file; if empty, the checkpoint's own or the default")
    adaptive: bool = _key(False, "explore `first` references, then one at a time while another is worth it")
    first: int = _key(2, "with adaptive: references to start with")
    price: float = _key(0.1, "with adaptive: cost of a reference, in right answers")
    skip_agreement: float = _key(
        0.0, "if at least this share of the references agrees, return their answer without stage 2; 0: never"
    )
    prices: str = _key("", "a YAML file of prices, as in evaluate; if empty, no dollars are shown")
    tries: int = _key(6, "tries of a request upstream before it counts as failed")
    request_deadline_s: float = _key(120.0, "seconds of silence after which a try upstream counts as lost")
    explore_deadline_s: float = _key(
        300.0, "seconds of stage 1; then stage 2 starts with the references that are there"
    )
    deadline_s: float = _key(600.0, "seconds of a request from its arrival, including waiting")
    max_concurrent_requests: int = _key(64, "most requests under way at once")
    max_waiting_requests: int = _key(256, "most requests that wait for a slot; further ones get status 429")
    keep_alive_s: float = _key(5.0, "seconds between keep-alive comments while a stream has nothing to send")
    drain_s: float = _key(60.0, "seconds that requests under way get after SIGTERM")
    gpu_memory_utilization: float = _key(0.9, "share of a GPU's memory for all the servers that it starts")
    dry_run: bool = _key(False, "show what would be started, then stop")

    def __post_init__(self) -> None:
        explorer, synthesizer = self.explorer or self.synthesizer, self.synthesizer or self.explorer
        self.explorer, self.synthesizer = (explorer, synthesizer) if explorer else TINY_PAIR

    def check(self) -> None:
        """Raise InputError for a value out of range."""
        check_least(self, k=1, most_n=1, tries=1, max_concurrent_requests=1, max_waiting_requests=0)
        check_least(self, max_reference_completion_tokens=1, max_completion_tokens=1, most_k=self.k)
        for name in ("request_deadline_s", "explore_deadline_s", "deadline_s", "keep_alive_s", "drain_s"):
            if not 0 < getattr(self, name) < 1e9:
                raise InputError(f"{name} is {getattr(self, name):g}; expected seconds, above 0")
        for name in ("explore_temperature", "temperature"):
            if not 0 <= getattr(self, name) <= 2:
                raise InputError(f"{name} is {getattr(self, name):g}; expected 0 to 2")
        if not 0 <= self.port < 65536:
            raise InputError(f"port is {self.port}; expected 1 to 65535, or 0 for any free port")
        if not re.fullmatch(r"[\w./:-]+", self.name):
            raise InputError(f"name is {self.name!r}; expected letters, digits and . / : - _")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise InputError(
                f"gpu_memory_utilization is {self.gpu_memory_utilization:g}; expected above 0, at most 1"
            )
        if self.adaptive and self.first > self.k:
            raise InputError(f"first is {self.first}; expected at most k, {self.k}")
        self.adaptive_for(self.k)

    def adaptive_for(self, k: int) -> Adaptive | None:
        """How exploring stops early in a request for k references; None if it does not."""
        if not (self.adaptive or self.skip_agreement):
            return None
        return Adaptive(self.price, min(self.first, k) if self.adaptive else k, self.skip_agreement)
