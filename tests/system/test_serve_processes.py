"""`a2r serve` as a process: vLLM's servers as its children, signals, what it refuses to start with."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from faulty_upstream import FaultyUpstream, in_thread, saying
from launching import with_vllm, without_vllm
from pairs import EXPLORER, ROOT, SYNTHESIZER, forever, references, synthesis

START_S = 400.0


class Process:
    """A started command, and the lines that it has said."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "a2r_train.cli", "serve", "--port", "0", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.lines += self.process.stderr  # ends with the process

    def url(self) -> str:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            for line in list(self.lines):
                if found := re.search(r" at (http://\S+)/v1$", line.strip()):
                    return found[1]
            time.sleep(0.05)
        raise AssertionError("".join(self.lines))

    def ended(self, timeout_s: float = 60.0) -> int:
        status = self.process.wait(timeout_s)
        self._reader.join(5)
        return status


@contextmanager
def process(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[Process]:
    one = Process(*arguments, environment=environment or without_vllm())
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


@contextmanager
def upstreams(**chunks: Any) -> Iterator[tuple[FaultyUpstream, FaultyUpstream, list[str]]]:
    first = FaultyUpstream(EXPLORER, chunks.get("explorer", saying(references)))
    second = FaultyUpstream(SYNTHESIZER, chunks.get("synthesizer", saying(synthesis)))
    with in_thread() as thread:
        urls = [thread.run(first.start()), thread.run(second.start())]
        yield first, second, [
            "--explorer", EXPLORER, "--synthesizer", SYNTHESIZER,
            "--explorer_url", urls[0], "--synthesizer_url", urls[1],
        ]  # fmt: skip


def test_it_starts_vllm_answers_with_the_tiny_pair_and_takes_its_children_along() -> None:
    with process(environment=with_vllm()) as one:
        url = one.url()
        children = psutil.Process(one.process.pid).children(recursive=True)
        assert sum("vllm" in " ".join(child.cmdline()) for child in children) >= 2
        rows = [json.loads(line) for line in (ROOT / "data/tiny/test.jsonl").read_text().splitlines()[:8]]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            def ask(problem: str, **more: Any) -> Any:
                turns: Any = [{"role": "user", "content": problem}]
                return client.chat.completions.create(model="a2r", messages=turns, seed=3, **more)

            answers = [ask(row["problem"]) for row in rows]
            texts = [answer.choices[0].message.content for answer in answers]
            assert all("\\boxed{" in text for text in texts)
            assert (
                sum(f"\\boxed{{{row['answer']}}}" in text for row, text in zip(rows, texts, strict=True)) >= 2
            )
            assert [ask(row["problem"]).choices[0].message.content for row in rows] == texts
            streamed = [
                "".join(part.choices[0].delta.content or "" for part in ask(row["problem"], stream=True))
                for row in rows
            ]
            assert streamed == texts
            usage = answers[0].usage
            block = answers[0].model_extra["a2r"]
            assert usage.total_tokens == sum(block["tokens"].values())
            assert len(ask(rows[0]["problem"], n=3, temperature=1.0).choices) == 3
            equal = ask(rows[0]["problem"], n=3, extra_body={"a2r": {"explore_temperature": 0}}).choices
            assert len({choice.message.content for choice in equal}) == 1 < len(equal) == 3
        assert httpx2.get(f"{url}/health").json()["status"] == "ok"
        run_the_example_of_the_page(url)
        one.process.send_signal(signal.SIGTERM)
        assert one.ended() == 143
        assert not psutil.wait_procs(children, timeout=20)[1]
        assert not [line for line in one.lines if "Traceback" in line]


def run_the_example_of_the_page(url: str) -> None:
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace("http://127.0.0.1:8000", url)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "\\boxed{" in done.stdout
    assert "'count': " in done.stdout


def save_adapter(folder: Path) -> str:
    """An untrained adapter, which changes nothing, of the tiny synthesizer, with its tokenizer and prompt."""
    import shutil

    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapter: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(SYNTHESIZER, dtype="float32"), config)
    adapter.save_pretrained(folder)
    AutoTokenizer.from_pretrained(SYNTHESIZER).save_pretrained(folder)
    shutil.copy(Path(SYNTHESIZER) / "prompt.yaml", folder)
    return str(folder)


