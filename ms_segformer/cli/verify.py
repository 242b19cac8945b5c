"""`ms-segformer verify MODEL`: holds a model against its card, and writes down what was found."""

import argparse
import importlib.util
import json
import math
import os
import sys
import time
from argparse import Namespace
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, one_line
from ..files import atomic_write, read_json
from ..metainfo import VARIANTS, Variant, demo_model_dir, find_model, photographs, variant_of_hub_id
from ..progress import screen
from .arguments import add_engine_arguments, number_of_processes, one_of, output_file, positive_int, workers

if TYPE_CHECKING:
    import numpy as np

    from ..config.settings import Settings
    from ..models.segformer import Segformer
    from ..verification import Check, Progress, Report

HELP = 'check a model against its card: files, weights, known pixels, label maps, speed, and mIoU if images are given'
# Engines, and the packages that each needs beside torch; torch-compile, which needs a compiler, is left out.
ENGINES = {'torch': (), 'openvino': ('openvino',), 'onnxruntime': ('onnxruntime', 'onnx')}
TIMED = 3  # runs, after the one that made the label map
CARDS = ('b0', 'b1', 'b2', 'b3', 'b4', 'b5')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'model',
        metavar='MODEL',
        help='b0 to b5 or a hub id, downloaded if it is not here yet; a model directory; or demo',
    )
    parser.add_argument('--revision', help='of a hub id: branch, tag or commit (default: master)')
    parser.add_argument(
        '--card',
        type=one_of(CARDS),
        choices=CARDS,
        help='the published model that a directory '
        'holds; by default a directory has no published figures to compare with',
    )
    parser.add_argument(
        '--data',
        metavar='DIR',
        help='images with label maps: measures the mIoU; what a stopped run '
        'has measured is kept beside the report, and the next run goes on from it',
    )
    parser.add_argument('--split', default='val', help='default: %(default)s')
    parser.add_argument('--limit', type=positive_int, metavar='N', help='only the first N images')
    parser.add_argument(
        '--processes',
        type=number_of_processes,
        metavar='N',
        help='that measure the mIoU together (default: one for each GPU, or one)',
    )
    parser.add_argument(
        '--workers', type=workers, default=0, metavar='N', help='loading processes of each (default: %(default)s)'
    )
    add_engine_arguments(parser, 'that measures the mIoU: ')
    parser.add_argument(
        '--photograph',
        metavar='FILE_OR_URL',
        help="ModelScope's test photograph image_segmentation.jpg; default: for a published model it is fetched",
    )
    parser.add_argument(
        '--compare',
        metavar='REPORT',
        help='a report from another machine: its label maps are compared with those made here',
    )
    parser.add_argument(
        '-o',
        '--output',
        type=output_file,
        default='verify.json',
        metavar='FILE',
        help='the report (default: %(default)s)',
    )
    parser.set_defaults(scales=[1.0], flip=False)  # of `eval`, whose data set this is


def run(args: Namespace) -> int:
    from ..verification.score import alone

    if args.output == '-':
        raise ArgumentError('-o takes a file; the summary is printed in any case')
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise ArgumentError('verify starts its processes itself: leave torchrun out and say --processes N')
    with alone(_progress_folder(args)) if args.data else nullcontext():
        report, progress = verify(args)
        with atomic_write(args.output) as temporary:
            temporary.write_text(_json(report.to_dict()), encoding='utf-8', errors='backslashreplace')
        if progress is not None:
            progress.remove()
    print(report.summary())
    print(f'\nreport: {args.output}')
    return 1 if report.failed else 0


def verify(args: Namespace) -> 'tuple[Report, Progress | None]':
    """Make all checks of a command line.

    Returns:
        The report, and what its mIoU was counted from, to be removed once the report is written.

    Raises:
        CheckpointError, ConfigurationError, DatasetError, FileNotFoundError, ConnectionError: there is nothing to
            check. Weights that do not fit are no such error but a check that failed.
    """
    from ..verification import checks
    from .eval import open_data

    folder, model = _find(args)
    card = _card(args, model)
    theirs = _other_report(args.compare or _report_inside(folder))
    own = {Path(args.output).absolute(), _progress_folder(args).absolute()}
    report = _new_report(model, card)
    report.files = checks.describe_files(folder.absolute(), own)
    report.checks.append(checks.check_files(report.files, *_published_files(model)))
    loaded = _load(folder, report)
    if loaded is None:
        return report, None
    network, settings = loaded
    report.checks.append(checks.check_parameters(sum(each.numel() for each in network.parameters()), card))
    dataset = open_data(args, settings) if args.data else None
    _look_at_photographs(args, folder, card, settings, theirs, report)
    _look_at_int8(folder, network, report)
    return report, None if dataset is None else _measure(args, folder, network, dataset, card, report)


