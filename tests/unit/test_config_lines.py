"""Mistakes in a recipe are one line with its place and the remedy; paths beside a recipe are found."""

from pathlib import Path

import pytest

from a2r_train.config import as_texts, check_stage, load_recipe, load_yaml, nearest
from a2r_train.data.bundle import BundleConfig
from a2r_train.errors import InputError

BROKEN = {
    "k: 4\nprompt: a: b\n": "2: `prompt: a: b` is not valid YAML; quote a value that contains `: `",
    "k: 4\n\tm: 3\n": "2: `m: 3` is not valid YAML; indent with spaces, not tabs",
    "k: 'abc\n": "1: `k: 'abc` is not valid YAML; close the quotes",
    "k: @x\n": "1: `k: @x` is not valid YAML; quote a value that starts with this character",
    "k: *x\n": "1: `k: *x` is not valid YAML; quote a value that starts with *",
    "k: !x\n": "1: `k: !x` is not valid YAML; quote a value that starts with !",
    "k: 1\nt: {{problem}}\n": "2: `t: {{problem}}` is not valid YAML; quote a value that starts with { or [",
    "k: [1, 2\n": "1: `k: [1, 2` is not valid YAML; close the brackets",
    "k: 1\nabc\nd: 2\n": "2: `abc` is not valid YAML; write `key: value`, with a space after the colon",
    'k: "a" b\n': '1: `k: "a" b` is not valid YAML; align the keys',
    " k: 1\nb: 2\n": "2: `b: 2` is not valid YAML; align the keys",
    "k:4\n": " expected `key: value` lines, a space after the colon",
    "k: 1\nm: 2\nk: 3\n": " key 'k' is written twice, at lines 1 and 3; remove one",
    "\x01: 3\n": " unacceptable character",
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_yaml_shows_the_line_and_the_remedy(text: str, tmp_path: Path) -> None:
    path = tmp_path / "explore.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        load_yaml(str(path))
    assert str(refused.value).startswith(f"{path}:{BROKEN[text]}")
    assert "\n" not in str(refused.value)


def test_a_recipe_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes("k: ä\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"r\.yaml: byte 3 is not UTF-8; save the file as UTF-8$"):
        load_yaml(str(tmp_path / "r.yaml"))


def test_the_recipe_of_another_stage_is_one_line() -> None:
    known = {"problems", "model", "output_dir", "temperature"}
    recipe = ["bundles", "num_generations", "temperature", "beta"]
    says = (
        "grpo.yaml: this is a recipe of `a2r grpo`: 'num_generations' is not a key of this stage; "
        "run a2r grpo --config grpo.yaml"
    )
    with pytest.raises(InputError) as refused:
        check_stage(recipe, known, "grpo.yaml")
    assert str(refused.value) == says
    check_stage(["temprature"], known, "explore.yaml")  # a misspelt key is told elsewhere


def test_paths_beside_the_recipe_are_found_after_those_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    (folder / "models" / "small").mkdir(parents=True)
    for name in ("a.jsonl", "b.jsonl", "all"):
        (folder / name).touch()
    (folder / "r.yaml").write_text(
        "problems: a.jsonl,b.jsonl\nmodel: models/small\nmixture: all\nprompt: none.yaml\nk: 3\n"
    )
    monkeypatch.chdir(tmp_path)
    found = load_recipe("mine/r.yaml")
    assert found == {
        "problems": "mine/a.jsonl,mine/b.jsonl",
        "model": "mine/models/small",
        "mixture": "all",  # a file of this name is no reason to take the word for a path
        "prompt": "none.yaml",
        "k": 3,
    }
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).touch()
    assert load_recipe("mine/r.yaml")["problems"] == "a.jsonl,b.jsonl"


def test_a_dict_is_the_text_that_its_field_holds() -> None:
    given = {"columns": {"problem": "q"}, "k": 3}
    assert as_texts(BundleConfig, given) == {"columns": '{"problem": "q"}', "k": 3}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lora_rank", "lora_r"),
        ("lora_ranks", "lora_r"),
        ("learning-rate", "learning_rate"),
        ("lr", "learning_rate"),
        ("temprature", "temperature"),
        ("zzz", ""),
    ],
)
def test_the_nearest_key_begins_with_the_same_word(key: str, meant: str) -> None:
    known = {"lora_r", "lora_alpha", "local_rank", "learning_rate", "temperature"}
    assert nearest(key, known) == meant
