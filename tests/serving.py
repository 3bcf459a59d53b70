"""Servers on localhost that answer as a test says, by the protocol of OpenAI-compatible ones."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from a2r_train.engines import Engine, Sampling

Answer = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that has gone away is no news."""


@contextmanager
def serving(model: str, answer: Answer, port: int = 0, context: int | None = None) -> Iterator[str]:
    """The base URL of a server of one model, whose chat completions `answer` writes; vLLM's also tells the
    `context`.
    """
    row = {"id": model} | ({"max_model_len": context} if context else {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            reply(self, 200, {"data": [row]} if self.path == "/v1/models" else {})

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            answer(self, json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(
    handler: BaseHTTPRequestHandler, status: int, content: Any, cut: int | None = None, **headers: str
) -> None:
    body = json.dumps(content).encode()[:cut]
    handler.send_response(status)
    for name, value in {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **headers,
    }.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def completion(
    text: Any, prompt: int = 1, tokens: int = 1, reason: str = "stop", **message: Any
) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
    return {"choices": [choice], "usage": {"prompt_tokens": prompt, "completion_tokens": tokens}}


def answering(engine: Engine) -> Answer:
    """Chat completions by a local engine."""
    lock = threading.Lock()

    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        sampling = Sampling(body["temperature"], body["top_p"], max(0, body["top_k"]), body["max_tokens"])
        with lock:
            (made,) = engine.generate([body["messages"]], sampling, [body["seed"]])
        reply(
            handler,
            200,
            completion(made.text, made.prompt_tokens, made.completion_tokens, made.finish_reason),
        )

    return answer


def saying(*contents: Any, status: int = 200, **headers: str) -> Answer:
    """The same few answers in turn."""
    turn = iter(range(10**6))
    return lambda handler, _: reply(handler, status, contents[next(turn) % len(contents)], **headers)
