"""One seed, many independent streams of random numbers."""

import numpy as np
import torch


def generator(device: torch.device, *key: int) -> torch.Generator:
    """Return a generator of its own for a key of whole numbers, such as (seed, purpose, shard).

    The key is hashed: torch's CPU generator reads only the low 32 bits of a seed, so that seeds
    which differ above them would give the same numbers.
    """
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))
