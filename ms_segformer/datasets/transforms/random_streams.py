"""Where random draws come from."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np

from ..sample import Sample


def sample_rng(seed: int, epoch: int, index: int) -> np.random.RandomState:
    """Return the random stream of one sample, a function of these three non-negative integers and nothing else."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence((int(seed), int(epoch), int(index)))))


def stream(results: Sample) -> np.random.RandomState:
    """The random stream of a sample; numpy's global one, which has the same methods, where it has none of its own."""
    return results['rng'] if 'rng' in results else cast(np.random.RandomState, np.random)


@contextmanager
def seeded_global_streams(rng: np.random.RandomState) -> Iterator[None]:
    """Within it, the global streams of `numpy.random` and `random` follow from a stream; they are put back after it."""
    saved, saved_python = np.random.get_state(), random.getstate()
    seed = rng.randint(0, 2**31)
    np.random.seed(seed)
    random.seed(int(seed))
    try:
        yield
    finally:
        np.random.set_state(saved)
        random.setstate(saved_python)