def test_an_adapter_and_its_base_share_one_server_which_ends_with_a_killed_parent(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    given = ["--explorer", SYNTHESIZER, "--synthesizer", adapter]
    with process(*given, environment=with_vllm()) as one:
        url = one.url()
        children = psutil.Process(one.process.pid).children(recursive=True)
        servers = [child for child in children if "--enable-lora" in child.cmdline()]
        assert len(servers) == 1
        answer = httpx2.post(
            f"{url}/v1/chat/completions",
            json={"model": "a2r", "messages": [{"role": "user", "content": "What is 3 + 4?"}]},
            timeout=60,
        ).json()
        assert answer["a2r"]["answered_by"] == "synthesizer"
        assert answer["a2r"]["warnings"] == []
        one.process.kill()
        one.process.wait()
        assert not psutil.wait_procs(servers, timeout=30)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_finish(number: signal.Signals) -> None:
    slow = saying(lambda body: ["a slow answer of eight words in all"] * body["n"], wait_s=0.3)
    with upstreams(synthesizer=slow) as (_, second, given), process(*given) as one:
        url, said = one.url(), list[str]()

        def ask() -> None:
            body = {"model": "a2r", "stream": True, "messages": [{"role": "user", "content": "?"}]}
            said.append(httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60).text)

        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: bool(second.seen and second.seen[0].first))
        one.process.send_signal(number)
        asking.join(30)
        assert "in " in said[0]
        assert said[0].endswith("data: [DONE]\n\n")
        assert one.ended() == 128 + number
        assert not [line for line in one.lines if "Traceback" in line]
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/health")


def test_what_takes_longer_than_the_drain_is_cut_off() -> None:
    with upstreams(synthesizer=forever) as (_, second, given), process(*given, "--drain_s", "1") as one:
        url = one.url()

        def ask() -> None:
            body = {"model": "a2r", "stream": True, "messages": [{"role": "user", "content": "?"}]}
            with pytest.raises(httpx2.HTTPError):
                httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60)

        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: bool(second.seen and second.seen[0].first))
        began = time.monotonic()
        one.process.send_signal(signal.SIGTERM)
        assert one.ended() == 143
        assert time.monotonic() - began < 15
        asking.join(10)
        wait_for(lambda: second.seen[0].ended == "left")


def wait_for(happens: Any, timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--explorer_url", "http://127.0.0.1:9/v1"], "explorer_url: http://127.0.0.1:9/v1: "),
        (["--explorer_url", "localhost"], "endpoint: expected distinct base URLs"),
        (["--explorer_served_as", "other"], f"serves {EXPLORER}, not other"),
        (["--k", "0"], "k is 0; expected at least 1"),
        (["--temprature", "1"], "unknown key 'temprature'; did you mean 'temperature'?"),
        (["--temperature", "3"], "temperature is 3; expected 0 to 2"),
        (["--prices", "none.yaml"], "none.yaml: "),
        (["--verifier", "mth"], "mth"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(more: list[str], says: str) -> None:
    with upstreams() as (_, _, given), process(*given, *more) as one:
        assert one.ended() == 2
        assert one.lines[-1].startswith("error: ")
        assert says in one.lines[-1]


def test_a_port_that_is_taken() -> None:
    with upstreams() as (first, _, given), process(*given, "--port", first.url.split(":")[2][:-3]) as one:
        assert one.ended() == 2
        assert "cannot listen there; choose another --port" in one.lines[-1]


def test_a_server_of_its_own_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "vllm" / "entrypoints" / "openai"
    broken.mkdir(parents=True)
    for folder in (broken, broken.parent, broken.parent.parent):
        (folder / "__init__.py").write_text("")
    (broken / "api_server.py").write_text("raise SystemExit('ValueError: no room on this GPU')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with process(environment=environment) as one:
        assert one.ended() == 1
        assert "ended with status 1: ValueError: no room on this GPU" in one.lines[-1]


def test_dry_run_says_what_would_be_started() -> None:
    command = [sys.executable, "-m", "a2r_train.cli", "serve", "--dry_run", "true"]
    done = subprocess.run(command, cwd=ROOT, env=without_vllm(), capture_output=True, text=True, check=True)
    assert done.stdout.count(f"starts: -m vllm.entrypoints.openai.api_server --model {ROOT}/data/tiny/") == 2
    assert "listens: http://127.0.0.1:8000/v1 as a2r" in done.stdout
    assert "[4] \\boxed{156}" in done.stdout
