"""An empty key (`k:`) is one line, unless the key may be null, or is empty by default."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import pytest

from a2r_train.config import without_empty
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.explore import ExploreConfig
from a2r_train.errors import InputError
from a2r_train.evaluate.config import EvaluateConfig

OWN = (BundleConfig, ExploreConfig, EvaluateConfig)


@dataclass
class Keys:
    required: str
    number: int = 4
    text: str = "all"
    none: str = ""
    mapping: str = "{}"
    several: list[str] = field(default_factory=list)
    optional: int | None = 7


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("required", "give it a value"),
        ("number", "remove the key or give it a value"),
        ("text", "remove the key or give it a value"),
    ],
)
def test_a_value_that_is_missing_is_one_line(key: str, remedy: str) -> None:
    with pytest.raises(InputError) as refused:
        without_empty(Keys, {key: None}, "r.yaml")
    assert str(refused.value) == f"r.yaml: {key}: empty; {remedy}"


def test_empty_is_a_value_where_null_is_or_where_it_is_the_default() -> None:
    empty = {"none": None, "mapping": None, "several": None, "optional": None}
    assert without_empty(Keys, {**empty, "number": 0, "other": None}, "r.yaml") == {
        "optional": None,
        "number": 0,
        "other": None,  # of another dataclass
    }


@pytest.mark.parametrize("kind", OWN)
def test_every_key_of_a_stage_is_either_refused_or_its_default(kind: type) -> None:
    for one in fields(kind):
        if one.default in ("", "{}"):
            assert without_empty(kind, {one.name: None}, "r.yaml") == {}
            continue
        assert one.default is not MISSING or one.default_factory is MISSING
        with pytest.raises(InputError, match=f"^r.yaml: {one.name}: empty; "):
            without_empty(kind, {one.name: None}, "r.yaml")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"max_share_correct": 37.5}, "^max_share_correct is 37.5; expected a share from 0 to 1$"),
        ({"easy_percent": -5.0}, "^easy_percent is -5.0; expected at least 0$"),
        ({"easy_percent": 20.0}, "^easy_percent is for mixture hard_plus_easy, but mixture is all; remove"),
        (
            {"max_share_correct": 0.9, "mixture": "balanced"},
            "^max_share_correct is for mixture accuracy_band",
        ),
        ({"mixture": "some"}, "^mixture 'some': expected one of all, "),
        ({"k": 0}, "^k 0, k_min 0: expected"),
    ],
)
def test_a_wrong_bundle_recipe_claims_no_folder(keys: dict[str, float], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        bundle(BundleConfig("none.jsonl", str(tmp_path / "out"), **keys))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