def _find(args: Namespace) -> tuple[Path, dict[str, Any]]:
    """The model's directory, downloaded if need be, and what is known of where it comes from."""
    from .fetch import fetch

    found = find_model(args.model)
    if os.path.isdir(found):
        if args.revision:
            raise ArgumentError(f'{args.model} is a directory, which has no revision; leave --revision out')
        return Path(found), {'name': args.model, 'directory': str(Path(found).resolve())}
    folder = fetch(found, args.revision)
    return Path(folder), {
        'name': args.model,
        'id': found,
        'revision': args.revision or 'master',
        'directory': str(Path(folder).resolve()),
    }


def _card(args: Namespace, model: dict[str, Any]) -> Variant | None:

    if args.card:
        return VARIANTS[args.card]
    return variant_of_hub_id(model['id']) if 'id' in model else None


def _progress_folder(args: Namespace) -> Path:
    return Path(f'{args.output}.progress')


def _report_inside(folder: Path) -> str | None:
    """The report that the demonstration model was shipped with."""

    return str(folder / 'verify.json') if folder == demo_model_dir() else None


def _other_report(path: str | None) -> dict[str, Any]:
    """The `photographs` of a report from another machine.

    Raises:
        FileNotFoundError, ArgumentError: it is no report of `verify`, or of no photograph that is here.
    """
    from ..verification.label_maps import is_description

    if path is None:
        return {}
    try:
        theirs = read_json(path)['photographs']
        right = all(map(is_description, theirs.values()))
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such file; --compare takes a report of `ms-segformer verify`') from None
    except (ValueError, KeyError, TypeError, AttributeError):
        right = False
    if not right:
        raise ArgumentError(f'{path} is not a report of `ms-segformer verify`')
    if not set(theirs) & {photograph.name for photograph in photographs()}:
        raise ArgumentError(
            f'{path} has no label map of {", ".join(each.name for each in photographs())}: nothing to '
            'compare; it is a report of another version'
        )
    return theirs


def _new_report(model: dict[str, Any], card: Variant | None) -> 'Report':
    import torch

    from ..verification import Report
    from .info import environment

    known = environment()
    return Report(
        {**model, **({'card': card.name} if card else {})},
        {
            **{key: known[key] for key in ('versions', 'python', 'hardware')},
            'threads': f'{torch.get_num_threads()} threads',
        },
    )


def _published_files(model: dict[str, Any]) -> tuple[dict[str, str] | None, str]:
    """Name to SHA-256 on the hub, or why they are not known."""
    if 'id' not in model:
        return None, 'a directory; nothing published to compare with'
    try:
        return _listed(model['id'], model['revision']), ''
    except Exception as error:  # of a foreign client: whatever it is, the files are not compared, and why is said
        return None, f'the hub could not be asked: {one_line(error)}'


def _listed(model_id: str, revision: str) -> dict[str, str]:
    """Name to SHA-256 of a repository's files, hidden ones and those without one left out."""
    try:
        from modelscope_hub.api import HubApi

        listed = [
            (each.path, getattr(each, 'sha256', None))
            for each in HubApi().list_repo_files(model_id, 'model', revision=revision)
        ]
    except ImportError:  # ModelScope before 1.36 has a client of its own
        from modelscope.hub.api import HubApi

        listed = [
            (each['Path'], each.get('Sha256'))
            for each in HubApi().get_model_files(model_id, revision=revision, recursive=True)
        ]
    return {
        path: sha256 for path, sha256 in listed if sha256 and not any(part.startswith('.') for part in path.split('/'))
    }


