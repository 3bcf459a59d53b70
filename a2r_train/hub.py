"""Files that belong to a model: in its folder, or in its repository on the hub."""

from __future__ import annotations

from functools import cache
from pathlib import Path


def model_file(model: str, name: str) -> Path | None:
    """The path of a file of the model, after a download if the model is `owner/name` on the hub; None where it has none.

    A repository that is not there, or not open, has none either: loading the model says so.
    """
    folder = Path(model)
    if folder.exists():
        return folder / name if (folder / name).is_file() else None
    named = model.count("/") == 1 and not model.startswith(("/", ".", "~")) and not model.endswith(".gguf")
    return _hub_file(model, name) if named else None


@cache
def _hub_file(model: str, name: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(model, name))
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):  # without a network the first, from the cache
        return None
