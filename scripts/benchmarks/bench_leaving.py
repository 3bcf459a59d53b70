"""What it saves that completions which ended leave the batch of the transformers engine, and that others take
their places; all ways in one run.

    python scripts/benchmarks/bench_leaving.py                                  # two CPU cores: three minutes
    python scripts/benchmarks/bench_leaving.py --rows 660 --model MODEL_0.5B    # a GPU

Prompts are as long as four references make them, so that the keys and values of a batch are what a step
reads. The model is random unless one is named; so many tokens end a completion that the mean length is about
--mean. `same`: equal completions.
"""

import argparse
import json
import random
import tempfile
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from a2r_train.engines import Completion, EngineArguments, Sampling
from a2r_train.engines import transformers as engines
from a2r_train.models import load_tokenizer

TOKENIZER = "data/tiny/synthesizer"


def random_model(folder: str) -> str:
    """Four layers whose weights are few beside the keys and values of a batch."""
    tokenizer = load_tokenizer(TOKENIZER)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=8192, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(
    model: str, rows: int, batches: int, prompt_tokens: int, tokens: int, mean: int
) -> dict[str, object]:
    """Seconds of each way, and whether their completions are the same."""
    engine = engines.TransformersEngine(model, EngineArguments(batch_size=rows))
    usual = engine.model.generation_config.eos_token_id
    size = len(engine.tokenizer)
    ends = random.Random(0).sample(range(size // 2), max(1, round(size / mean)))
    engine.model.generation_config.eos_token_id = [*ends, *(usual if isinstance(usual, list) else [usual])]
    count = rows * batches
    words = random.Random(1).choices(["3", "7", "apples"], k=count * prompt_tokens)
    chats = [
        [{"role": "user", "content": " ".join(words[i * prompt_tokens :][: prompt_tokens // 2])}]
        for i in range(count)
    ]
    made: dict[str, list[Completion]] = {}
    found: dict[str, object] = {"device": str(engine.device), "rows": rows, "completions": count}
    ways = {
        "stay": (tokens, 2.0),
        "leave": (engines.GO_ON_TOKENS, 2.0),
        "refill": (engines.GO_ON_TOKENS, engines.REFILL_SHARE),
    }
    for name, (engines.GO_ON_TOKENS, engines.REFILL_SHARE) in ways.items():
        engine.generate(chats[:rows], Sampling(max_completion_tokens=1), range(rows))
        began = time.perf_counter()
        made[name] = engine.generate(chats, Sampling(max_completion_tokens=tokens), range(count))
        found[f"{name}_s"] = round(time.perf_counter() - began, 2)
    lengths = [completion.completion_tokens for completion in made["leave"]]
    found |= {
        "prompt_tokens": made["leave"][0].prompt_tokens,
        "mean": round(sum(lengths) / count),
        "longest": max(lengths),
        "same": sum(len(set(ways)) == 1 for ways in zip(*made.values(), strict=True)),
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="", help="a folder; empty: a random one")
    parser.add_argument("--rows", type=int, default=96, help="completions at once")
    parser.add_argument("--batches", type=int, default=4, help="times as many completions in all")
    parser.add_argument("--prompt_tokens", type=int, default=1400)
    parser.add_argument("--tokens", type=int, default=512, help="the longest completion")
    parser.add_argument(
        "--mean", type=int, default=120, help="tokens of a completion, about, where the model is random"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or random_model(folder)
        print(
            json.dumps(
                measure(model, given.rows, given.batches, given.prompt_tokens, given.tokens, given.mean)
            )
        )


if __name__ == "__main__":
    main()