def _load(folder: Path, report: 'Report') -> 'tuple[Segformer, Settings] | None':
    """The network with its weights and its settings, or None where the weights do not fit."""
    from ..models.checkpoint import CheckpointError
    from ..models.fingerprint import fingerprint
    from ..verification import FAILED, PASSED, Check
    from .eval import load

    try:
        network, settings = load(str(folder))
    except CheckpointError as error:
        report.checks.append(Check('strict load', FAILED, str(error)))
        return None
    report.checks.append(
        Check(
            'strict load',
            PASSED,
            'of the weights taken, every tensor has its place and is finite, and no place is empty',
        )
    )
    report.model['fingerprint'] = fingerprint(network, settings)
    return network, settings


def _look_at_photographs(
    args: Namespace,
    folder: Path,
    card: Variant | None,
    settings: 'Settings',
    theirs: dict[str, Any],
    report: 'Report',
) -> None:
    """Known pixels, label maps of the engines, and speed."""
    from ..verification import FAILED, Check, label_maps

    pipelines = _pipelines(folder)
    first = next(iter(pipelines.values()))
    report.checks.append(_known_pixels(args, card, first))
    for path in photographs():
        maps = {engine: segmenter(str(path), with_masks=False)['seg_map'] for engine, segmenter in pipelines.items()}
        for engine in [engine for engine in maps if pipelines[engine].prepare_model().name != engine]:
            report.checks.append(Check(f'engine {engine}', FAILED, 'installed, but cannot be used; a warning says why'))
            del maps[engine], pipelines[engine]
        described = label_maps.describe(maps['torch'], list(settings.classes))
        report.photographs[path.name] = described
        report.checks += [_same_pixels(path.name, maps), _same_cells(path.name, described, theirs)]
        report.speed.update({engine: _milliseconds(segmenter, str(path)) for engine, segmenter in pipelines.items()})


def _look_at_int8(folder: Path, network: 'Segformer', report: 'Report') -> None:
    """Whether the int8 networks of the directory fit its weights, and their label maps and speed."""
    from ..engines.base import EngineError
    from ..engines.int8 import engines_with_int8, read_int8
    from ..pipelines.image_segmentation import SegformerPipeline
    from ..verification import FAILED, SKIPPED, Check, checks

    for engine in engines_with_int8(folder):
        name = f'int8 network, {engine}'
        if not all(map(importlib.util.find_spec, ENGINES[engine])):
            report.checks.append(Check(name, SKIPPED, f'{" and ".join(ENGINES[engine])} is not installed'))
            continue
        try:
            record = read_int8(network, engine).record
            float32, int8 = (
                SegformerPipeline(str(folder), device='cpu', engine=engine, precision=precision)
                for precision in ('float32', 'int8')
            )
            seen = []
            for path in map(str, photographs()):
                maps = [each(path, with_masks=False)['seg_map'] for each in (float32, int8)]
                seen.append(f'{Path(path).name}: {float((maps[0] == maps[1]).mean()):.2%}')
                report.speed[f'{engine} int8'] = _milliseconds(int8, path)
        except EngineError as error:
            report.checks.append(Check(name, FAILED, str(error)))
            continue
        detail = f'{record.summary()}; pixels as in float32 here: {", ".join(seen)}'
        report.checks.append(Check(name, checks.PASSED, detail))


def _pipelines(folder: Path) -> 'dict[str, Any]':
    """A pipeline on the CPU for every engine that is installed."""
    from ..pipelines.image_segmentation import SegformerPipeline

    return {
        engine: SegformerPipeline(str(folder), device='cpu', engine=engine)
        for engine, packages in ENGINES.items()
        if all(map(importlib.util.find_spec, packages))
    }


def _known_pixels(args: Namespace, card: Variant | None, segmenter: Any) -> 'Check':
    """The classes that ModelScope's own test saw in its photograph."""
    from ..preprocessors.image import ImageError
    from ..verification import SKIPPED, Check, checks

    name = "ModelScope's test photograph"
    if card is None:
        return Check(name, SKIPPED, 'known for the published models only')
    try:
        return checks.check_known_pixels(segmenter(args.photograph or checks.PHOTOGRAPH, with_masks=False)['seg_map'])
    except (ImageError, FileNotFoundError) as error:
        if args.photograph:
            raise
        return Check(name, SKIPPED, f'{error}; --photograph names a copy')


