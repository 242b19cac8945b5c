"""`ms-segformer eval --model DIR_OR_ID --data DIR_OR_CONFIG`: mIoU, accuracy and a table per class.

With a published model and the 5,000 pairs of COCO-Stuff 164k val2017 this is the evaluation behind the numbers of the
model cards. `torchrun --nproc_per_node N -m ms_segformer.cli.main eval …` shares the images between N processes and
prints the same numbers.
"""

import argparse
import json
import logging
import math
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from ..config.limits import check_windows
from ..errors import ArgumentError, some_of
from ..files import atomic_write
from ..integrations.modelscope.hub import model_directory
from ..integrations.modelscope.messages import held_back_messages
from ..processes import prepare_processes
from .arguments import (
    MODES,
    add_engine_arguments,
    number_of_processes,
    one_of,
    output_file,
    positive_int,
    scale,
    side,
    workers,
)
from .eval_ray import check_ray, evaluate_with_ray
from .ray_cluster import add_ray_argument

if TYPE_CHECKING:
    import torch

    from ..config.settings import InferenceSettings, Settings
    from ..datasets.seg_dataset import SegDataset
    from ..datasets.sources import Source
    from ..engines import Engine
    from ..models.segformer import Segformer
    from ..trainers.evaluation import Evaluation, ImageCounter

# What the processes import that share the images out.
MODULES = ('ms_segformer.trainers.evaluation', 'ms_segformer.datasets.seg_dataset', 'ms_segformer.models.segformer')
HELP = 'evaluate a model on images with label maps: mIoU, accuracy, a table per class'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--model', required=True, metavar='DIR_OR_ID', help='model directory, hub id, b0 to b5, or demo'
    )
    parser.add_argument(
        '--data',
        required=True,
        metavar='DIR_OR_CONFIG',
        help='folder with images and label maps (images/val, annotations/val, …), or a configuration that names them',
    )
    parser.add_argument('--split', default='val', help='default: %(default)s')
    parser.add_argument('--limit', type=positive_int, metavar='N', help='only the first N images')
    parser.add_argument('--mode', type=one_of(MODES), choices=MODES, help="default: the model's test_cfg")
    parser.add_argument('--crop-size', type=side, nargs=2, metavar=('H', 'W'), help='window of --mode slide')
    parser.add_argument('--stride', type=positive_int, nargs=2, metavar=('H', 'W'), help='step of --mode slide')
    parser.add_argument(
        '--scales',
        type=scale,
        nargs='+',
        default=[1.0],
        metavar='F',
        help="average over these factors of the model's test size, e.g. 0.5 0.75 1 1.25 1.5 1.75",
    )
    parser.add_argument('--flip', action='store_true', help='average with the mirrored image')
    parser.add_argument('--batch-size', type=positive_int, default=1, metavar='N', help='default: %(default)s')
    parser.add_argument(
        '--workers', type=workers, default=0, metavar='N', help='loading processes (default: %(default)s)'
    )
    parser.add_argument(
        '--processes',
        type=number_of_processes,
        metavar='N',
        help='that share the images out (default: 1; with --ray all that there are)',
    )
    add_engine_arguments(parser)
    add_ray_argument(parser, 'share the images out')
    parser.add_argument('--all-classes', action='store_true', help='list classes too that do not occur')
    parser.add_argument('--confusion', type=output_file, metavar='PNG', help='draw the confusion matrix into this file')
    parser.add_argument(
        '--json',
        type=output_file,
        metavar='FILE',
        help='write all values here ("-": to the terminal, instead of the table)',
    )


