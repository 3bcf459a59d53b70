"""What a client is told where there is no answer: OpenAI's shape, and a status of its kind."""

from __future__ import annotations

import math
from typing import Any

INVALID, UPSTREAM = "invalid_request_error", "upstream_error"


class ApiError(Exception):
    """A refusal. `param` names the parameter that is wrong; `code` is the kind, as in /metrics."""

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
        """What is sent; OpenAI's clients read it."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(math.ceil(self.retry_after_s))} if self.retry_after_s else {}


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """A request that names something wrong in `param`."""
    return ApiError(400, f"{param}: {message}", code=code, param=param)


class UpstreamError(Exception):
    """A model's server gave no answer; `kind` is a key of `STATUS`."""

    def __init__(self, kind: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.retry_after_s = kind, retry_after_s

    def as_api_error(self, stage: str) -> ApiError:
        """The same as the client of this endpoint sees it."""
        status, param = STATUS[self.kind], "messages" if self.kind == "refused" else None
        return ApiError(
            status,
            f"{stage}: {self}",
            code=f"upstream_{self.kind}",
            kind=INVALID if status == 400 else UPSTREAM,
            param=param,
            retry_after_s=self.retry_after_s or (1.0 if status in (429, 503) else 0.0),
        )


# What may go wrong at a model's server, and the status that says so here.
STATUS = {
    "refused": 400,  # it does not take the request: mostly a context that does not fit
    "rate_limited": 429,
    "denied": 502,  # our key, or the model's name
    "lost": 502,  # no connection, or one that ended early
    "broken": 502,  # an answer that is none
    "error": 502,  # 5xx
    "diverged": 502,  # another try writes something else than what the client has read
    "unavailable": 503,
    "timeout": 504,
    "loop": 508,
}
# Those of which another try may come out otherwise.
AGAIN = frozenset(STATUS) - {"refused", "denied", "diverged", "loop"}
