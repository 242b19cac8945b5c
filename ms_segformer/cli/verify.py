"""`ms-segformer verify MODEL`: holds a model against its card, and writes down what was found."""
import argparse
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_engine_arguments, natural, one_of, output_file, positive_int

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from ms_segformer.config import Settings
    from ms_segformer.metainfo import Variant
    from ms_segformer.models.segformer import Segformer
    from ms_segformer.verification import Check, Progress, Report

HELP = 'check a model against its card: files, weights, known pixels, label maps, speed, and mIoU if images are given'
ENGINES = ('torch', 'openvino')
TIMED = 3  # runs, after the one that made the label map
SECONDS_TO_WRITE = 10  # that processes get when they are stopped
CARDS = ('b0', 'b1', 'b2', 'b3', 'b4', 'b5')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', metavar='MODEL', help='b0 to b5 or a hub id, downloaded if it is not here yet; a '
                        'model directory; or demo')
    parser.add_argument('--revision', help='of a hub id: branch, tag or commit (default: master)')
    parser.add_argument('--card', type=one_of(CARDS), choices=CARDS, help='the published model that a directory '
                        'holds; by default a directory has no published figures to compare with')
    parser.add_argument('--data', metavar='DIR', help='images with label maps: measures the mIoU; what a stopped run '
                        'has measured is kept beside the report, and the next run goes on from it')
    parser.add_argument('--split', default='val', help='default: %(default)s')
    parser.add_argument('--limit', type=positive_int, metavar='N', help='only the first N images')
    parser.add_argument('--processes', type=positive_int, metavar='N',
                        help='that measure the mIoU together (default: one for each GPU, or one)')
    parser.add_argument('--workers', type=natural, default=0, metavar='N', help='loading processes of each (default: '
                        '%(default)s)')
    add_engine_arguments(parser, 'that measures the mIoU: ')
    parser.add_argument('--photograph', metavar='FILE_OR_URL', help="ModelScope's test photograph "
                        'image_segmentation.jpg; default: for a published model it is fetched')
    parser.add_argument('--compare', metavar='REPORT', help='a report from another machine: its label maps are '
                        'compared with those made here')
    parser.add_argument('-o', '--output', type=output_file, default='verify.json', metavar='FILE',
                        help='the report (default: %(default)s)')
    parser.set_defaults(scales=[1.0], flip=False)  # of `eval`, whose data set this is


def run(args: Namespace) -> int:
    from ms_segformer.files import atomic_write
    report, progress = verify(args)
    with atomic_write(args.output) as temporary:
        temporary.write_text(_json(report.to_dict()), encoding='utf-8')
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
    from ms_segformer.verification import checks

    from .eval import open_data
    folder, model = _find(args)
    card = _card(args, model)
    theirs = _other_report(args.compare or _report_inside(folder))
    report = _new_report(model, card)
    report.files = checks.describe_files(folder)
    report.checks.append(checks.check_files(report.files, *_published_files(model)))
    network, settings = _load(folder, report)
    if network is None:
        return report, None
    report.checks.append(checks.check_parameters(sum(each.numel() for each in network.parameters()), card))
    dataset = open_data(args, settings) if args.data else None
    _look_at_photographs(args, folder, card, settings, theirs, report)
    return report, None if dataset is None else _measure(args, folder, network, dataset, card, report)


def _find(args: Namespace) -> tuple[Path, dict[str, Any]]:
    """The model's directory, downloaded if need be, and what is known of where it comes from."""
    import os

    from ms_segformer.metainfo import find_model

    from .fetch import fetch
    found = find_model(args.model)
    if os.path.isdir(found):
        if args.revision:
            raise ValueError(f'{args.model} is a directory, which has no revision; leave --revision out')
        return Path(found), {'name': args.model, 'directory': str(Path(found).resolve())}
    folder = fetch(found, args.revision)
    return Path(folder), {'name': args.model, 'id': found, 'revision': args.revision or 'master',
                          'directory': str(Path(folder).resolve())}


def _card(args: Namespace, model: dict[str, Any]) -> 'Variant | None':
    from ms_segformer.metainfo import VARIANTS, variant_of_hub_id
    if args.card:
        return VARIANTS[args.card]
    return variant_of_hub_id(model['id']) if 'id' in model else None


def _report_inside(folder: Path) -> str | None:
    """The report that came with a model, as the demonstration model has one."""
    path = folder / 'verify.json'
    return str(path) if path.is_file() else None


def _other_report(path: str | None) -> dict[str, Any]:
    """The `photographs` of a report from another machine.

    Raises:
        ValueError: it is no report of `verify`.
    """
    import json
    if path is None:
        return {}
    try:
        photographs = json.loads(Path(path).read_text(encoding='utf-8'))['photographs']
        return {name: {**described, 'cells': list(described['cells'])} for name, described in photographs.items()}
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such file; --compare takes a report of `ms-segformer verify`') from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f'{path} is not a report of `ms-segformer verify`') from None


def _new_report(model: dict[str, Any], card: 'Variant | None') -> 'Report':
    from ms_segformer.verification import Report

    from .info import environment
    known = environment()
    return Report({**model, **({'card': card.name} if card else {})},
                  {key: known[key] for key in ('versions', 'python', 'hardware')})


