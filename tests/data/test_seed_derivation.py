import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikedistill.seeds import derive_seed

keys = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5).map(tuple)


def test_a_key_always_gives_the_same_seed() -> None:
    # numpy.random.SeedSequence is specified never to change, so neither may stored runs
    assert derive_seed(0, 1, 2) == int(np.random.SeedSequence((3, 0, 1, 2)).generate_state(1, np.uint64)[0])
    assert derive_seed(60) == derive_seed(60)


@given(keys, keys)
def test_different_keys_give_different_seeds(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    assert (derive_seed(*first) == derive_seed(*second)) == (first == second)


def test_trailing_zeros_count() -> None:
    assert len({derive_seed(1), derive_seed(1, 0), derive_seed(1, 0, 0), derive_seed(0, 1)}) == 4


@given(keys)
def test_torch_takes_every_seed(key: tuple[int, ...]) -> None:
    torch.Generator().manual_seed(derive_seed(*key))


@pytest.mark.parametrize("key", [(), (-1,), (0, 2**32)])
def test_a_number_outside_the_range_is_refused(key: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="integers from 0 to 4294967295"):
        derive_seed(*key)
