"""What a client gets if there is no answer: an error in OpenAI's format, with a fitting status."""

from __future__ import annotations

import math
from typing import Any

INVALID, UPSTREAM = "invalid_request_error", "upstream_error"


class ApiError(Exception):
    """A refusal. `param` names the wrong parameter; `code` is the kind, as in /metrics."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        kind: str = INVALID,
        param: str | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.kind, self.param = status, code, kind, param
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The body that is sent, in the format that OpenAI's clients read."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(math.ceil(self.retry_after_s))} if self.retry_after_s else {}


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """The error for a request with a wrong value of `param`."""
    return ApiError(400, f"{param}: {message}", code=code, param=param)


class UpstreamError(Exception):
    """A model's server gave no answer; `kind` is a key of `STATUS`."""

    def __init__(self, kind: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.retry_after_s = kind, retry_after_s

    def as_api_error(self, stage: str) -> ApiError:
        """The same error as the client of this endpoint gets it."""
        status, param = STATUS[self.kind], "messages" if self.kind == "refused" else None
        return ApiError(
            status,
            f"{stage}: {self}",
            code=f"upstream_{self.kind}",
            kind=INVALID if status == 400 else UPSTREAM,
            param=param,
            retry_after_s=self.retry_after_s or (1.0 if status in (429, 503) else 0.0),
        )


# What may go wrong at a model's server, and the status that this endpoint answers with.
STATUS = {
    "refused": 400,  # it rejects the request, mostly because it does not fit the context
    "rate_limited": 429,
    "denied": 502,  # our key or the model's name is wrong
    "lost": 502,  # no connection, or it ended early
    "broken": 502,  # not a valid answer
    "error": 502,  # 5xx
    "diverged": 502,  # another try writes a text other than what the client has read
    "unavailable": 503,
    "timeout": 504,
    "loop": 508,
}
# Kinds after which another try may succeed.
AGAIN = frozenset(STATUS) - {"refused", "denied", "diverged", "loop"}
