"""Models named `owner/name`: what of them lies on the hub beside the weights, and a training that goes
there.
"""

import json
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import a2r, bundle_row, options, write_rows
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from a2r_train import models
from a2r_train.data.task import prompt_of
from a2r_train.errors import InputError
from a2r_train.models import base_of, load_model, load_tokenizer, model_file, model_hash
from a2r_train.prompts import PromptConfig
from a2r_train.records import Problem
from a2r_train.train import sft

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROMPT = "reference: answer\n"


def download(cache: Path, repository: str, folder: str | Path, *, whole: bool = True) -> Path:
    """Lay a folder into a cache as a download of the repository, or of those files of it alone."""
    place = cache / f"models--{repository.replace('/', '--')}"
    copytree(folder, place / "snapshots" / COMMIT)
    if whole:
        (place / "snapshots" / COMMIT / ".gitattributes").touch()
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return place


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    models._hub_file.cache_clear()
    return tmp_path / "hub"


@pytest.fixture
def adapter(tiny: str, tmp_path: Path) -> Path:
    """The folder of a LoRA adapter whose base is a folder, kept without tokenizer, as keep_results.py
    does.
    """
    from peft import LoraConfig, get_peft_model

    folder = tmp_path / "adapter"
    get_peft_model(
        load_model(tiny), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    ).save_pretrained(folder)
    (folder / "prompt.yaml").write_text(PROMPT)
    return folder


def test_a_trained_checkpoint_of_the_hub_brings_its_prompt(tiny: str, cache: Path, tmp_path: Path) -> None:
    trained = copytree(tiny, tmp_path / "trained")
    (trained / "prompt.yaml").write_text(PROMPT)
    download(cache, "me/trained", trained)
    download(cache, "me/plain", tiny)
    assert prompt_of("me/trained") == PromptConfig(reference="answer") == prompt_of(str(trained))
    assert prompt_of("me/plain") == prompt_of("me/not-there") == PromptConfig()


def test_an_adapter_of_the_hub_is_put_on_its_base(tiny: str, adapter: Path, cache: Path) -> None:
    download(cache, "me/adapter", adapter)
    assert base_of("me/adapter") == base_of(str(adapter)) == tiny
    assert prompt_of("me/adapter") == PromptConfig(reference="answer")
    assert load_tokenizer("me/adapter").get_vocab() == load_tokenizer(tiny).get_vocab()
    here, there = (dict(load_model(name).named_parameters()) for name in (str(adapter), "me/adapter"))
    assert all((there[key] == value).all() for key, value in here.items())


def test_what_is_not_on_the_hub_has_no_files_there(tiny: str, cache: Path) -> None:
    assert model_file(tiny, "config.json") == Path(tiny) / "config.json"
    assert model_file(tiny, "prompt.yaml") is None
    for name in ("./me/trained", "/me/trained", "me/trained/deeper", "gpt2", "me/model.gguf"):
        assert model_file(name, "config.json") is None
    assert not cache.exists()


def test_a_fault_of_the_hub_is_no_missing_prompt(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that the file is not there means that the model has none."""

    def fail(error: Exception) -> Any:
        models._hub_file.cache_clear()
        monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: (_ for _ in ()).throw(error))
        return model_file("me/trained", "prompt.yaml")

    assert fail(EntryNotFoundError("no such file")) is None
    with pytest.raises(OSError, match="502"):
        fail(OSError("502 Bad Gateway"))
    models._hub_file.cache_clear()
    assert not cache.exists()


def known_absent(place: Path, how: str) -> None:
    """Say in a cache that the model has no prompt.yaml."""
    if how == "asked before":
        (place / ".no_exist" / COMMIT).mkdir(parents=True)
        (place / ".no_exist" / COMMIT / "prompt.yaml").touch()
    elif how == "listed":
        (place / "trees").mkdir()
        listed = {"format_version": 1, "files": {"config.json": {"size": 1, "blob_id": "0"}}}
        (place / "trees" / f"{COMMIT}.json").write_text(json.dumps(listed))
    else:
        (place / "snapshots" / COMMIT / ".gitattributes").touch()


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is not reached, though nobody asked for that."""
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)


