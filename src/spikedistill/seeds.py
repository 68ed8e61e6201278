"""One source of randomness: every random draw of the library is a function of a key such as (seed, epoch, step, rank)."""

import numpy as np


def derive_seed(*key: int) -> int:
    """A 64-bit seed that depends only on `key`, for `torch.manual_seed` and `torch.Generator.manual_seed`.

    Keys that differ in a number or in length give unrelated seeds (`numpy.random.SeedSequence`).

    Args:
        key: integers in [0, 2^32), for instance seed, epoch, step and rank.

    Raises:
        ValueError: without an integer, or for one outside that range.
    """
    if not key or not all(0 <= number < 2**32 for number in key):
        raise ValueError(f"a random key is one or more integers from 0 to {2**32 - 1}; got {key}")
    # The length comes first because SeedSequence pads with zeros: (1,) and (1, 0) would otherwise be the same key.
    state = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)
    return int(state[0])
