"""What several tests share: random checkpoints of one tiny layer, and small problems and rollouts on disk."""

import gc
import importlib.util
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from a2r_train.records import Bundle, Problem

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # for models this small a second thread only waits
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts with `&` ignores Ctrl-C

ROOT = Path(__file__).parents[1]
QUICK = str(ROOT / "tests" / "quick_start")  # see there
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [QUICK, os.environ.get("PYTHONPATH")]))
pytest_plugins = ["budget"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ "
    "message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [
    "Reference",
    "Problem",
    "Solve",
    "answer",
    "final",
    "number",
    "the",
    "of",
    "and",
    "How many apples are left?",
]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """No bytes in a test's id: packed ones hold the time, and the two processes must collect the same ids."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_finish() -> None:
    """What all files import stays to the end, and every engine that is loaded collects garbage first."""
    gc.freeze()


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tests/model the plots of a report are not laid out and rendered: that takes longer than the models.

    They are by tests that ask for `drawn`, and in tests/unit and tests/system.
    """
    if "model" not in request.path.parts or "drawn" in request.fixturenames:
        return

    def blank(_: str, size: tuple[float, float], draw: Callable[[Any], None]) -> str:
        from matplotlib.figure import Figure

        draw(Figure(size))
        return "<svg></svg>"

    monkeypatch.setattr("a2r_train.evaluate.report.plots._svg", blank)


@pytest.fixture
def drawn() -> None:
    """The plots of a report as they are."""


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def bundle_with(
    problem: "Problem",
    answers: Sequence[str],
    identity: str = "",
    *,
    texts: Sequence[str] = (),
    verdicts: Sequence[str] = (),
    tokens: Sequence[int] = (),
) -> "Bundle":
    """What the builder makes of a problem and references that box these answers; those with the gold one are
    right.
    """
    from a2r_train.data.builder import bundle_of
    from a2r_train.records import Reference

    texts = texts or [rf"\boxed{{{answer}}}" for answer in answers]
    verdicts = verdicts or [
        "correct" if answer == problem.answer else "incorrect" if answer else "unparsable"
        for answer in answers
    ]
    parts = zip(texts, answers, verdicts, tokens or [9] * len(answers), strict=True)
    return bundle_of(problem, [Reference(*part) for part in parts], identity or problem.id)


def bundle_row(problem: "Problem", answers: Sequence[str], identity: str = "", **more: Any) -> dict[str, Any]:
    """The same as a row of a file."""
    from a2r_train.records import as_row

    return as_row(bundle_with(problem, answers, identity, **more))


def options(values: Mapping[str, Any]) -> list[str]:
    """The keys of a recipe as they stand on a command line."""
    return [text for key, value in values.items() for text in (f"--{key}", str(value))]


def a2r(*arguments: str) -> int:
    """Run the command in this process; returns its exit status."""
    from a2r_train import cli

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["a2r", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def hide_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where vllm is not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *where: None if name == "vllm" else find(name, *where)
    )


