"""Loading models and tokenizers from a folder, the hub, a LoRA adapter, or a GGUF file
(`folder-or-repository/file.gguf`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2r_train.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
_SHAPE = (
    "*config.json",
    "tokenizer.json",
    "*.jinja",
)  # config, generation, adapter and tokenizer configs; chat template
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.gguf")
PARTS, PART_BYTES = 256, 2**18  # of a weights file, to see whether it has changed: 64 MB

_trusted: set[str] = set()


def trust(model: str) -> None:
    """Let this model run its own code. A recipe asks for it with `trust_remote_code`; no other model may."""
    _trusted.update((model, base_of(model)))


def base_of(model: str) -> str:
    """The base model of an adapter; any other model is its own base."""
    config = model_file(model, "adapter_config.json")
    if not config:
        return model
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, LookupError, TypeError):
        raise InputError(
            f"{config}: names no base_model_name_or_path; expected the config of an adapter"
        ) from None


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The model's own tokenizer, or that of its base for an adapter that was kept without one.

    Raises InputError if there is none; `Prompter` raises it for one without a chat template.
    """
    from transformers import AutoTokenizer

    source = _tokenizer_source(model)
    _check_exists(source)
    name, options = source_of(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{model}: no tokenizer ({_first_line(error)}){_nowhere(source)}") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tokenizer_source(model: str) -> str:
    own = any(Path(model).glob("tokenizer*")) or model_file(model, "tokenizer_config.json")
    return model if own else base_of(model)


def tokenizer_hash(model: str) -> str:
    """A hash that is equal for models with equal tokenizer files, such as a base and its trained models."""
    source = _tokenizer_source(model)
    files = (
        sorted({*Path(source).glob("tokenizer*"), *Path(source).glob("*.jinja")})
        if Path(source).is_dir()
        else []
    )
    parts = [
        file.name.encode() + _digest(file.resolve(), (s := file.stat()).st_size, s.st_mtime_ns)
        for file in files
    ]
    return hashlib.sha256(b" ".join(parts) or source.encode()).hexdigest()


def load_model(model: str, dtype: str = "auto") -> Any:
    """The model in evaluation mode on the CPU; `dtype` auto is bfloat16 where there is a GPU and float32
    elsewhere.

    Raises InputError for a folder without weights and for a name that is neither a folder nor on the hub.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    check_weights(model)
    if dtype == "auto":
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    base = base_of(model)
    name, options = source_of(base)
    if "gguf_file" in options:
        from transformers import GgufConfig

        options["quantization_config"] = GgufConfig(dequantize=True)
    try:
        with whole_models():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name, dtype=getattr(torch, dtype), use_safetensors=True, **options
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(model, error) from None
    if base != model:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, model).merge_and_unload()
    return loaded.eval()


def context_length(model: str) -> int:
    """The most tokens that the model reads, by its config. Raises InputError if it cannot be read."""
    return int(getattr(_config(model).get_text_config(), "max_position_embeddings", sys.maxsize))


def known_context(model: str) -> int:
    """`context_length`; without a config, no limit, because only the servers of the model know it."""
    try:
        return context_length(model)
    except InputError:
        return sys.maxsize


def architectures(model: str) -> list[str]:
    """The classes that a model's config names. Raises InputError if it cannot be read."""
    return list(getattr(_config(model), "architectures", None) or ())


def _config(model: str) -> Any:
    from transformers import AutoConfig

    name, options = source_of(base_of(model))
    try:
        return AutoConfig.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise cannot_load(model, error) from None


def empty_model(model: str) -> Any:
    """The base model without memory for its weights (on the meta device), to count its parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    name, options = source_of(base_of(model))
    build: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"), whole_models():
        return build(
            AutoConfig.from_pretrained(name, **options), trust_remote_code=options["trust_remote_code"]
        )


def count_parameters(model: str) -> int:
    """Parameters of a model by its config; 0 if there is no config, as with a lone tokenizer."""
    try:
        return int(empty_model(model).num_parameters())
    except (OSError, ValueError):
        return 0


@dataclass(frozen=True)
class Size:
    """What the FLOPs of a model depend on.

    parameters: those that multiply, so not those of the embedding's look-up.
    """

    parameters: int
    layers: int
    attention_width: int


def size_of(model: str) -> Size | None:
    """The size by the model's config; None if there is none.

    A mixture of experts counts as if all its experts were active.
    """
    try:
        empty = empty_model(model)
    except (OSError, ValueError, InputError):  # InputError: the hub cannot be reached
        return None
    config = empty.config.get_text_config()
    looked_up = 0 if config.tie_word_embeddings else empty.get_input_embeddings().weight.numel()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Size(
        int(empty.num_parameters()) - looked_up, config.num_hidden_layers, config.num_attention_heads * width
    )


def check_weights(model: str) -> None:
    """Raise InputError for a missing path, a local folder without weights that can be read, and an adapter
    with a NaN.
    """
    path = Path(model)
    if path.is_dir() and not any(match for pattern in WEIGHTS for match in path.glob(pattern)):
        raise InputError(f"{model}: no weights (*.safetensors) in this folder; name a finished checkpoint")
    _check_exists(base_of(model))
    if path.is_dir() and base_of(model) != model:
        _check_finite(path)


def _check_exists(model: str) -> None:
    """Raise InputError for a path that does not exist and cannot be owner/name, or owner/name/file.gguf, of
    the hub.
    """
    most = 2 if model.endswith(".gguf") else 1
    if not Path(model).exists() and (model.startswith(("/", "./", "../")) or model.count("/") > most):
        raise InputError(
            f"{model}: no such folder or file; expected a checkpoint folder or a model of the hub"
        )


def _check_finite(adapter: Path) -> None:
    """Only for an adapter, which is small: reading all weights of a large model would take up to a minute."""
    import torch
    from safetensors import SafetensorError, safe_open

    for file in sorted(adapter.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                broken = next(
                    (key for key in tensors.keys() if not torch.isfinite(tensors.get_tensor(key)).all()),  # noqa: SIM118
                    "",
                )
        except SafetensorError as error:
            raise InputError(
                f"{file}: cannot be read ({_first_line(error)}); name a finished checkpoint"
            ) from None
        if broken:
            raise InputError(
                f"{file}: {broken} is not finite; name an earlier checkpoint of it, or train it again"
            )


def weights_digest(folder: str) -> str:
    """What changes when the model of this folder, or GGUF file, is trained again: the sha256 of its weights,
    and of its base's if it is an adapter. Of a large file only parts are read, spread over it; "" for any
    other path.
    """
    path = Path(folder)
    files = [path] if path.is_file() and path.suffix == ".gguf" else []
    files += sorted(f for pattern in WEIGHTS for f in path.glob(pattern)) if path.is_dir() else []
    if not files:
        return ""
    whole = hashlib.sha256()
    for file in files:
        state = file.stat()
        whole.update(f"{file.name} {state.st_size} ".encode())
        whole.update(_sampled(file.resolve(), state.st_size, state.st_mtime_ns))
    base = base_of(folder)
    whole.update(weights_digest(base).encode() if base != folder else b"")
    return whole.hexdigest()


@cache
def _sampled(file: Path, size: int, changed_ns: int) -> bytes:  # noqa: ARG001
    """The sha256 of PARTS parts of a file, or of all of it if they would overlap."""
    found = hashlib.sha256()
    with open(file, "rb") as content:
        if size <= PARTS * PART_BYTES:
            return hashlib.file_digest(content, "sha256").digest()
        for at in range(PARTS):
            content.seek((size - PART_BYTES) * at // (PARTS - 1))
            found.update(content.read(PART_BYTES))
    return found.digest()


def model_hash(model: str) -> str:
    """What identifies a model: the sha256 of its weights, config and tokenizer files, and of its base's if it
    is an adapter.

    For a model of the hub, its name and the commit of the files at hand.
    """
    path = Path(model)
    if not path.exists():
        from huggingface_hub import try_to_load_from_cache

        names = ("config.json", "tokenizer_config.json", "adapter_config.json")
        found = [try_to_load_from_cache(model, name) for name in names]
        commits = {Path(file).parent.name for file in found if isinstance(file, str)}
        below = f" {model_hash(base_of(model))}" if base_of(model) != model else ""
        return hashlib.sha256(f"{model} {sorted(commits)}{below}".encode()).hexdigest()
    files = (
        [path]
        if path.is_file()
        else sorted({f for pattern in (*WEIGHTS, *_SHAPE) for f in path.glob(pattern)})
    )
    whole = hashlib.sha256()
    for file in files:
        state = file.stat()
        whole.update(f"{file.suffix if path.is_file() else file.name} ".encode())
        whole.update(_digest(file.resolve(), state.st_size, state.st_mtime_ns))
    if (base := base_of(model)) != model:
        whole.update(model_hash(base).encode())
    return whole.hexdigest()


@cache
def _digest(file: Path, size: int, changed_ns: int) -> bytes:  # noqa: ARG001
    """The sha256 of a file. It is read once, and again after a change: several adapters may share a base."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


@contextmanager
def whole_models() -> Iterator[None]:
    """Build models whole. Under ZeRO-3, transformers splits every model, also one that only generates or has
    no memory.
    """
    from transformers.integrations import deepspeed

    state: Any = deepspeed
    kept = state._hf_deepspeed_config_weak_ref
    state.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        state._hf_deepspeed_config_weak_ref = kept


def source_of(model: str) -> tuple[str, dict[str, Any]]:
    """The name that transformers loads a model by, and the arguments beside it."""
    options = {"trust_remote_code": model in _trusted}
    if model.endswith(".gguf"):
        return str(Path(model).parent), {"gguf_file": Path(model).name, **options}
    return model, options


def cannot_load(model: str, error: Exception) -> InputError:
    """The error of a model that transformers refused, in one line."""
    return InputError(f"{model}: cannot be loaded ({_first_line(error)}){_nowhere(base_of(model))}")


def _nowhere(model: str) -> str:
    """A hint for a name of the hub that was meant as a folder."""
    return "" if Path(model).exists() else "; there is no folder of that name here"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__


def model_file(model: str, name: str) -> Path | None:
    """The path of a file of the model, after a download if the model is `owner/name` on the hub; None if it
    has none.

    A repository that does not exist, or is not open, has none either: loading the model reports it.
    """
    folder = Path(model)
    if folder.exists():
        return folder / name if (folder / name).is_file() else None
    named = model.count("/") == 1 and not model.startswith(("/", ".", "~")) and not model.endswith(".gguf")
    return _hub_file(model, name) if named else None


@cache
def _hub_file(model: str, name: str) -> Path | None:
    """Raises InputError if the hub cannot be reached and the cache does not say whether the file exists; with
    HF_HUB_OFFLINE that is a warning.

    Otherwise a file that is merely not cached would count as absent, and a trained model would be asked with
    another prompt than its own.
    """
    from huggingface_hub import hf_hub_download, is_offline_mode
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(model, name))
    except LocalEntryNotFoundError:  # is an EntryNotFoundError too
        if _known_absent(model, name):
            return None
        if is_offline_mode():  # the user's own choice: transformers may have cached the model without it
            log.warning(
                "%s: assumed to have no %s, as HF_HUB_OFFLINE is set and it is not cached", model, name
            )
            return None
        raise InputError(
            f"{model}: the hub cannot be reached, and the cache does not say whether {model} has a {name}; "
            f"try again, or run once with a network: hf download {model}"
        ) from None
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        return None


