"""The openai engine against real servers on localhost: it answers as the local engine; no fault loses or
doubles a request.
"""

import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from conftest import files_of, options, save_tiny, write_rows
from serving import answering, completion, reply, saying, serving

from a2r_train.data.bundle import BundleConfig, built
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.engines import Completion, Engine, EngineArguments, Sampling, check_engine, load_engine
from a2r_train.engines import openai as module
from a2r_train.engines.openai import OpenAIEngine, base_urls
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.models import context_length, count_parameters
from a2r_train.prompts import Prompter
from a2r_train.records import seed_of

KEY = "sk-secret-0123456789"
GREEDY = Sampling(0.0, max_completion_tokens=12)
CHATS = [
    [{"role": "user", "content": content}]
    for content in ("1", "How many apples are left?", "x" * 60, "the answer")
]


@pytest.fixture(scope="module")
def local(tiny: str) -> Engine:
    return load_engine(tiny, EngineArguments(dtype="float32"))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.1)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0, 0.9, 20, 12)], ids=["greedy", "sampled"])
def test_completions_are_those_of_the_local_engine(
    sampling: Sampling, local: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    seeds = [seed_of(0, i) for i in range(len(CHATS))]
    with serving(local.name, answering(local)) as first, serving(local.name, answering(local)) as second:
        engine = load_engine(local.name, EngineArguments(engine="openai", endpoint=f"{first}, {second}/"))
        assert engine.generate(CHATS, sampling, seeds) == local.generate(CHATS, sampling, seeds)
    assert engine.parameters == local.parameters
    assert caplog.text == ""


def test_without_seeds_a_request_has_none(local: Engine) -> None:
    asked: list[dict[str, Any]] = []

    def note(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked.append(body)
        reply(handler, 200, completion("5"))

    with serving(local.name, note) as url:
        for seeded in (True, False):
            load_engine(local.name, EngineArguments(engine="openai", endpoint=url, seeded=seeded)).generate(
                CHATS[:1], GREEDY, [7]
            )
    assert [body.get("seed") for body in asked] == [7, None]


class Faults:
    """One answer in two, by chance: 429, 503, a reset connection, half a JSON, or a stall, each as often as
    the others.
    """

    def __init__(self, stall_s: float) -> None:
        self.random, self.stall_s, self.lock = random.Random(0), stall_s, threading.Lock()
        self.answered, self.faults, self.late = Counter[int](), Counter[str](), 0

    def __call__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        seed = body.get("seed", -1)  # none in a probe
        with self.lock:
            fault = self.random.choice(["429", "503", "reset", "half", "stall", *["none"] * 5])
            self.faults[fault] += 1
            self.late += self.answered[seed] > 0
            self.answered[seed] += fault == "none"
        content = completion(f"answer to {body['messages'][0]['content']} by {seed}")
        if fault in ("429", "503"):
            reply(
                handler,
                int(fault),
                {"error": {"message": "busy"}},
                **({"retry_after": "0"} if fault == "429" else {}),
            )
        elif fault == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RD)
            os.close(handler.connection.detach())
        elif fault == "half":
            reply(handler, 200, content, cut=40)
        else:
            time.sleep(self.stall_s if fault == "stall" else 0)
            reply(handler, 200, content)


def test_a_thousand_requests_through_faults_are_all_answered_once_and_in_order(tiny: str) -> None:
    """Stalls of 20 s, as real ones: A2R_STALL_S=20 pytest -s tests/model/test_openai_engine.py -k
    thousand
    """
    stall_s = float(os.environ.get("A2R_STALL_S", "1"))
    faults = Faults(stall_s)
    chats = [[{"role": "user", "content": f"question {i}"}] for i in range(1000)]
    with serving(tiny, faults) as url:
        engine = OpenAIEngine(tiny, EngineArguments(endpoint=url, request_deadline_s=stall_s / 2))
        found = engine.generate(chats, GREEDY, range(1000))
    recorded = [i for i, c in enumerate(found) if c == Completion("", 0, 0, "failed")]
    assert len(recorded) <= 10  # one in 2 ** TRIES is expected
    for i, c in enumerate(found):
        assert i in recorded or c == Completion(f"answer to question {i} by {i}", 1, 1, "stop")
    assert all(faults.faults[name] > 100 for name in ("429", "503", "reset", "half", "stall"))
    # A busy machine may bring an answer after its deadline; else none that was answered is asked for again.
    assert faults.late <= 100
    print(f"{len(recorded)} recorded as failed, {faults.late} late, {dict(faults.faults)}")


def test_the_bound_of_an_endpoint_holds(tiny: str) -> None:
    lock, now, most = threading.Lock(), Counter[str](), Counter[str]()

    def answer(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        name = handler.headers["host"]
        with lock:
            now[name] += 1
            most[name] = max(most[name], now[name])
        time.sleep(0.02)
        with lock:
            now[name] -= 1
        reply(handler, 200, completion("x"))

    with serving(tiny, answer) as first, serving(tiny, answer) as second:
        engine = OpenAIEngine(tiny, EngineArguments(endpoint=f"{first},{second}", max_concurrent_requests=3))
        engine.generate(CHATS * 10, GREEDY, range(40))
    assert sorted(most.values()) == [3, 3]


def test_the_samples_of_a_chat_go_to_one_endpoint(tiny: str) -> None:
    seen: set[tuple[str, str]] = set()

    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        seen.add((handler.headers["host"], body["messages"][0]["content"]))
        reply(handler, 200, completion("x"))

    with serving(tiny, answer) as first, serving(tiny, answer) as second:
        OpenAIEngine(tiny, EngineArguments(endpoint=f"{first},{second}")).generate(
            CHATS * 3, GREEDY, range(12)
        )
    assert len(seen) == len(CHATS)
    assert sorted(Counter(host for host, _ in seen).values()) == [2, 2]


def test_retry_after_is_waited_for(tiny: str) -> None:
    times: list[float] = []

    def answer(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            reply(handler, 429, {}, retry_after="1")
        else:
            reply(handler, 200, completion("x"))

    with serving(tiny, answer) as url:
        OpenAIEngine(tiny, EngineArguments(endpoint=url)).generate(CHATS[:1], GREEDY, [0])
    assert times[1] - times[0] >= 1


def test_retry_after_is_waited_for_up_to_the_deadline(tiny: str) -> None:
    asked: list[float] = []

    def answer(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        asked.append(time.monotonic())
        reply(
            *((handler, 429, {}) if len(asked) == 1 else (handler, 200, completion("x"))), retry_after="86400"
        )

    with serving(tiny, answer) as url:
        given = EngineArguments(endpoint=url, request_deadline_s=1)
        (made,) = OpenAIEngine(tiny, given).generate(CHATS[:1], GREEDY, [0])
    assert made.text == "x"
    assert 1 <= asked[1] - asked[0] < 30


def test_cut_and_refused_prompts_are_recorded(local: Engine, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Any] = []

    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked.append(body["messages"])
        if body["messages"] == CHATS[2]:
            reply(handler, 400, {"error": {"message": "maximum context length is 8"}})
        elif body["messages"] == CHATS[1]:
            reply(handler, 200, completion(None, 5, 0, "content_filter"))
        else:
            reply(handler, 200, completion("cut", 5, 12, "length"))

    with serving(local.name, answer) as url:
        engine = OpenAIEngine(local.name, EngineArguments(endpoint=url))
        found = engine.generate([*CHATS[2:0:-1], CHATS[3]], GREEDY, [0] * 3)
        engine.generate(CHATS[1:3], GREEDY, [0] * 2)
    assert asked.count(module.PROBE[0]) == 1
    assert [(c.text, c.finish_reason) for c in found] == [("", "refused"), ("", "refused"), ("cut", "length")]
    assert found[0].prompt_tokens == local.generate(CHATS[2:3], GREEDY, [0])[0].prompt_tokens
    assert "2 of 3 requests refused (the last: maximum context length is 8)" in caplog.text


@pytest.mark.parametrize("tells", [True, False])
def test_a_completion_ends_where_the_context_does(tells: bool, local: Engine) -> None:
    """vLLM's server refuses a request for more tokens than the prompt leaves; other engines answer it."""
    whole = context_length(local.name)
    context = 64 if tells else whole
    tokens = Prompter(local.tokenizer).token_ids
    near, full = ([{"role": "user", "content": "x " * n}] for n in room_for(tokens, context - 5, context))
    asked: list[int] = []

    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked.append(body["max_tokens"])
        fits = len(tokens(body["messages"])) + body["max_tokens"] <= context
        words = {"error": {"message": "max_tokens is too large"}}
        reply(handler, 200 if fits else 400, completion("x") if fits else words)

    with serving(local.name, answer, context=context if tells else None) as url:
        engine = OpenAIEngine(local.name, EngineArguments(endpoint=url, max_concurrent_requests=1))
        found = engine.generate([CHATS[0], near, full], GREEDY, [0] * 3)
    assert [one.finish_reason for one in found] == ["stop", "stop", "refused"]
    assert asked[:3] == [12, context - len(tokens(near)), 1]


def room_for(tokens: Any, *sizes: int) -> list[int]:
    """How often a word is written for a prompt of at least that many tokens."""
    counts = range(1, max(sizes))
    return [
        next(n for n in counts if len(tokens([{"role": "user", "content": "x " * n}])) >= size)
        for size in sizes
    ]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_the_sampling_ends_in_one_line(status: int, tiny: str) -> None:
    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        known = "top_k" not in body
        reply(
            handler,
            200 if known else status,
            completion("x") if known else {"error": {"message": "unknown key top_k"}},
        )

    with (
        serving(tiny, answer) as url,
        pytest.raises(InputError, match=rf"^{url}: refuses every request \(unknown key top_k\)"),
    ):
        OpenAIEngine(tiny, EngineArguments(endpoint=url)).generate(CHATS, GREEDY, range(4))


def test_a_server_that_is_down_or_goes_down_ends_in_one_line(tiny: str, other_tiny: str) -> None:
    with serving(tiny, saying(completion("x"))) as url:
        engine = OpenAIEngine(tiny, EngineArguments(endpoint=url))
        assert engine.generate(CHATS, GREEDY, range(4))[3].text == "x"
        with pytest.raises(InputError, match=f"^{url}: serves {tiny}, not {other_tiny}$"):
            OpenAIEngine(other_tiny, EngineArguments(endpoint=url))
    with pytest.raises(InputError, match=rf"^{url}: no server answers /models \(.*\)$"):
        OpenAIEngine(tiny, EngineArguments(endpoint=url))
    with pytest.raises(InputError, match=rf"^{url}: no answer in 10 tries \(.*\); start the server"):
        engine.generate(CHATS, GREEDY, range(4))


def test_a_request_that_always_fails_is_recorded_while_the_server_is_up(
    tiny: str, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        broken = body["messages"] == CHATS[1]
        reply(handler, 500 if broken else 200, {"error": {"message": "boom"}} if broken else completion("x"))

    with serving(tiny, answer) as url:
        found = OpenAIEngine(tiny, EngineArguments(endpoint=url)).generate(CHATS[1:3], GREEDY, [0, 0])
    assert found == [Completion("", 0, 0, "failed"), Completion("x", 1, 1, "stop")]
    assert (
        f"1 of 2 requests failed (the last: {url}: no answer in 10 tries (status 500: boom))" in caplog.text
    )


@pytest.mark.parametrize("stage", ["explore", "evaluate"])
def test_what_failed_is_told_and_asked_again(
    stage: str,
    local: Engine,
    problems: str,
    bundles: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TRIES", 2)
    answer, out = answering(local), tmp_path / "out"

    def broken(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if "What is 3 + 6?" in body["messages"][-1]["content"]:
            reply(handler, 500, {"error": {"message": "boom"}})
        elif "seed" not in body:
            reply(handler, 200, completion("up"))  # to a probe
        else:
            answer(handler, body)

    def run(folder: Path, url: str) -> Any:
        sizes: dict[str, Any] = {"engine": "openai", "endpoint": url, "max_completion_tokens": 5}
        if stage == "explore":
            return explore(
                ExploreConfig(problems, local.name, str(folder), chunk_problems=2, **sizes)
            ).read_bytes()
        found = evaluate(EvaluateConfig(bundles, str(folder), local.name, chunk_bundles=2, draws=50, **sizes))
        return found["rows"], [path.read_bytes() for path in sorted(folder.glob("syntheses/*/0*.jsonl"))]

    with serving(local.name, answer) as url:
        whole = run(tmp_path / "whole", url)
    assert "never answered" not in caplog.text
    with serving(local.name, broken) as url:
        assert run(out, url) != whole
    failed = (
        "8 of 56" if stage == "explore" else "4 of 28"
    )  # each problem 8 times; alone and with references, greedy and at T
    assert f"{out}: {failed} requests were never answered, and count as wrong" in caplog.text
    page = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text()
    (remedy,) = re.findall(r"`(rm -f \$\(grep [^`]*)`", page)
    subprocess.run(["bash", "-c", remedy.replace("OUT", str(out))], check=True)
    caplog.clear()
    asked = Counter[str]()

    def counting(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked["chats"] += 1
        answer(handler, body)

    with serving(local.name, counting) as url:
        assert run(out, url) == whole
    assert asked["chats"] == (
        2 * 8 if stage == "explore" else 2 * 4
    )  # the chunks of those that failed, and no others
    assert "never answered" not in caplog.text


def test_one_of_two_endpoints_may_be_down(tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tiny, saying(completion("x"))) as up:
        with serving(tiny, saying(completion("y"))) as down:
            both = OpenAIEngine(tiny, EngineArguments(endpoint=f"{down},{up}"))
        assert [c.text for c in both.generate(CHATS, GREEDY, range(4))] == ["x"] * 4
        assert OpenAIEngine(tiny, EngineArguments(endpoint=f"{down},{up}")).urls == [up]
    assert f"{down}: no server answers" in caplog.text


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_the_key_is_sent_and_never_told(
    status: int,
    tiny: str,
    tmp_path: Path,
    problems: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    sent = set()

    def answer(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        sent.add(handler.headers["authorization"])
        wrong = {"error": {"message": f"your key {KEY} is not right"}}
        reply(handler, status, completion("x") if status == 200 else wrong)

    said = ""
    with serving(tiny, answer) as url:
        config = ExploreConfig(
            problems, tiny, str(tmp_path / "out"), engine="openai", endpoint=url, max_problems=2
        )
        try:
            explore(config)
        except InputError as error:
            said = "".join(traceback.format_exception(error))
    assert sent == {f"Bearer {KEY}"}
    assert (status >= 400) == ("your key *** is not right" in said)
    assert KEY not in said + caplog.text
    written = files_of(tmp_path / "out")
    assert ("rollouts.jsonl" in written) == (status == 200)
    assert KEY.encode() not in b"".join(written.values())
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY} x")
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        check_engine(tiny, EngineArguments(engine="openai", endpoint=url))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    ["", "localhost:8000", "ftp://a/v1", "http://me:pw@a/v1", "http://a/v1?key=pw", "http://a,http://a/"],
)
def test_what_is_no_endpoint_is_refused_without_being_told(endpoint: str) -> None:
    with pytest.raises(InputError, match=r"^endpoint: expected distinct base URLs") as caught:
        base_urls(endpoint)
    assert "pw" not in str(caught.value)


def test_an_endpoint_needs_its_engine(tiny: str) -> None:
    with pytest.raises(InputError, match="expected engine: openai"):
        check_engine(tiny, EngineArguments(endpoint="http://localhost:8000/v1"))


def test_parameters_are_those_of_the_weights_or_unknown(tiny: str, local: Engine, tmp_path: Path) -> None:
    assert count_parameters(tiny) == local.parameters
    assert count_parameters("data/tiny/explorer") == load_engine("data/tiny/explorer").parameters  # tied
    lone = copytree(tiny, tmp_path / "lone")
    (lone / "config.json").unlink()
    assert count_parameters(str(lone)) == 0


def test_explore_through_an_endpoint_killed_and_resumed(local: Engine, problems: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "samples_per_problem": 3,
        "max_completion_tokens": 6,
        "chunk_problems": 1,
        "dtype": "float32",
    }
    whole = explore(ExploreConfig(problems, local.name, str(tmp_path / "whole"), **sizes)).read_bytes()
    config = ExploreConfig(problems, local.name, str(tmp_path / "out"), engine="openai", **sizes)
    go, asked, answer = threading.Event(), list[int](), answering(local)

    def pausing(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked.append(body["seed"])
        if len(asked) > 7:  # in the third chunk
            go.wait(60)
        answer(handler, body)

    with serving(local.name, pausing) as url:
        given = options(asdict(replace(config, endpoint=url)))
        process = subprocess.Popen(
            [sys.executable, "-m", "a2r_train.cli", "explore", *given], stderr=subprocess.DEVNULL
        )
        limit = time.monotonic() + 60
        while len(asked) < 9 and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        go.set()
    chunks = tmp_path / "out" / "chunks"
    assert [path.name for path in sorted(chunks.glob("*.jsonl"))] == ["000000.jsonl", "000001.jsonl"]
    with serving(local.name, pausing) as url:  # another port: another endpoint may go on
        before = len(asked)
        assert explore(replace(config, endpoint=url)).read_bytes() == whole
    assert len(asked) - before == 5 * 3


def test_evaluate_asks_each_model_where_it_is_served(
    local: Engine, tmp_path: Path, rollouts: str, problems: str
) -> None:
    other = load_engine(save_tiny(tmp_path / "other", seed=5), EngineArguments(dtype="float32"))
    (other_lone := tmp_path / "other" / "config.json").rename(
        tmp_path / "config.json"
    )  # a folder with a tokenizer alone
    with built(BundleConfig(rollouts, "", problems, bundles_per_problem=1)) as made:
        rows = [asdict(b) for b in made.splits["train"].bundles]
    bundles = write_rows(tmp_path / "bundles.jsonl", rows)
    sizes: dict[str, Any] = {
        "max_completion_tokens": 5,
        "draws": 50,
        "rollouts": rollouts,
        "dtype": "float32",
    }
    config = EvaluateConfig(
        bundles, str(tmp_path / "out"), local.name, explorer=other.name, engine="openai", **sizes
    )
    with serving(local.name, answering(local)) as first, serving(other.name, answering(other)) as second:
        found = evaluate(replace(config, endpoint=f"{first},{second}"))
    (tmp_path / "config.json").rename(other_lone)
    ours = {
        row["name"]: row
        for row in evaluate(replace(config, engine="transformers", output_dir=str(tmp_path / "b")))["rows"]
    }
    assert ours.pop("maj@equal_cost")  # left out where the parameters are not known
    assert {row["name"]: row for row in found["rows"]} == ours
