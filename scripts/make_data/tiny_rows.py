"""Inputs of pretrain_tiny.py for the models of data/tiny: settings, problem sets, tokenizer, and training
rows.

A row is a chat and its worked solution as token ids. Plain rows show only the problem, reference rows also
show references. None was written by a model.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tiny_problems import Tale, draw
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from a2r_train.atomic import replacing
from a2r_train.config import check_keys, load_yaml
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Problem, Reference, write

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ "
    "message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A number is one token; a word includes the adjacent spaces.
PIECES = r"\\[a-z]+\{|\d{1,3}| ?\p{L}+ ?|[^\s\p{L}\d\\]+ ?|\s+|\\"


@dataclass(frozen=True)
class ModelConfig:
    """One model: its Qwen3 shape (head_dim is 32, which vLLM also serves on the CPU), data, rows per step,
    and steps.

    The learning rate follows a cosine over `steps`.
    """

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    n_plain: int
    n_reference: int
    batch_size: int
    reference_batch_size: int
    steps: int


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of pre-training, all from the recipe except `n_measured`; counts are in problems."""

    out: str
    prompt: str
    models: dict[str, ModelConfig]
    difficulties: tuple[float, ...]
    kinds: dict[str, float]
    seed: int
    n_train: int
    n_validation: int
    n_test: int
    n_test_held_out: int
    vocab_size: int
    wrong_share: float
    stubborn_share: float
    slips: float
    max_references: int
    max_tries: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    eval_every: int
    n_curve: int
    n_measured: int = 300

    @staticmethod
    def load(path: str) -> PretrainConfig:
        recipe = load_yaml(path)
        check_keys(recipe, {field.name for field in dataclasses.fields(PretrainConfig)}, path)
        for settings in recipe["models"].values():
            check_keys(settings, {field.name for field in dataclasses.fields(ModelConfig)}, path)
        shapes = {name: ModelConfig(**settings) for name, settings in recipe.pop("models").items()}
        return PretrainConfig(models=shapes, **{**recipe, "difficulties": tuple(recipe["difficulties"])})


@dataclass
class Rows:
    """Token ids [n, length], padded on the right, and the start and end of each row's trained part."""

    ids: np.ndarray
    start: np.ndarray
    end: np.ndarray


def draw_new(rng: random.Random, n: int, taken: set[int], held_out: bool = False, **mix: Any) -> list[Tale]:
    """Draw n problems that differ in template or numbers from each other and from `taken`, and add them to
    it.
    """
    tales: list[Tale] = []
    while len(tales) < n:
        tale = draw(rng, **mix)
        if tale.held_out == held_out and tale.digest not in taken:
            taken.add(tale.digest)
            tales.append(tale)
    return tales


def curve_tales(config: PretrainConfig) -> list[Tale]:
    """Evenly drawn problems for the curve, which pre-training never sees."""
    return draw_new(random.Random(config.seed), config.n_curve, set())


def draw_sets(config: PretrainConfig, taken: set[int]) -> dict[str, list[Tale]]:
    """The problem sets by name. They do not overlap with each other or with `taken`."""
    rng, mix = random.Random(config.seed), {"difficulties": config.difficulties, "kinds": config.kinds}
    sizes = {"train": config.n_train, "validation": config.n_validation, "test": config.n_test}
    sets = {name: draw_new(rng, size, taken, **mix) for name, size in sizes.items()}
    return {**sets, "test_held_out": draw_new(rng, config.n_test_held_out, taken, held_out=True, **mix)}


def write_sets(config: PretrainConfig, taken: set[int]) -> None:
    """Write the shipped problem sets: the recipe's mix, without any problem of pre-training."""
    for name, tales in draw_sets(config, taken).items():
        write((as_problem(tale, name, i) for i, tale in enumerate(tales)), Path(config.out) / f"{name}.jsonl")


def as_problem(tale: Tale, name: str, index: int) -> Problem:
    return Problem(f"{name}-{index:05d}", tale.text, str(tale.answer), "math", tale.source)


def train_tokenizer(config: PretrainConfig, path: Path) -> None:
    """Train a byte-level BPE on the stories. It encodes any text; each number from 0 to 399 is one token."""
    rng = random.Random(config.seed + 1)
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tales = [draw(rng) for _ in range(60_000)]
    numbers = [" ".join(map(str, range(400)))] * 400
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"user\n{t.text}\n[1] {t.solution()}\nassistant\n" for t in tales)
    tokenizer.train_from_iterator([*texts, *numbers], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=2048
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(path)


def rows_of(
    tales: list[Tale], prompter: Prompter, rng: random.Random, kind: str, config: PretrainConfig
) -> Rows:
    """Rows of kind `plain` or `reference`. A share of the plain rows starts with a wrong number, which is not
    trained on.
    """
    plain = kind == "plain"
    wrong = [plain and rng.random() < config.wrong_share for _ in tales]
    if plain:
        pairs = [
            (prompter.explorer(t.text), t.solution(t.wrong_guess(rng) if w else None))
            for t, w in zip(tales, wrong, strict=True)
        ]
    else:
        pairs = [with_references(tale, rng, prompter, config) for tale in tales]
    heads = prompter.tokenizer([prompter.text(chat) for chat, _ in pairs])["input_ids"]
    tails = prompter.tokenizer([solution + "<|im_end|>" for _, solution in pairs])["input_ids"]
    rows = [head + tail for head, tail in zip(heads, tails, strict=True)]
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows], dtype=np.uint16)
    start = np.array([len(head) + w for head, w in zip(heads, wrong, strict=True)])
    return Rows(ids, start, np.array([len(row) for row in rows]))