def _published_files(model: dict[str, Any]) -> tuple[dict[str, str] | None, str]:
    """Name to SHA-256 on the hub, or why they are not known."""
    if 'id' not in model:
        return None, 'a directory; nothing published to compare with'
    from requests import RequestException

    from ms_segformer import plugin
    try:
        from modelscope.hub.api import HubApi
        listed = HubApi().get_model_files(model['id'], revision=model['revision'], recursive=True)
    except (RequestException, OSError, ValueError) as error:
        return None, f'the hub could not be asked: {error}'
    except plugin.HubUnreachable as error:
        return None, str(error)
    return {each['Path']: each['Sha256'] for each in listed if each.get('Sha256')
            and not any(part.startswith('.') for part in each['Path'].split('/'))}, ''


def _load(folder: Path, report: 'Report') -> 'tuple[Segformer | None, Settings | None]':
    """The network with its weights and its settings, or None where the weights do not fit."""
    from ms_segformer.models.checkpoint import CheckpointError
    from ms_segformer.models.fingerprint import fingerprint
    from ms_segformer.verification import FAILED, PASSED, Check

    from .eval import load
    try:
        network, settings = load(str(folder))
    except CheckpointError as error:
        report.checks.append(Check('strict load', FAILED, str(error)))
        return None, None
    report.checks.append(Check('strict load', PASSED, 'every tensor of the file has its place, and every place its '
                               'tensor; all are finite'))
    report.model['fingerprint'] = fingerprint(network, settings)
    return network, settings


def _look_at_photographs(args: Namespace, folder: Path, card: 'Variant | None', settings: 'Settings',
                         theirs: dict[str, Any], report: 'Report') -> None:
    """Known pixels, label maps of both engines, and speed."""
    from ms_segformer.metainfo import photographs
    from ms_segformer.verification import label_maps
    pipelines = _pipelines(folder)
    first = next(iter(pipelines.values()))
    report.checks.append(_known_pixels(args, card, first))
    for path in photographs():
        maps = {engine: segmenter(str(path), with_masks=False)['seg_map'] for engine, segmenter in pipelines.items()}
        described = label_maps.describe(maps['torch'], list(settings.classes))
        report.photographs[path.name] = described
        report.checks += [_same_pixels(path.name, maps), _same_cells(path.name, described, theirs)]
        report.speed.update({engine: _milliseconds(segmenter, str(path)) for engine, segmenter in pipelines.items()})


def _pipelines(folder: Path) -> 'dict[str, Any]':
    """A pipeline on the CPU for every engine that is installed."""
    import importlib.util

    from ms_segformer.pipelines.image_segmentation import SegformerPipeline
    return {engine: SegformerPipeline(str(folder), device='cpu', engine=engine) for engine in ENGINES
            if engine == 'torch' or importlib.util.find_spec(engine)}


def _known_pixels(args: Namespace, card: 'Variant | None', segmenter: Any) -> 'Check':
    """The classes that ModelScope's own test saw in its photograph."""
    from ms_segformer.preprocessors.image import ImageError
    from ms_segformer.verification import SKIPPED, Check, checks
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
    from ms_segformer.verification import SKIPPED, Check, checks
    title = f'{name}, label maps of the engines'
    first, *others = maps.values()
    if not others:
        return Check(title, SKIPPED, "only torch is here; pip install 'ms-segformer[openvino]' brings the other")
    least = min(float((first == other).mean()) for other in others)
    return Check(title, checks.outcome(least >= checks.SAME_PIXELS),
                 f'{" and ".join(maps)} agree on {least:.4%} of the pixels, {checks.SAME_PIXELS:.1%} are asked for')


def _same_cells(name: str, described: dict[str, Any], theirs: dict[str, Any]) -> 'Check':
    """Whether a label map is that of another report."""
    from ms_segformer.verification import SKIPPED, Check, checks, label_maps
    title = f'{name}, label map of another machine'
    if name not in theirs:
        return Check(title, SKIPPED, 'no report to compare with (--compare REPORT)')
    if described['sha256'] == theirs[name].get('sha256'):
        return Check(title, checks.PASSED, 'equal to the last pixel')
    share = label_maps.same_cells(described, theirs[name])
    return Check(title, checks.outcome(share >= checks.SAME_CELLS),
                 f'{share:.2%} of the cells agree, {checks.SAME_CELLS:.0%} are asked for')


def _milliseconds(segmenter: Any, image: str) -> float:
    """Median time of one photograph, from the file to the label map."""
    import statistics
    import time
    times = []
    for _ in range(TIMED):
        started = time.perf_counter()
        segmenter(image, with_masks=False)
        times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times), 1)


