"""The card of a folder of bundles, as the hub reads it."""

from pathlib import Path

from huggingface_hub import DatasetCard

from a2r_train.data.bundle import BundleConfig
from a2r_train.data.bundle import bundle as bundle_stage


def test_the_card_of_bundles_is_read_by_the_hub(rollouts: str, problems: str, tmp_path: Path) -> None:
    folder = bundle_stage(BundleConfig(rollouts, str(tmp_path / "bundles"), problems, test_share=0.4, k=3))
    card = DatasetCard.load(folder / "README.md")
    assert card.data.task_categories == ["text-generation"]
    files = {file["split"]: file["path"] for file in card.data.configs[0]["data_files"]}
    assert set(files) == {"train", "test"}
    assert all((folder / path).exists() for path in files.values())
