"""Threads, processes and forked children at once: what each gets has to be what it gets alone.

    python -m campaigns.concurrency --seed 1 --cases 40

Threads that share a pipeline, with random images in random order and batches; children forked from a process whose
pipeline has already worked; commands that share an output folder (`predict -o`), a work directory (`train`) or the
cache of compiled networks. Of commands that want the same folder one may be refused, in one line; the others have to
leave what one of them leaves alone, and nothing else.
"""

import dataclasses
import os
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tiny_run import CLASSES, make_data

from campaigns import kill_training
from campaigns.commands import TRACES, Ended, finish, run, start, tree
from campaigns.disk_full import small_model, write_images
from campaigns.frame import TINY_MODEL, Campaign, Run, main
from campaigns.image_fuzz import some
from ms_segformer.files import TEMPORARY
from ms_segformer.pipelines.image_segmentation import SegformerPipeline

ENGINES = ('torch', 'openvino', 'onnxruntime')


@dataclasses.dataclass
class Common:
    """Images with what each gives alone, by engine; and what commands leave alone."""

    folder: Path
    images: list[np.ndarray]
    alone: dict[str, list[np.ndarray]]
    predict: list[str]
    predicted: dict[str, bytes]
    train: list[str]
    trained: dict


def prepare(folder: Path) -> Common:
    torch.set_num_threads(1)
    os.environ['MS_SEGFORMER_CACHE'] = str(folder / 'cache')
    random = np.random.default_rng(0)
    images = [
        random.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((60, 80), (80, 60), (64, 64), (48, 120), (100, 90), (33, 77), (128, 40), (60, 80))
    ]
    alone = {}
    for engine in ENGINES:  # in a child: this process is to have no networks
        alone[engine] = in_child(lambda engine=engine: label_maps(pipeline(engine), images))
    write_images(folder / 'photos', folder / 'maps')
    model, data = small_model(folder / 'model'), make_data(folder / 'data')
    predict = ['predict', str(folder / 'photos'), '--model', str(TINY_MODEL), '-o', 'out', '--device', 'cpu']
    train = [
        'train',
        str(model),
        '--data',
        str(data),
        '--classes',
        ','.join(CLASSES),
        '--work-dir',
        'run',
        '--epochs',
        '3',
        '--seed',
        '3',
        '--device',
        'cpu',
    ]
    (folder / 'alone').mkdir()
    for command, code in ((predict, 1), (train, 0)):
        ended = run(command, folder / 'alone', folder / 'log')
        if ended.code != code:
            raise RuntimeError(ended.err)
    return Common(
        folder,
        images,
        alone,
        predict,
        tree(folder / 'alone' / 'out'),
        train,
        kill_training.contents(folder / 'alone' / 'run'),
    )


def pipeline(engine: str) -> SegformerPipeline:
    return SegformerPipeline(str(TINY_MODEL), device='cpu', engine=engine)


def label_maps(segmenter: SegformerPipeline, images: list[np.ndarray], batch: int = 1) -> list[np.ndarray]:
    return [result['seg_map'] for result in segmenter(images, batch_size=batch)]


def in_child(work) -> object:
    """What a function returns in a forked process."""
    receiving, sending = os.pipe()
    process = os.fork()
    if not process:
        os.close(receiving)
        with open(sending, 'wb') as pipe:
            try:
                pickle.dump(work(), pipe)
            except BaseException as error:
                pickle.dump(error, pipe)
            pipe.flush()
            os._exit(0)
    os.close(sending)
    with open(receiving, 'rb') as pipe:
        content = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if not content:
        raise AssertionError(f'a forked child ended with {code}')
    found = pickle.loads(content)
    if isinstance(found, BaseException):
        raise found
    return found


def make(random: np.random.Generator, common: Common) -> tuple[str, Run]:
    kind = some(('threads', 'forked children', 'one output folder', 'one work directory', 'one cache'), random)
    engine = some(ENGINES, random)
    if kind == 'threads':
        return f'threads, {engine}', lambda: threads(engine, random, common)
    if kind == 'forked children':
        return f'forked children, {engine}', lambda: children(engine, random, common)
    if kind == 'one output folder':
        return kind, lambda: one_output_folder(int(random.integers(2, 5)), common)
    if kind == 'one work directory':
        return kind, lambda: one_work_directory(common)
    return kind, lambda: one_cache(int(random.integers(2, 4)), common)


