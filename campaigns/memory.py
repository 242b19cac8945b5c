"""The memory of a process after hundreds of calls: it may grow at the beginning, and then no more.

    python -m campaigns.memory --seed 1 --cases 8

Calls: 600 images of 60 shapes, whole and in windows, through one pipeline, with each engine. Pipelines: 30 made, used
once and dropped. Images: 3000 damaged ones of every kind. The growth is that of the resident memory after the first
third, and the bound on it (`BOUND`) is a part of the result's name.
"""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from campaigns.concurrency import ENGINES, pipeline
from campaigns.frame import Campaign, Run, main, memory
from campaigns.image_corpus import corpus
from campaigns.mutations import mutated
from ms_segformer.preprocessors.image import ImageError, load_image

BOUND = 100  # MiB


def prepare(folder: Path) -> list[bytes]:
    torch.set_num_threads(1)
    os.environ['MS_SEGFORMER_CACHE'] = str(folder / 'cache')
    return [content for files in corpus().values() for content in files.values()]


def make(random: np.random.Generator, files: list[bytes]) -> tuple[str, Run]:
    """One of the scenarios."""
    name, engine = list(SCENARIOS)[random.integers(len(SCENARIOS))]
    return f'{name}, {engine}' if engine else name, lambda: SCENARIOS[name, engine](engine, random, files)


def calls(engine: str, random: np.random.Generator, files: list[bytes]) -> str:
    segmenter = pipeline(engine)
    shapes = random.integers(32, 300, (60, 2)).tolist()
    images = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]

    def call(number: int) -> None:
        mode = 'slide' if number % 5 == 0 else 'whole'
        segmenter(images[random.integers(len(images))], resize=False, mode=mode, crop_size=64)

    return steady(call, 600)


def pipelines(engine: str, random: np.random.Generator, files: list[bytes]) -> str:
    image = random.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    return steady(lambda number: pipeline(engine)(image, resize=False) and None, 30)


def damaged(engine: None, random: np.random.Generator, files: list[bytes]) -> str:
    def call(number: int) -> None:
        try:
            load_image(mutated(files[random.integers(len(files))], random))
        except ImageError:
            pass

    return steady(call, 3000)


def steady(call: Callable[[int], None], times: int) -> str:
    """Call a function with 0, 1, …; fails when the memory grows after the first third."""
    for number in range(times):
        if number == times // 3:
            gc.collect()
            before = memory('VmRSS')
        call(number)
    gc.collect()
    grown = memory('VmRSS') - before
    print(f'    {times} calls: {before} MiB after a third, then {grown:+} MiB', flush=True)
    if grown > BOUND:
        raise AssertionError(f'{grown} MiB more after {times - times // 3} calls, on top of {before} MiB')
    return f'that grew by less than {BOUND} MiB'


SCENARIOS = {
    **{('calls', engine): calls for engine in ENGINES},
    **{('pipelines made and dropped', engine): pipelines for engine in ENGINES},
    ('damaged images', None): damaged,
}
CAMPAIGN = Campaign(
    'memory', prepare, make, (), cases=8, seconds=600, mebibytes=4096, batch=1, watched=False, headroom=False
)

if __name__ == '__main__':
    sys.exit(main(CAMPAIGN))