def examples(
    seed: int, n: int, kind: str, config: PretrainConfig, tokenizer: str, reserved: set[int]
) -> Rows:
    """Draw n training rows with one seed; runs in a worker process."""
    rng = random.Random(seed)
    prompter = Prompter(AutoTokenizer.from_pretrained(tokenizer), PromptConfig.load(config.prompt))
    return rows_of(draw_rows(rng, n, reserved), prompter, rng, kind, config)


def draw_rows(rng: random.Random, n: int, reserved: set[int]) -> list[Tale]:
    """Draw n problems for pre-training. Duplicates are possible, as in any large collection."""
    drawn = (draw(rng) for _ in itertools.count())
    return list(itertools.islice((t for t in drawn if not t.held_out and t.digest not in reserved), n))


def with_references(
    tale: Tale, rng: random.Random, prompter: Prompter, config: PretrainConfig
) -> tuple[list[dict[str, str]], str]:
    """The chat with references, and the solution that follows it.

    The skill of the references' writers is drawn for each problem: how often they start from a wrong number,
    and how often a line goes wrong. A stubborn solution takes the number of one reference, checks it
    honestly, and keeps it. The others try some wrong numbers of the references, and end with the right one,
    which need not appear in a reference.
    """
    wrong, slips = rng.random(), rng.random() * config.slips
    count = rng.randint(1, config.max_references)
    guesses = [tale.wrong_guess(rng) if rng.random() < wrong else tale.answer for _ in range(count)]
    texts = [tale.slipped(guess, rng, slips) for guess in guesses]
    chat = prompter.synthesizer(tale.text, [Reference(text, text) for text in texts]).chat
    if rng.random() < config.stubborn_share:
        return chat, tale.solution(rng.choice(guesses))
    others = list(dict.fromkeys(g for g in rng.sample(guesses, count) if g != tale.answer))
    before = others[: rng.randint(0, min(len(others), config.max_tries - 1))]
    return chat, tale.tries([*before, tale.answer])


def parts(config: PretrainConfig, kind: str) -> list[tuple[int, int]]:
    """(seed, size) of the parts in which rows are drawn, enough for the model that needs the most."""
    total = max(getattr(model, f"n_{kind}") for model in config.models.values())
    part = min(2500, total)
    return [
        (2 * (config.seed * 1_000_003 + i + 1) + (kind == "reference"), part)
        for i in range(-(-total // part))
    ]


def make_rows(config: PretrainConfig, tokenizer: Path, reserved: set[int], kind: str) -> Rows:
    """Draw training rows for the model that needs the most; the others use the first of them."""
    work = [(seed, n, kind, config, str(tokenizer), reserved) for seed, n in parts(config, kind)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        made = pool.starmap(examples, work, chunksize=4)
    width = max(rows.ids.shape[1] for rows in made)
    ids = np.concatenate([np.pad(rows.ids, ((0, 0), (0, width - rows.ids.shape[1]))) for rows in made])
    start, end = np.concatenate([rows.start for rows in made]), np.concatenate([rows.end for rows in made])
    return Rows(ids, start, end)


def pretrained_on(config: PretrainConfig) -> set[int]:
    """The digests of all pre-training and curve problems, drawn again without rendering."""
    reserved = {tale.digest for tale in curve_tales(config)}
    seeds = [part for kind in ("plain", "reference") for part in parts(config, kind)]
    return reserved | {
        tale.digest for seed, n in seeds for tale in draw_rows(random.Random(seed), n, reserved)
    }


def kept_rows(path: Path, make: Callable[[], Rows]) -> Rows:
    """Load the rows from `path`; make and write them first if the file does not exist."""
    if not path.exists():
        rows = make()
        with replacing(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, ids=rows.ids, start=rows.start, end=rows.end)
    return Rows(**np.load(path))


def validation_rows(tales: list[Tale], prompter: Prompter, config: PretrainConfig) -> dict[str, Rows]:
    """Rows of the same problems: plain, with references, and starting from a wrong number."""
    rng = random.Random(7)
    kinds = {"plain": ("plain", 0.0), "reference": ("reference", 0.0), "check": ("plain", 1.0)}
    return {
        name: rows_of(tales, prompter, rng, kind, dataclasses.replace(config, wrong_share=share))
        for name, (kind, share) in kinds.items()
    }
