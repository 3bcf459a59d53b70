"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from a2r_train.inference.price import COUNTED
from a2r_train.inference.serve.limits import Places
from a2r_train.inference.serve.usage import Report
from a2r_train.inference.work import AGREEMENT, SYNTHESIZER, VOTE

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
# 0.999 separates unanimous references from the others.
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.999, 1.0)


class Metrics:
    """The counts of one endpoint, in its own registry."""

    def __init__(self, places: Places) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("a2r_requests", "chat completions received", registry=registry)
        self._answers = Counter("a2r_answers", "answered, by whom", ["answered_by"], registry=registry)
        self._errors = Counter("a2r_errors", "refused or failed, by kind", ["code"], registry=registry)
        self._left = Counter("a2r_disconnects", "clients that disconnected before the end", registry=registry)
        self._degraded = Counter("a2r_warnings", "answers with a warning", registry=registry)
        self._tokens = Counter("a2r_tokens", "tokens by stage", ["stage"], registry=registry)
        self._seconds = Histogram(
            "a2r_seconds", "seconds by stage", ["stage"], buckets=SECONDS, registry=registry
        )
        self._agreement = Histogram(
            "a2r_agreement", "share of the leading answer", buckets=SHARES, registry=registry
        )
        for answered_by in (SYNTHESIZER, VOTE, AGREEMENT):  # a rate needs the series to exist from the start
            self._answers.labels(answered_by)
        for stage in COUNTED:
            self._tokens.labels(stage)
        for stage in ("wait", "explore", "first_token", "synthesise", "all"):
            self._seconds.labels(stage)
        waiting = Gauge("a2r_waiting", "requests waiting for a slot", registry=registry)
        waiting.set_function(lambda: places.waiting)
        under_way = Gauge("a2r_under_way", "requests under way", registry=registry)
        under_way.set_function(lambda: places.under_way)

    def came(self) -> None:
        self._requests.inc()

    def left(self) -> None:
        self._left.inc()

    def failed(self, code: str) -> None:
        self._errors.labels(code).inc()

    def answered(self, report: Report) -> None:
        self._answers.labels(report.work.answered_by).inc()
        self._degraded.inc(bool(report.warnings))
        self._agreement.observe(report.agreement)
        for stage, count in report.work.tokens.items():
            self._tokens.labels(stage).inc(count)
        for stage, seconds in report.seconds.items():
            self._seconds.labels(stage).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