def run(args: argparse.Namespace) -> int:
    from ..config.reader import read_configuration  # imported late: takes 30 ms, and --help is to be fast

    check_ray(args)
    if not os.path.exists(args.data):
        raise FileNotFoundError(f'{args.data}: no such file or folder')
    processes = 1 if args.ray else _number_of_processes(args)
    folder = model_directory(args.model)
    settings = read_configuration(folder)
    test = inference_settings(args, settings)
    if args.ray:
        report(args, evaluate_with_ray(args, open_data(args, settings), test))
        return 0
    if processes > 1:
        prepare_processes(MODULES)  # while this one imports much the same
    from ..trainers import distributed
    from ..trainers.evaluation import evaluate, evaluate_in_processes

    rank, world_size = distributed.start(device=args.device)
    dataset = open_data(args, settings)
    if processes > 1:
        open_counter = partial(_open_counter, args, folder, processes)
        report(args, evaluate_in_processes(open_counter, dataset, processes, sys.stderr.isatty()))
        return 0
    device = distributed.choose_device(args.device, world_size)
    model = load(folder)[0].to(device)
    found = evaluate(
        model,
        dataset,
        device,
        test,
        network=_engine(args, model, device),
        batch_size=args.batch_size,
        workers=args.workers,
        rank=rank,
        world_size=world_size,
        progress=rank == 0 and sys.stderr.isatty(),
    )
    if rank == 0:
        report(args, found)
    return 0


def _number_of_processes(args: argparse.Namespace) -> int:
    """How many share the images out.

    Raises:
        ArgumentError: more than one are asked for, with what is of one alone.
    """
    number: int = args.processes or 1
    if number == 1:
        return number
    for given, option in ((args.batch_size > 1, '--batch-size'), (args.workers, '--workers')):
        if given:
            raise ArgumentError(f'{option} is of one process: each of several loads one image after the other')
    if os.environ.get('WORLD_SIZE', '1') != '1':
        raise ArgumentError('--processes is for one process that starts others; torchrun has started several')
    return number


def _open_counter(args: argparse.Namespace, folder: str, processes: int, number: int) -> 'ImageCounter':
    """What counts in a process of several, which has its share of the threads; with GPUs each has one."""
    import torch

    from ..config.reader import read_configuration  # imported late: takes 30 ms, and --help is to be fast
    from ..trainers import distributed
    from ..trainers.evaluation import Evaluator, ImageCounter

    logging.getLogger('ms_segformer.datasets').setLevel(logging.ERROR)  # the command has warned already
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    name = args.device
    if torch.cuda.is_available() and name in (None, 'gpu', 'cuda'):
        name = f'cuda:{number % torch.cuda.device_count()}'
    device = distributed.choose_device(name)
    with held_back_messages():
        settings = read_configuration(folder)
        model = load(folder)[0].to(device)
        dataset = open_data(args, settings)
    evaluator = Evaluator(model, device, inference_settings(args, settings), network=_engine(args, model, device))
    return ImageCounter(evaluator, dataset)


def load(folder: str) -> 'tuple[Segformer, Settings]':
    """Return the model of a directory with its weights, and its configuration.

    Raises:
        CheckpointError, ConfigurationError: it cannot be had.
    """
    from ..config.reader import read_configuration  # imported late: takes 30 ms, and --help is to be fast
    from ..models.segformer import Segformer

    settings = read_configuration(folder)
    return Segformer.of_directory(folder, settings.model_section), settings


def open_data(args: argparse.Namespace, settings: 'Settings') -> 'SegDataset | _First':
    """Return the data set of the command line, with the model's classes and test pipeline.

    Raises:
        DatasetError: there is no such split, or its class list or the ids in its label maps are not the model's.
    """
    from ..datasets import coco_stuff
    from ..datasets.errors import DatasetError
    from ..datasets.layout import find_data_sources, names_classes, say_that_ids_are_taken_as_they_are
    from ..datasets.seg_dataset import SegDataset
    from ..datasets.sources import CONVERTED_SUFFIX, read_classes, say_if_255_looks_like_a_class
    from ..trainers.evaluation import inference_pipeline

    classes = list(settings.classes)
    named = names_classes(args.data)
    sections = find_data_sources(args.data, None if named else classes)
    if args.split not in sections:
        raise DatasetError(f'{args.data} has no split "{args.split}"; it has {", ".join(sections)}')
    section = dict(sections[args.split])
    converted = not named and section.get('label_suffix') == CONVERTED_SUFFIX
    theirs = list(coco_stuff.CLASSES) if converted else read_classes(section.get('classes') or classes)
    if list(theirs) != classes:
        raise DatasetError(
            f'the data of {args.data} have {len(theirs)} classes ({some_of(theirs, 4)}), the model has '
            f'{len(classes)} ({some_of(classes, 4)}): a model is evaluated on data of its own classes'
        )
    section['classes'] = classes
    dataset = SegDataset(
        section,
        inference_pipeline(settings.test_pipeline, args.scales, args.flip),
        mode='eval',
        ignore_index=section.pop('ignore_index', 255),
    )
    if not getattr(dataset.source, 'label_root', True):
        raise DatasetError(f'{args.data} has no label maps for the split "{args.split}"')
    _check_ids(dataset.source, args.data)
    say_if_255_looks_like_a_class(dataset.source)
    if not named:
        say_that_ids_are_taken_as_they_are(dataset.source, args.data)
    return _First(dataset, args.limit) if args.limit else dataset