def _known_absent(model: str, name: str) -> bool:
    """Whether the cache says, without the hub, that the model has no such file.

    It does if the hub was asked for the file before (`.no_exist`), if it lists the files of this commit
    (`trees`, since huggingface_hub 2), and if all of them were downloaded: every repository has a
    `.gitattributes`, which only a download of the whole fetches. A model with a config.json is no adapter,
    and one without prompt.yaml was not trained here. With HF_HUB_OFFLINE, a model of which nothing is cached
    has no files: it cannot be loaded either, and that error says so.
    """
    from huggingface_hub import constants, is_offline_mode, try_to_load_from_cache

    place = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    if not (place / "snapshots").is_dir() and is_offline_mode():
        return True
    found = try_to_load_from_cache(model, name)
    if found is not None:  # no path: hf_hub_download would have returned it
        return True
    head = place / "refs" / "main"
    commit = head.read_text(encoding="utf-8") if head.is_file() else ""
    if (listed := _listed(place / "trees" / f"{commit}.json")) is not None:
        return name not in listed
    interrupted = any((place / "blobs").glob("*.incomplete"))
    if commit and (place / "snapshots" / commit / ".gitattributes").exists() and not interrupted:
        return True
    if name == "adapter_config.json":
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    return name == "trained_on.json" and _known_absent(model, "prompt.yaml")


def _listed(file: Path) -> set[str] | None:
    """The files of a commit as huggingface_hub lists them; None if it keeps no such list."""
    try:
        return set(json.loads(file.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