def _measure(args: Namespace, folder: Path, network: 'Segformer', dataset: Any, card: 'Variant | None',
             report: 'Report') -> 'Progress':
    """mIoU, aAcc and IoU by class on a labelled split; returns what they were counted from."""
    import math

    from ms_segformer.metrics.segmentation import SegmentationEvaluator
    from ms_segformer.verification import checks
    progress = _progress(args, report, dataset)
    engine = _count_all(args, folder, network, dataset, progress)
    values = SegmentationEvaluator(list(dataset.CLASSES)).evaluate(progress.total)
    percent = {key: None if math.isnan(value) else round(100 * value, 4) for key, value in values.items()}
    report.score = {
        'data': str(Path(args.data).resolve()), 'split': args.split, 'images': len(dataset), 'engine': engine,
        'precision': args.precision, **{key: percent[key] for key in ('mIoU', 'aAcc', 'mAcc')},
        'IoU': {key.removeprefix('IoU.'): value for key, value in percent.items() if key.startswith('IoU.')}}
    report.checks.append(checks.check_score(report.score['mIoU'], len(dataset), card))
    return progress


def _progress(args: Namespace, report: 'Report', dataset: Any) -> 'Progress':
    """What earlier runs have counted of this model, data and options: in a folder beside the report."""
    from ms_segformer.verification import Progress, score
    folder = Path(f'{args.output}.progress')
    digest = score.digest_of(report.model['fingerprint'], score.digest_of_data(dataset), len(dataset), args.engine,
                             args.precision)
    return Progress(folder, digest, len(dataset), dataset.num_classes)


def _count_all(args: Namespace, folder: Path, network: 'Segformer', dataset: Any, progress: 'Progress') -> str:
    """Count the images that are left, in this process or in several; returns the engine's name."""
    import sys

    from tqdm import tqdm

    from ms_segformer.verification import ScoreError
    processes = args.processes or _processes(args.device)
    done = int(progress.done.sum())
    if done:
        print(f'{done:,} of {len(dataset):,} images were counted by an earlier run', file=sys.stderr)
    with tqdm(total=len(dataset), initial=done, unit='image', desc='mIoU', disable=not sys.stderr.isatty()) as bar:
        if processes == 1:
            engine = _count(args, network, dataset, progress, progress.left(), args.device, bar.update)
        else:
            engine = _count_in_processes(args, folder, progress, processes, bar)
    progress.read()
    if progress.left():
        raise ScoreError(f'{len(progress.left())} of {len(dataset)} images are not counted: a process has ended '
                         'before its time; the same command goes on')
    return engine


def _processes(device: str | None) -> int:
    import torch
    return max(1, torch.cuda.device_count()) if device in (None, 'gpu', 'cuda') else 1


def _count(args: Namespace, network: 'Segformer', dataset: Any, progress: 'Progress', indices: list[int],
           device: str | None, seen: 'Callable[[], Any]') -> str:
    """Count some images; what is counted is written at the end, and when it is stopped."""
    from ms_segformer.runtime import create_engine
    from ms_segformer.trainers import distributed
    from ms_segformer.trainers.evaluation import Evaluator, predictions
    device = distributed.choose_device(device)
    engine = create_engine(network.to(device), args.engine, args.precision, device)
    try:
        evaluator = Evaluator(network, device, network=engine)
        for index, prediction, label in predictions(evaluator, dataset, indices, workers=args.workers):
            progress.count(index, prediction, label)
            seen()
    finally:
        progress.write()
    return engine.name


def _count_in_processes(args: Namespace, folder: Path, progress: 'Progress', processes: int, bar: Any) -> str:
    """Count what is left in several processes, each with its share, its file, and its GPU or threads."""
    import torch
    import torch.multiprocessing as multiprocessing
    context = multiprocessing.get_context('spawn')  # CUDA does not survive a fork
    seen, engine = context.SimpleQueue(), context.Array('c', 64)
    threads = max(1, torch.get_num_threads() // processes)
    workers = [context.Process(
        target=_child, args=(args, str(folder), progress.digest, number, processes, threads, seen, engine),
        daemon=args.workers == 0) for number in range(processes)]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers) or not seen.empty():
            while not seen.empty():
                bar.update(seen.get())
            workers[0].join(0.2)
    except KeyboardInterrupt:  # Ctrl-C reaches them too: they write what they have counted
        for worker in workers:
            worker.join(SECONDS_TO_WRITE)
        raise
    return engine.value.decode()


def _child(args: Namespace, folder: str, digest: str, number: int, processes: int, threads: int, seen: Any,
           engine: Any) -> None:
    """One of several processes: opens model and data itself."""
    import os

    import torch

    from ms_segformer.verification import Progress, score

    from . import eval as evaluation
    parent = os.getppid()
    torch.set_num_threads(threads)
    network, settings = evaluation.load(folder)
    dataset = evaluation.open_data(args, settings)
    progress = Progress(f'{args.output}.progress', digest, len(dataset), dataset.num_classes)

    def tell() -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt  # the command was killed
        seen.put(1)

    device = f'cuda:{number}' if torch.cuda.is_available() and args.device in (None, 'gpu', 'cuda') else args.device
    try:
        engine.value = _count(args, network, dataset, progress, score.share(progress.left(), number, processes), device,
                              tell).encode()
    except KeyboardInterrupt:
        os._exit(130)


def _json(value: Any) -> str:
    import json
    return json.dumps(value, indent=1, ensure_ascii=False) + '\n'
