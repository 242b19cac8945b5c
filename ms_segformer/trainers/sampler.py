"""The order of the training samples: it follows from the seed and the epoch, and may begin anywhere in an epoch."""
import math

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler):
    """Shuffled indices of a data set, split over the processes of a distributed run.

    Every process gets equally many: the last ones are filled up from the beginning, as training needs equal counts.

    Args:
        size: number of samples.
        seed: with the epoch, decides the order.
        rank, world_size: this process and their number.
        shuffle: False keeps the order of the data set.
    """

    def __init__(self, size, seed=0, rank=0, world_size=1, shuffle=True):
        self.size, self.seed, self.rank, self.world_size, self.shuffle = size, seed, rank, world_size, shuffle
        self.epoch, self.start = 0, 0

    def set_position(self, epoch, start=0):
        """The next iteration yields epoch `epoch` (from 0), without the first `start` samples of this process."""
        self.epoch, self.start = epoch, start

    def __len__(self):
        """Samples of a whole epoch in this process."""
        return math.ceil(self.size / self.world_size)

    def __iter__(self):
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.size, generator=generator).tolist()
        else:
            order = list(range(self.size))
        total = len(self) * self.world_size
        order = (order * math.ceil(total / max(len(order), 1)))[:total]
        return iter(order[self.rank:total:self.world_size][self.start:])


class ShareSampler(Sampler):
    """Each process's disjoint share of a data set in order: nothing twice, nothing missing; shares may differ by one.

    Args:
        size: number of samples.
        rank, world_size: this process and their number.
    """

    def __init__(self, size, rank=0, world_size=1):
        self.indices = range(rank, size, world_size)

    def __len__(self):
        return len(self.indices)

    def __iter__(self):
        return iter(self.indices)