def _check_ids(source: 'Source', data: str) -> None:
    """Refuse label maps whose values are no ids of the model's classes, before any time is spent on them."""
    from ..datasets.errors import DatasetError

    found, first = source.ids_outside()
    if found:
        values, count = some_of([str(value) for value in found], 12), len(source.CLASSES)
        raise DatasetError(
            f'the label maps of {data} do not fit the model: {first} and others hold the values {values}; its {count} '
            f'classes are 0-{count - 1}, and 255 is "not labeled". A model is evaluated on data of its own classes. '
            f'{source.hint(found)}'
        )


class _First:
    """The first samples of a data set."""

    def __init__(self, dataset: 'SegDataset', count: int) -> None:
        self.dataset, self.count = dataset, min(count, len(dataset))
        self.CLASSES, self.num_classes = dataset.CLASSES, dataset.num_classes
        self.ignore_index = dataset.ignore_index

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)


def inference_settings(args: argparse.Namespace, settings: 'Settings') -> 'InferenceSettings':
    """The `config.settings.InferenceSettings` of the command line.

    Raises:
        ArgumentError: `slide` without window and step or with impossible ones, or these without `slide`.
    """
    from ..config.settings import InferenceSettings  # imported late: takes 10 ms, and --help is to be fast

    test = settings.model.test
    mode = args.mode or test.mode
    if mode == 'whole':
        given = ' and '.join(
            name for name, value in (('--crop-size', args.crop_size), ('--stride', args.stride)) if value
        )
        if given:
            raise ArgumentError(f'{given} without --mode slide, which alone has windows: add it, or leave {given} out')
        return InferenceSettings()
    crop, stride = args.crop_size or test.crop_size, args.stride or test.stride
    if crop is None or stride is None:
        raise ArgumentError("--mode slide needs --crop-size H W and --stride H W: the model's test_cfg has none")
    check_windows(crop, stride)
    return InferenceSettings('slide', tuple(crop), tuple(stride))


def _engine(args: argparse.Namespace, model: 'Segformer', device: 'torch.device') -> 'Engine':
    from ..engines import create_engine

    return create_engine(model, args.engine, args.precision, device)


def report(args: argparse.Namespace, found: 'Evaluation') -> None:
    """Print what an evaluation found, and write the files asked for."""
    values = {key: value if math.isfinite(value) else None for key, value in found.values().items()}
    content = json.dumps(
        {**values, 'images': found.images, 'seconds': round(found.seconds, 3)}, ensure_ascii=False, indent=2
    )
    if args.json == '-':
        print(content)
    else:
        from ..metrics.report import per_class_table

        print(per_class_table(found.confusion, found.classes, not args.all_classes))
        print(f'{found.images} images in {found.seconds:.1f} s, {found.seconds / found.images:.3f} s per image')
        if args.json:
            with atomic_write(args.json) as temporary:
                temporary.write_text(content, encoding='utf-8')
    if args.confusion:
        from ..metrics.report import draw_confusion

        draw_confusion(found.confusion, found.classes, args.confusion)