def save_tiny(path: Path, seed: int, chat_template: str | None = CHAT_TEMPLATE) -> str:
    """A one-layer Qwen3 checkpoint of random weights, with a byte-level tokenizer, saved as any other."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = chat_template
    fast.save_pretrained(path)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=4096, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    model.lm_head.weight.data.mul_(20.0)  # peaked enough for a greedy path that small rounding does not turn
    model.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny checkpoint."""
    return save_tiny(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture(scope="session")
def other_tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of another one, with other weights."""
    return save_tiny(tmp_path_factory.mktemp("other_tiny"), seed=1)


@pytest.fixture(scope="session")
def thinking_tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose chat template opens `<think>` for the model."""
    template = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    return save_tiny(tmp_path_factory.mktemp("thinking_tiny"), seed=2, chat_template=template)


def teach(path: str, texts: Iterable[str], steps: int = 60) -> str:
    """Train a tiny checkpoint until it answers whatever it is asked with one of the texts, each as often as
    the others.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    rows = []
    for content in ("x", "What is 1 + 2?", "Solve the problem. Reference 1: 12", *WORDS):
        chat = [{"role": "user", "content": content}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        rows += [(prompt, f"{text}<|im_end|>") for text in texts]
    ids = [tokenizer(prompt + text, add_special_tokens=False)["input_ids"] for prompt, text in rows]
    trained = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for _, text in rows]
    width = max(map(len, ids))
    inputs = torch.tensor([[0] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    labels = torch.tensor([[-100] * (width - n) + row[-n:] for row, n in zip(ids, trained, strict=True)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=inputs, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint that answers everything with 3 or 6."""
    path = save_tiny(tmp_path_factory.mktemp("speaking"), seed=3)
    return teach(path, [r"\boxed{3}", r"\boxed{6}"])


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the root of the project, from where recipes name their files."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def problems(tmp_path: Path) -> str:
    """Seven problems on disk."""
    rows = [{"id": f"p{i}", "problem": f"What is {i} + {2 * i}?", "answer": str(3 * i)} for i in range(1, 8)]
    return write_rows(tmp_path / "problems.jsonl", rows)


@pytest.fixture
def rollouts(tmp_path: Path) -> str:
    """Six rollouts of each of those problems; problem i has i - 1 correct ones, at the most 6."""
    rows = []
    for i in range(1, 8):
        for sample in range(6):
            answer = str(3 * i) if sample < i - 1 else str(100 + sample)
            verdict = "correct" if sample < i - 1 else "incorrect"
            row = {
                "problem_id": f"p{i}",
                "sample": sample,
                "text": f"Sum {sample}: \\boxed{{{answer}}}",
                "answer": answer,
            }
            rows.append(
                {
                    **row,
                    "verdict": verdict,
                    "prompt_tokens": 20,
                    "completion_tokens": 10 + sample,
                    "model": "m",
                }
            )
    return write_rows(tmp_path / "rollouts.jsonl", rows)


class Scripted:
    """An engine whose answers are a function of the prompt; every prompt reads 100 tokens and every answer
    writes 7.
    """

    def __init__(self, engine: Any, answer: Callable[[str], str]) -> None:
        self.name, self.parameters, self.tokenizer = engine.name, engine.parameters, engine.tokenizer
        self.answer, self.asked = answer, list[str]()

    def generate(self, chats: Sequence[Any], sampling: Any, seeds: Sequence[int]) -> list[Any]:
        from a2r_train.engines import Completion

        assert sampling
        assert len(seeds) == len(chats)
        self.asked += [chat[-1]["content"] for chat in chats]
        return [Completion(self.answer(chat[-1]["content"]), 100, 7, "stop") for chat in chats]

    def generate_batches(self, batches: Iterable[Any], sampling: Any) -> Iterator[list[Any]]:
        for chats, seeds in batches:
            yield self.generate(chats, sampling, seeds)


Script = Callable[[Callable[[str], str]], Scripted]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, other_tiny: str) -> Script:
    """Lets every model of an evaluation answer by a function; returns the engine, which keeps what it was
    asked.
    """
    from a2r_train.engines import load_engine
    from a2r_train.evaluate import answers as generate

    def begin(answer: Callable[[str], str]) -> Scripted:
        engine = Scripted(load_engine(other_tiny), answer)

        def load(name: str, arguments: Any, **_: Any) -> Scripted:
            assert arguments.engine
            engine.name = name
            return engine

        monkeypatch.setattr(generate, "load_engine", load)
        return engine

    return begin


@pytest.fixture
def bundles(tmp_path: Path, rollouts: str, problems: str) -> str:
    """Seven bundles of those rollouts on disk, one a problem."""
    from dataclasses import asdict

    from a2r_train.data.bundle import BundleConfig, built

    with built(BundleConfig(rollouts, "", problems, bundles_per_problem=1)) as made:
        rows = [asdict(b) for b in made.splits["train"].bundles]
    return write_rows(tmp_path / "bundles.jsonl", rows)


@pytest.fixture
def config(bundles: str, rollouts: str, tiny: str, other_tiny: str, tmp_path: Path) -> Any:
    """An evaluation of random models on those bundles."""
    from a2r_train.evaluate import EvaluateConfig

    sizes: dict[str, Any] = {"max_completion_tokens": 5, "draws": 100, "cards": False}
    return EvaluateConfig(
        bundles, str(tmp_path / "out"), other_tiny, explorer=tiny, rollouts=rollouts, **sizes
    )
