"""A share of the chunks, and the seed of each completion."""

import pytest

from a2r_train.data.explore import parse_shard
from a2r_train.errors import InputError
from a2r_train.records import seed_of


@pytest.mark.parametrize("shard", ["", "1", "1/1", "-1/2", "a/b", "0/0", "1/2/3"])
def test_a_shard_must_be_one(shard: str) -> None:
    with pytest.raises(InputError, match="expected i/n"):
        parse_shard(shard)


def test_seeds_depend_on_every_name() -> None:
    assert len({seed_of(s, p, i) for s in range(3) for p in ("a", "b") for i in range(20)}) == 120
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1) < 2**32
