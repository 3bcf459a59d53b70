"""A completion is trained as the ids that the model writes, whatever its markers of a thought are."""

import json
from typing import Any

import pytest
from conftest import CHAT_TEMPLATE, a2r, bundle_row, options, save_tiny, write_rows
from test_turns_and_thoughts import tokenizer
from transformers import AutoTokenizer

from a2r_train.markers import KNOWN_THINKING, THINK_CLOSE, THINK_OPEN
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Problem
from a2r_train.train.rewards import verifiable_reward
from a2r_train.train.targets import training_row

HARMONY = ("<|start|>", "<|end|>", "<|channel|>", "<|message|>")
CASES = [
    (*pair, special) for pair in ((THINK_OPEN, THINK_CLOSE), *KNOWN_THINKING) for special in (True, False)
]


def prompter_of(opened: str, closed: str, is_special: bool, template: str = CHAT_TEMPLATE) -> Prompter:
    """One with the two markers as special tokens, or as text that its chat template names."""
    parts = [token for token in HARMONY if token in opened + closed] or [opened, closed]
    if is_special:
        return Prompter(tokenizer(template, tuple(parts)))
    return Prompter(tokenizer(f"{{# {opened} {closed} #}}{template}"))


def completion_of(prompter: Prompter, text: str) -> list[int]:
    row = training_row(prompter, prompter.explorer("3+4?"), text)
    return row["input_ids"][row["completion_mask"].index(1) :]


@pytest.mark.parametrize(("opened", "closed", "is_special"), CASES)
def test_what_an_engine_wrote_is_trained_with_its_own_ids(opened: str, closed: str, is_special: bool) -> None:
    prompter = prompter_of(opened, closed, is_special)
    for text in (f"{opened}a b{closed}7", f"{opened}\na\n\nb\n{closed}\n\nIt is 7.", f"{opened}cut", "7"):
        written = [*prompter.ids(text), prompter.end_of_turn()]
        whole = prompter.complete(prompter.decode(written))
        assert opened in (THINK_OPEN, THINK_CLOSE) or opened not in whole
        assert completion_of(prompter, whole) == written


@pytest.mark.parametrize(("opened", "closed", "is_special"), CASES[:8])
def test_so_is_a_completion_of_an_opened_thought(opened: str, closed: str, is_special: bool) -> None:
    template = CHAT_TEMPLATE.replace("assistant\n{% endif", f"assistant\n{opened}\n{{% endif")
    prompter = prompter_of(opened, closed, is_special, template)
    assert prompter.opens_thinking
    written = [*prompter.ids(f"a b{closed}7"), prompter.end_of_turn()]
    assert completion_of(prompter, prompter.complete(prompter.decode(written))) == written
    assert completion_of(prompter, "7") == [*prompter.ids(f"\n{closed}\n\n7"), prompter.end_of_turn()]


def test_a_harmony_answer_between_its_turns_keeps_no_word_of_them() -> None:
    prompter = Prompter(tokenizer(special=HARMONY))
    wrote = "<|channel|>analysis<|message|>a b<|end|><|start|>assistant<|channel|>final<|message|>7"
    ids = prompter.ids(wrote)
    assert prompter.decode(ids) == "<think>a b</think>7"
    assert completion_of(prompter, prompter.decode(ids))[:-1] == ids
    alone = prompter.ids("<|channel|>final<|message|>7")
    assert completion_of(prompter, prompter.decode(alone))[:-1] == alone
    assert prompter.decode(prompter.ids("7<|end|>")) == "7"


def test_of_several_markers_those_that_are_tokens_are_written() -> None:
    named = f"{{# <think> </think> <thought> </thought> #}}{CHAT_TEMPLATE}"
    assert Prompter(tokenizer(named, ("[THINK]", "[/THINK]"))).own("<think>a</think>") == "[THINK]a[/THINK]"
    assert Prompter(tokenizer(named)).own("<think>a</think>") == "<think>a</think>"
    config = PromptConfig(thinking=("<a>", "</a>"))
    assert Prompter(tokenizer(named), config).own("<think>a</think>") == "<a>a</a>"


@pytest.mark.parametrize(
    ("markers", "is_special"), [(("[THINK]", "[/THINK]"), True), (("<thought>", "</thought>"), False)]
)
def test_the_exported_reward_reads_a_thought_that_trl_does_not_show(
    markers: tuple[str, str], is_special: bool, tmp_path: Any
) -> None:
    opened, closed = markers
    template = CHAT_TEMPLATE.replace("assistant\n{% endif", f"assistant\n{opened}{{% endif")
    model = save_tiny(tmp_path / "model", seed=0, chat_template=f"{{# {closed} #}}{template}")
    if is_special:
        special: Any = AutoTokenizer.from_pretrained(model)
        special.add_special_tokens({"additional_special_tokens": [*markers]})
        special.save_pretrained(model)
    bundles = write_rows(tmp_path / "bundles.jsonl", [bundle_row(Problem("0", "2+3?", "5"), ["5"], "0/0")])
    keys = {"bundles": bundles, "output_dir": str(tmp_path / "out"), "model": model}
    assert a2r("export", *options(keys)) == 0
    row = json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])
    own = AutoTokenizer.from_pretrained(model)
    texts = [rf"so \boxed{{4}}{closed}\boxed{{5}}<|im_end|>", rf"so \boxed{{5}}{closed}It", r"so \boxed{5}"]
    ids = [own(text, add_special_tokens=False)["input_ids"] for text in texts]
    shown = [[{"role": "assistant", "content": own.decode(i, skip_special_tokens=True)}] for i in ids]
    columns = {key: [value] * 3 for key, value in row.items() if key != "prompt"}
    assert verifiable_reward(shown, completion_ids=ids, **columns) == [1.0, 0.0, 0.0]