def _same_pixels(name: str, maps: 'dict[str, np.ndarray]') -> 'Check':
    """Whether the engines agree on a photograph."""
    from ..verification import SKIPPED, Check, checks

    title = f'{name}, label maps of the engines'
    first, *others = maps.values()
    if not others:
        return Check(
            title, SKIPPED, "only torch is here; pip install 'ms-segformer[openvino]' or [onnx] brings another"
        )
    least = min(float((first == other).mean()) for other in others)
    return Check(
        title,
        checks.outcome(least >= checks.SAME_PIXELS),
        f'{" and ".join(maps)} agree on {least:.4%} of the pixels or more, {checks.SAME_PIXELS:.1%} are asked for',
    )


def _same_cells(name: str, described: dict[str, Any], theirs: dict[str, Any]) -> 'Check':
    """Whether a label map is that of another report."""
    from ..verification import SKIPPED, Check, checks, label_maps

    title = f'{name}, label map of another machine'
    if name not in theirs:
        return Check(title, SKIPPED, 'no report to compare with (--compare REPORT)')
    if described['sha256'] == theirs[name].get('sha256'):
        return Check(title, checks.PASSED, 'equal to the last pixel')
    share = label_maps.same_cells(described, theirs[name])
    return Check(
        title,
        checks.outcome(share >= checks.SAME_CELLS),
        f'{share:.2%} of the cells agree, {checks.SAME_CELLS:.0%} are asked for',
    )


def _milliseconds(segmenter: Any, image: str) -> float:
    """Median time of one photograph, from the file to the label map."""
    import statistics  # imported late: takes 20 ms, and --help is to be fast

    times = []
    for _ in range(TIMED):
        started = time.perf_counter()
        segmenter(image, with_masks=False)
        times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times), 1)


def _measure(
    args: Namespace, folder: Path, network: 'Segformer', dataset: Any, card: Variant | None, report: 'Report'
) -> 'Progress':
    """mIoU, aAcc and IoU by class on a labeled split; returns what they were counted from."""
    from ..metrics.segmentation import SegmentationEvaluator
    from ..verification import checks

    progress = _progress(args, folder, report, dataset)
    _count_all(args, folder, network, dataset, progress)
    values = SegmentationEvaluator(list(dataset.CLASSES)).evaluate(progress.total)
    percent = {key: None if math.isnan(value) else round(100 * value, 4) for key, value in values.items()}
    report.score = {
        'data': str(Path(args.data).resolve()),
        'split': args.split,
        'images': len(dataset),
        'engine': ' and '.join(sorted(progress.engines)),
        **{key: percent[key] for key in ('mIoU', 'aAcc', 'mAcc')},
        'IoU': {key.removeprefix('IoU.'): value for key, value in percent.items() if key.startswith('IoU.')},
    }
    report.checks.append(checks.check_score(report.score['mIoU'], len(dataset), args.split, card))
    return progress


def _progress(args: Namespace, folder: Path, report: 'Report', dataset: Any) -> 'Progress':
    """What earlier runs have counted of this model, data and options: in a folder beside the report."""
    from ..engines.int8 import engines_with_int8, read_record
    from ..verification import Progress, score

    data = score.digest_of_data(dataset.source, dataset.ignore_index)
    precision = args.precision
    if precision == 'int8':  # networks that were calibrated otherwise give other results
        networks = {engine: read_record(folder, engine).digest for engine in engines_with_int8(folder)}
        precision = f'int8 {networks}'
    digest = score.digest_of(report.model['fingerprint'], data, len(dataset), args.engine, precision)
    return Progress(_progress_folder(args), digest, len(dataset), dataset.num_classes)


def _count_all(args: Namespace, folder: Path, network: 'Segformer', dataset: Any, progress: 'Progress') -> None:
    """Count the images that are left, in this process or in several, with a progress bar."""

    from tqdm import tqdm

    from ..verification import counting

    task = counting.Task(partial(_open, args, str(folder)), args.device, args.engine, args.precision, args.workers)
    done = int(progress.done.sum())
    if done:
        print(f'{done:,} of {len(dataset):,} images were counted by an earlier run', file=sys.stderr)
    with tqdm(
        total=len(dataset), initial=done, unit='image', desc='mIoU', disable=not sys.stderr.isatty(), **screen()
    ) as bar:
        counting.count_all(task, network, dataset, progress, args.processes, bar.update)


def _open(args: Namespace, folder: str) -> 'tuple[Segformer, Any]':
    """Network and data set of a command line, in a process that counts."""
    from .eval import load, open_data

    network, settings = load(folder)
    return network, open_data(args, settings)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + '\n'