def test_who_is_offline_on_purpose_is_told_what_is_taken_for_granted(
    tiny: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    download(cache, "me/model", tiny, whole=False)
    assert prompt_of("me/model") == PromptConfig()
    assert "me/model: assumed to have no prompt.yaml, as HF_HUB_OFFLINE is set" in caplog.text


@pytest.mark.usefixtures("outage")
@pytest.mark.parametrize("how", ["asked before", "listed", "downloaded whole"])
def test_without_the_hub_a_prompt_is_missing_only_where_that_is_known(
    how: str, tiny: str, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = download(cache, "me/model", tiny, whole=False)
    with pytest.raises(
        InputError,
        match=r"^me/model: the hub cannot be reached, and the cache does not say whether me/model has a ",
    ):
        prompt_of("me/model")
    assert a2r("explore", *options({"model": "me/model", "problems": "x", "output_dir": "y"})) == 2
    assert capfd.readouterr().err.count("\n") == 1
    known_absent(place, how)
    assert prompt_of("me/model") == PromptConfig()
    assert model_file("me/model", "trained_on.json") is None
    assert base_of("me/model") == "me/model"


@pytest.mark.usefixtures("outage")
def test_a_listed_prompt_or_an_interrupted_download_is_not_known_to_be_absent(tiny: str, cache: Path) -> None:
    place = download(cache, "me/model", tiny)
    (place / "blobs").mkdir()
    (place / "blobs" / "0123.incomplete").touch()
    with pytest.raises(InputError, match=r"the cache does not say whether .* has a prompt\.yaml"):
        prompt_of("me/model")
    (place / "trees").mkdir()
    (place / "trees" / f"{COMMIT}.json").write_text(json.dumps({"files": {"prompt.yaml": {}}}))
    with pytest.raises(InputError, match=r"the cache does not say whether .* has a prompt\.yaml"):
        prompt_of("me/model")


def test_an_outage_is_forgotten_once_it_is_over(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = cache.parent / "prompt.yaml"
    file.write_text(PROMPT)
    answers: list[Any] = [LocalEntryNotFoundError("no network"), str(file)]

    def answer(*_: str) -> str:
        given = answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return str(given)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", answer)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    with pytest.raises(InputError, match="the hub cannot be reached"):
        prompt_of("me/trained")
    assert prompt_of("me/trained") == PromptConfig(reference="answer")


def test_an_adapter_of_the_hub_is_known_by_its_commit_and_its_base(
    tiny: str, adapter: Path, cache: Path
) -> None:
    """Kept answers of an evaluation are found by this."""
    download(cache, "me/adapter", adapter)
    first = model_hash("me/adapter")
    assert first == model_hash("me/adapter") != model_hash("me/other")
    config = cache / "models--me--adapter" / "snapshots" / COMMIT / "adapter_config.json"
    config.write_text(config.read_text().replace(json.dumps(tiny), json.dumps("me/another-base")))
    assert model_hash("me/adapter") != first


def test_the_finished_folder_is_pushed_and_a_failed_push_goes_on(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our card, prompt and curves with the model, once; no checkpoint, no second copy of the weights."""
    bundles = tmp_path / "bundles.jsonl"
    write_rows(bundles, [bundle_row(Problem("0", "2+3?", "5"), ["5"], "0/0")])
    target = {
        "bundle_id": "0/0",
        "sample": 0,
        "text": "\\boxed{5}",
        "answer": "5",
        "verdict": "correct",
        "seed": 0,
    }
    target |= {"prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop", "model": "m"}
    (tmp_path / "targets.jsonl").write_text(json.dumps(target) + "\n")
    pushed: list[tuple[str, set[str], list[str]]] = []

    def upload(_: HfApi, *, repo_id: str, folder_path: str, ignore_patterns: list[str], **_more: Any) -> None:
        assert not (Path(folder_path) / "done.json").exists()
        if not pushed:
            pushed.append(("", set(), []))
            raise OSError("the network is gone")
        pushed.append((repo_id, {path.name for path in Path(folder_path).iterdir()}, ignore_patterns))

    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: SimpleNamespace(repo_id="me/sft"))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    out = tmp_path / "sft"
    keys = {
        "model_name_or_path": tiny,
        "bundles": bundles,
        "targets": tmp_path / "targets.jsonl",
        "output_dir": out,
    }
    keys |= {"max_steps": 2, "save_steps": 1, "use_cpu": "true", "push_to_hub": "true", "report_to": "none"}
    with pytest.raises(OSError, match="the network is gone"):
        sft.main(options(keys))
    assert not (out / "done.json").exists()
    assert sft.main(options(keys)) == 0
    assert (out / "done.json").exists()
    assert sft.main(options(keys)) == 0  # it is there already
    _, (repository, names, ignored) = pushed
    assert (repository, ignored) == ("me/sft", ["checkpoint-*", ".*"])
    assert {
        "model.safetensors",
        "README.md",
        "trained_on.json",
        "prompt.yaml",
        "trainer_state.json",
        "config.yaml",
        "tokenizer.json",
    } <= names
    assert "--synthesizer me/sft" in (out / "README.md").read_text()
    (out / "done.json").write_text('{"stage": "SFT"}')  # of a training that was not to be pushed
    capsys.readouterr()
    assert sft.main(options(keys | {"hub_model_id": "me/sft"})) == 2
    assert f"hf upload me/sft {out} . --exclude" in capsys.readouterr().err