def threads(engine: str, random: np.random.Generator, common: Common) -> None:
    """Several threads call one new pipeline at once."""
    segmenter = pipeline(engine)
    orders = [random.permutation(len(common.images)).tolist() for _ in range(4)]
    batches = random.integers(1, 4, 4).tolist()
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(
            lambda order, batch: label_maps(segmenter, [common.images[i] for i in order], batch), orders, batches
        )
    for order, maps in zip(orders, found, strict=True):
        for index, seg_map in zip(order, maps, strict=True):
            np.testing.assert_array_equal(seg_map, common.alone[engine][index])


def children(engine: str, random: np.random.Generator, common: Common) -> None:
    """Children forked from a process whose pipeline has worked use it, or one of their own."""
    segmenter = pipeline(engine)
    label_maps(segmenter, common.images[: int(random.integers(1, 5))])
    for _ in range(3):
        own = random.random() < 0.5
        found = in_child(lambda own=own: label_maps(pipeline(engine) if own else segmenter, common.images))
        for seg_map, expected in zip(found, common.alone[engine], strict=True):
            np.testing.assert_array_equal(seg_map, expected)
    for seg_map, expected in zip(label_maps(segmenter, common.images), common.alone[engine], strict=True):
        np.testing.assert_array_equal(seg_map, expected)


def at_once(arguments: list[str], count: int, folder: Path, common: Common, code: int) -> int:
    """Run a command several times at once; returns how many were refused. The others end with `code`."""
    logs = [common.folder / f'log{number}' for number in range(count)]
    ended = [finish(process, log) for process, log in [(start(arguments, folder, log), log) for log in logs]]
    refused = [one for one in ended if is_refused(one)]
    for one in ended:
        if one not in refused and one.code != code or any(trace in one.err for trace in TRACES):
            raise AssertionError(f'exit code {one.code}: {one.err[-1500:]}')
    if len(refused) == count:
        raise AssertionError(f'all were refused: {refused[0].err}')
    return len(refused)


def is_refused(ended: Ended) -> bool:
    said = [line for line in ended.lines if line.startswith('error: ') and 'broken.jpg' not in line]
    return ended.code == 1 and len(said) == 1 and 'another run' in said[0]


def fresh(common: Common) -> Path:
    folder = common.folder / 'place'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def one_output_folder(count: int, common: Common) -> str:
    folder = fresh(common)
    refused = at_once(common.predict, count, folder, common, code=1)
    equal(common.predicted, tree(folder / 'out'))
    return f'with {refused} of {count} commands refused'


def one_work_directory(common: Common) -> str:
    folder = fresh(common)
    refused = at_once(common.train, 2, folder, common, code=0)
    found = kill_training.contents(folder / 'run')
    equal(common.trained, {name: content for name, content in found.items() if not name.startswith('previous/')})
    return f'with {refused} of 2 commands refused'


def one_cache(count: int, common: Common) -> None:
    """Commands with folders of their own compile the same network into one cache."""
    folder = fresh(common)
    arguments = [*common.predict, '--engine', 'openvino']
    environment = {'MS_SEGFORMER_CACHE': str(folder / 'cache')}
    places = [folder / str(number) for number in range(count)]
    processes = []
    for place in places:
        place.mkdir()
        processes.append(start(arguments, place, place / 'log', environment))
    for process, place in zip(processes, places, strict=True):
        ended = finish(process, place / 'log')
        if ended.code != 1 or any(trace in ended.err for trace in TRACES) or 'WARNING' in ended.err:
            raise AssertionError(f'exit code {ended.code}: {ended.err[-1500:]}')
        equal(
            {name: content for name, content in common.predicted.items() if not name.endswith('manifest.jsonl')},
            {name: content for name, content in tree(place / 'out').items() if not name.endswith('manifest.jsonl')},
        )
    left = [name for name in tree(folder / 'cache') if not name.endswith('.openvino')]
    if left:
        raise AssertionError(f'left in the cache: {left}')


def equal(expected: dict, found: dict) -> None:
    differences = kill_training.compare(expected, found) + [f'left: {name}' for name in found if TEMPORARY in name]
    if differences:
        raise AssertionError(f'not what one command leaves: {differences[:5]}')


CAMPAIGN = Campaign(
    'concurrency', prepare, make, (), cases=40, seconds=180, mebibytes=4096, batch=1, watched=False, headroom=False
)

if __name__ == '__main__':
    sys.exit(main(CAMPAIGN))
