"""`ms-segformer predict IMAGE… --model DIR_OR_ID -o OUT`: segment photographs and videos, the results as files."""

import argparse
import glob
import itertools
import os
import sys
import time
from argparse import Namespace
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from ..errors import ArgumentError
from ..files import FULL_DISK
from ..metainfo import DEMO, DEMO_NOTE, LANGUAGES
from ..processes import prepare_processes
from ..progress import screen
from .arguments import (
    MODES,
    add_engine_arguments,
    frames_a_second,
    number_of_processes,
    one_of,
    output_place,
    percentage,
    pixel_count,
    pixels,
    positive_int,
)
from .predict_inputs import all_named, check_store, say_left_out
from .predict_ray import check_ray, predict_with_ray
from .predict_video import check_videos, segment_video
from .ray_cluster import add_ray_argument

if TYPE_CHECKING:
    from ..pipelines.image_segmentation import SegformerPipeline
    from ..pipelines.to_files import Made, Making
    from ..results import Input, InputVersion, Job, Manifest, ResultWriter, Row, Run

HELP = (
    'segment images: label map, overlay with legend, and JSON with scores, shares and masks (COCO RLE); '
    'and videos: overlay, and a line of JSON a frame'
)
OUTPUTS = ('labels', 'overlay', 'json')
FORMATS = ('coco', 'panoptic', 'labelme', 'labelstudio', 'masks', 'csv')
REGIONS = ('rle', 'polygons')
OPTIONS_OF_FORMATS = {
    'regions': ('coco', 'labelstudio'),
    'simplify': ('coco', 'labelme', 'labelstudio'),
    'min_area': ('coco', 'labelme', 'labelstudio'),
    'image_prefix': ('labelstudio',),
}
# What the processes import that share the images out.
MODULES = ('modelscope.pipelines', 'ms_segformer.pipelines.image_segmentation', 'ms_segformer.pipelines.to_files')
IMAGES_EACH = 150  # that a process needs to pay for its start
MEMORY_EACH = 3 << 30  # bytes for a process; the demonstration model takes 2.3 GiB with eight shapes of photographs
PROGRESS = '{l_bar}{bar}| {n_fmt}/{total_fmt} images, {rate_noinv_fmt}, {remaining} left'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'images',
        nargs='*',
        metavar='IMAGE',
        help='image and video files, folders of images, patterns ("shots/*.jpg"), URLs of images, or URLs of objects, '
        'folders and patterns in stores (s3://, oss://, gs://, hf://)',
    )
    parser.add_argument(
        '--from',
        dest='list',
        metavar='FILE',
        help='take more of them from a file, one a line; - reads the standard input',
    )
    parser.add_argument(
        '--model',
        required=True,
        metavar='DIR_OR_ID',
        help='model directory, hub id, b0 to b5, or demo: a small street-scene model in the package',
    )
    parser.add_argument(
        '-o',
        '--output',
        type=output_place,
        default='outputs',
        metavar='DIR',
        help="where to write, in sub-folders like the images' own, with a manifest.jsonl of what is "
        'what; a folder, or one in a store such as s3://BUCKET/NAME (default: %(default)s)',
    )
    parser.add_argument(
        '--save',
        nargs='+',
        type=one_of(OUTPUTS),
        choices=OUTPUTS,
        default=list(OUTPUTS),
        help='what to write (default: all)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='segment again what is finished, and replace files that are in the way'
    )
    parser.add_argument('--retry-failed', action='store_true', help='segment again what failed in an earlier run')
    _add_format_arguments(parser)
    add_ray_argument(parser, 'segment into rows of Parquet files below -o,')
    add_engine_arguments(parser)
    parser.add_argument(
        '--mode',
        type=one_of(MODES),
        choices=MODES,
        help="one piece or overlapping windows (default: the configuration's)",
    )
    parser.add_argument(
        '--full-size',
        action='store_true',
        help="do not scale the image to the network's usual size first; with --mode slide for images of any size",
    )
    parser.add_argument(
        '--max-pixels',
        type=positive_int,
        metavar='N',
        help='refuse images, and frames of videos, with more pixels before they are decoded (default: 134217728; of '
        'frames 33554432)',
    )
    parser.add_argument(
        '--video-from-images',
        type=frames_a_second,
        metavar='FPS',
        help='each folder is one video: its images, in the order of their names and numbers, so many a second',
    )
    parser.add_argument('--batch-size', type=positive_int, metavar='N', help='images or frames worked on together')
    parser.add_argument(
        '--processes',
        type=number_of_processes,
        metavar='N',
        help='that share the images out (default: with B0 on a CPU one a thread, as far as there are 150 images and '
        '3 GiB of memory for each; else 1)',
    )
    parser.add_argument(
        '--min-share',
        type=percentage,
        default='0.1',
        metavar='PERCENT',
        help='list no class on the terminal that covers less of the image, in percent (default: '
        '%(default)s); the files have all',
    )
    parser.add_argument(
        '--names',
        action='store_true',
        help='write class names on large segments of the overlay too',
    )
    parser.add_argument(
        '--language',
        type=one_of(LANGUAGES),
        choices=LANGUAGES,
        default='en',
        help="of COCO-Stuff's class names in the overlay and on the terminal (default: %(default)s); labels in files "
        'stay English',
    )
    parser.add_argument('-q', '--quiet', action='store_true', help='say errors and warnings only')


def _add_format_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--format',
        nargs='+',
        type=one_of(FORMATS),
        choices=FORMATS,
        default=[],
        dest='formats',
        help='besides, all images in the formats of other tools, made from the JSON: coco.json; panoptic.json and '
        'panoptic/; labelme/; labelstudio.json; masks/, label maps by themselves; segments.csv',
    )
    parser.add_argument(
        '--regions',
        type=one_of(REGIONS),
        choices=REGIONS,
        help='of coco and labelstudio: rle, masks that are exact (default), or polygons, which are easier to correct',
    )
    parser.add_argument(
        '--simplify',
        type=pixels,
        metavar='PIXELS',
        help='how far the outline of a polygon may move; 0: along the edges of the pixels (default: 0.75)',
    )
    parser.add_argument(
        '--min-area',
        type=pixel_count,
        metavar='PIXELS',
        help='leave connected parts of fewer pixels out of coco, labelme and labelstudio (default: 0)',
    )
    parser.add_argument(
        '--image-prefix',
        metavar='TEXT',
        help='what Label Studio finds an image by, before its name (default: /data/local-files/?d=, its local files)',
    )


def _format_options(args: Namespace) -> dict[str, Any]:
    """What was given of the options of formats.

    Raises:
        ArgumentError: there is one, and no format that it is for.
    """
    given = {}
    for name, takers in OPTIONS_OF_FORMATS.items():
        value = getattr(args, name)
        if value is None:
            continue
        if not set(takers) & set(args.formats):
            raise ArgumentError(f'--{name.replace("_", "-")} is for --format {" or ".join(takers)}')
        given[name] = value
    return given


def run(args: Namespace) -> int:
    from ..results import find_in_stores, find_input, find_sequence, make_plan, open_manifest

    check_ray(args)
    if (args.processes or 1) > 1 and args.batch_size is not None:
        raise ArgumentError('--batch-size is of one process: each of several segments one image after the other')
    format_options = _format_options(args)
    fps = args.video_from_images
    named = all_named(args.images, args.list)
    folders = {item for item in named if os.path.isdir(item)} if fps else set()
    if fps and not folders:
        raise ArgumentError('--video-from-images is for folders, and none was given')
    locations, empty = _expand(named, args.quiet, folders)
    stored = find_in_stores(locations)
    say_left_out(stored.results, args.quiet)
    empty += stored.problems
    if args.ray:
        urls = {location: [each.key for each in inputs] for location, inputs in stored.inputs.items()}
        locations = [each for location in locations for each in urls.get(location, [location])]
        return predict_with_ray(args, locations, empty, lambda: _describe(args, _open(args)))
    inputs: list[Input] = []
    for location in locations:
        if location in stored.inputs:
            inputs += stored.inputs[location]
        else:
            inputs.append(find_sequence(location, fps) if location in folders else find_input(location))
    if all(each.refusal for each in inputs):
        raise ArgumentError('\nerror: '.join([*empty, *(each.refusal or '' for each in inputs)]))
    check_videos(args, inputs)
    check_store(args, inputs)
    if args.model == DEMO and not args.quiet:
        print(f'note: {DEMO_NOTE}', file=sys.stderr)
    if (args.processes or 1) > 1 and sum(not each.video for each in inputs) > 1:
        prepare_processes(MODULES)  # while this one imports much the same
    segmenter = _open(args)
    jobs: list[Job] = []
    with _full_disk_in_words(args.output, jobs), open_manifest(args.output) as manifest:
        task = _describe(args, segmenter)
        jobs += make_plan(inputs, manifest, task)
        manifest.remove_leftovers(
            itertools.chain(
                (output for entry in manifest.entries.values() for output in entry['outputs']),
                (output for job in jobs for output in job.outputs.values()),
            )
        )
        start = time.monotonic()
        _segment(args, segmenter, manifest, task, jobs)
        _segment_videos(args, segmenter, manifest, task, jobs)
        seconds = time.monotonic() - start
        manifest.compact(job.input.key for job in jobs)
        problems = _write_formats(args, segmenter, manifest, jobs, format_options)
    _say_failures(jobs, [*empty, *problems])
    if not args.quiet:
        _summarise(jobs, seconds)
    return 1 if empty or problems or any(job.state.startswith('failed') for job in jobs) else 0


def _open(args: Namespace) -> 'SegformerPipeline':
    from ..pipelines import load

    device = {None: 'gpu', 'gpu': 'gpu:0'}.get(args.device, args.device)  # one that is asked for by name is missed
    segmenter = load(args.model, device=device, engine=args.engine, precision=args.precision)
    if args.precision in ('int8', 'fp16'):
        segmenter.prepare_model()  # whether that can be had is known before anything is written
    return segmenter


def _describe(args: Namespace, segmenter: 'SegformerPipeline') -> 'Run':
    """What the manifest says of all images of this run, as `results.Run`."""
    from ..models.fingerprint import fingerprint
    from ..results import Run

    settings = segmenter.settings
    return Run(
        model={'name': str(args.model), 'sha256': fingerprint(segmenter.model, settings)},
        options={
            'mode': args.mode or settings.model.test.mode,
            'full_size': args.full_size,
            'precision': args.precision,
            **_int8_network(args, segmenter),
            **({'names': True} if args.names else {}),  # said only where asked for: earlier results stay finished
            **({'language': args.language} if args.language != 'en' else {}),
        },
        save=tuple(dict.fromkeys([*args.save, *(['json'] if args.formats else [])])),
        overwrite=args.overwrite,
        retry_failed=args.retry_failed,
    )


def _int8_network(args: Namespace, segmenter: 'SegformerPipeline') -> dict[str, str]:
    """What tells an int8 network from one that was calibrated otherwise, and gives other results."""
    if args.precision != 'int8':
        return {}
    from ..engines.int8 import read_record

    return {'int8_network': read_record(segmenter.model.model_dir, segmenter.prepare_model().name).digest}


def _segment(
    args: Namespace, segmenter: 'SegformerPipeline', manifest: 'Manifest', task: 'Run', jobs: list['Job']
) -> None:
    """Segment what is to be done and write it; each job knows afterwards what became of it."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from ..pipelines.to_files import Wanted, make_files
    from ..results import out_of_date

    writer, names = _writer(args, segmenter, manifest)
    for job in jobs:
        if job.state == 'failed':
            _fail(manifest, task, job, None, job.error or '')
    todo = [job for job in jobs if job.state == 'todo' and not job.input.video]
    images = (
        Wanted(
            job.input.source(job.known),
            job.input.name,
            tuple(out_of_date(job, job.input.version, manifest, task) if job.input.version else job.outputs),
        )
        for job in todo
    )
    number = _number_of_processes(args, segmenter, len(todo))
    shown = not args.quiet and len(todo) > 1 and sys.stderr.isatty()
    above = logging_redirect_tqdm() if shown else nullcontext()  # log lines go above the bar
    with (
        above,
        closing(make_files(_making(args, segmenter), segmenter, images, number)) as files,
        tqdm(
            zip(todo, files, strict=True),
            total=len(todo),
            unit=' images',
            bar_format=PROGRESS,
            disable=not shown,
            **screen(),
        ) as progress,
    ):
        for job, made in progress:
            if made.unchanged:
                job.pass_over(manifest.entries[job.input.key])
                continue
            kept = _keep(writer, manifest, task, job, made.version or job.input.version, made)
            if kept and not args.quiet:
                with tqdm.external_write_mode():
                    _report(job, writer.folder, made.rows, names, args.min_share)


def _number_of_processes(args: Namespace, segmenter: 'SegformerPipeline', images: int) -> int:
    """How many share the images out: as many as are asked for or, where more than one pay, one a thread.

    A program that calls the command gets others only if it asks for them: Python imports its script in each.

    That they pay was measured (`benchmarks.per_core`): two processes of one thread make 1.25 times the images a second
    of one with two in float32 with B0, and 1.35 in bfloat16; with B2 and B5 1.03 to 1.10, for twice the memory.
    """
    import torch

    from ..processes import free_memory

    if args.processes:
        return min(args.processes, max(1, images))
    if not args.from_terminal or segmenter.variant != 'b0' or args.batch_size or segmenter.device.type != 'cpu':
        return 1
    memory = free_memory()
    most = min(torch.get_num_threads(), images // IMAGES_EACH, (memory or 0) // MEMORY_EACH)
    if most > 1:
        prepare_processes(MODULES)
    return max(1, most)


def _making(args: Namespace, segmenter: 'SegformerPipeline') -> 'Making':
    """How files are made, in any process."""
    from ..pipelines.to_files import Making

    return Making(
        segmenter.model.model_dir,
        args.device or 'gpu',
        args.engine,
        args.precision,
        {
            'batch_size': args.batch_size,
            'mode': args.mode,
            'resize': not args.full_size,
            'with_masks': False,
            'max_pixels': args.max_pixels,
        },
        args.language,
        args.names,
        args.verbose,
    )


def _segment_videos(
    args: Namespace, segmenter: 'SegformerPipeline', manifest: 'Manifest', task: 'Run', jobs: list['Job']
) -> None:
    """Segment the videos that are to be done, after the images."""
    writer, names = _writer(args, segmenter, manifest)
    for job in jobs:
        if job.state == 'todo' and job.input.video:
            rows = segment_video(args, segmenter, writer, manifest, task, job)
            if rows is not None and not args.quiet:
                _report(job, writer.folder, rows, names, args.min_share)


def _writer(args: Namespace, segmenter: 'SegformerPipeline', manifest: 'Manifest') -> 'tuple[ResultWriter, list[str]]':
    """What makes the files, and the names of the classes by id as the terminal shows them."""
    from ..datasets.class_names import names_in
    from ..results import writer_for

    settings = segmenter.settings
    writer = writer_for(manifest, settings.classes, settings.palette, args.language, args.names)
    return writer, names_in(args.language, settings.classes)


def _keep(
    writer: 'ResultWriter', manifest: 'Manifest', task: 'Run', job: 'Job', version: 'InputVersion | None', made: 'Made'
) -> bool:
    """Write one image's files and what the manifest says of it; returns whether they are there."""
    from ..results import AlteredError, change, obstacle, out_of_date
    from ..results.manifest import record_of

    wanted = out_of_date(job, version, manifest, task)
    error = made.error or obstacle(job, wanted.values(), manifest, task)
    if error:
        _fail(manifest, task, job, version if made.damaged else None, error)
        return False
    announced = None
    try:
        files = {output: made.contents[kind] for kind, output in wanted.items()}
        new = change(job, manifest, task, {output: record_of(content) for output, content in files.items()})
        announced = job.announcement(task, version, new)
        manifest.append(announced)
        writer.write({output: files[output] for output in new.files})
    except AlteredError as reason:
        _fail(manifest, task, job, None, str(reason))
        return False
    except OSError as reason:
        if reason.errno in FULL_DISK:
            raise
        error = f'{job.input.name}: its result cannot be written ({reason})'
        if announced is None:
            _fail(manifest, task, job, None, error)
            return False
        job.fail(error)
        manifest.append({**announced, 'error': error})
        return False
    manifest.append(job.entry(task, version, new.outputs))
    job.state, job.outputs = 'done', wanted
    return True


def _write_formats(
    args: Namespace, segmenter: 'SegformerPipeline', manifest: 'Manifest', jobs: list['Job'], options: dict[str, Any]
) -> list[str]:
    """Write the formats asked for, and say which files they are; returns what is wrong with some."""
    if not args.formats:
        return []
    from ..results.formats.export import write_formats
    from ..results.formats.options import FormatOptions

    made = FormatOptions(segmenter.classes, segmenter.palette, **options)
    images = [job for job in jobs if not job.input.video]
    written, problems = write_formats(args.formats, manifest, images, made, args.overwrite)
    if not args.quiet:
        places = dict.fromkeys(path.split('/')[0] + '/' * ('/' in path) for path in written)
        print('-> ' + ', '.join(str(manifest.folder / place) + '/' * place.endswith('/') for place in places))
    return problems


def _fail(manifest: 'Manifest', task: 'Run', job: 'Job', version: 'InputVersion | None', error: str) -> None:
    """Note why an image failed before anything was written; what the manifest knows of its earlier result stays."""
    job.fail(error if job.input.name in error else f'{job.input.name}: {error}')
    if not manifest.owned(job.input.key):
        manifest.append(job.entry(task, version, {}, job.error))


@contextmanager
def _full_disk_in_words(output: str, jobs: list['Job']) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        done = sum(job.state in ('done', 'skipped') for job in jobs)
        raise OSError(
            f'{output}: {error.strerror}. {done} of {len(jobs)} {_inputs(jobs)} are finished and kept; make room, and '
            'the same command goes on with the others'
        ) from None


def _report(job: 'Job', folder: 'Path', rows: 'list[Row]', names: list[str], least: float) -> None:
    """Say which classes cover at least some share of an image, 0 to 1, and where its files are; names are by id."""
    print(job.input.name)
    large = [row for row in rows if row['share'] >= least]
    for row in large:
        name = names[row['id']]
        columns = sum(2 if east_asian_width(letter) in 'WF' else 1 for letter in name)
        print(f'  {row["share"]:7.2%}  {name}{" " * (20 - columns)} score {row["score"]:.2f}')
    if len(large) < len(rows):
        print(f'  and {len(rows) - len(large)} of less than {100 * least:g} % (--min-share)')
    print('  -> ' + ', '.join(str(folder / output) for output in job.outputs.values()))
    sys.stdout.flush()


def _say_failures(jobs: list['Job'], empty: list[str]) -> None:
    for error in empty:
        print(f'error: {error}', file=sys.stderr)
    for job in jobs:
        if job.error:
            before = ' (in an earlier run; --retry-failed tries again)' if job.state == 'failed before' else ''
            print(f'error: {job.error}{before}', file=sys.stderr)


def _summarise(jobs: list['Job'], seconds: float) -> None:
    """Say how many images and videos have a result, and how fast."""
    done, skipped, failed = (
        sum(job.state.startswith(state) for job in jobs) for state in ('done', 'skipped', 'failed')
    )
    what = _inputs(jobs)
    if len(jobs) > 1 or skipped:
        print(
            f'{done} of {len(jobs)} {what} segmented'
            + (f' in {seconds:.1f} s' if done else '')
            + (f', {done / seconds:.1f} images/s' if done and what == 'images' else '')
            + (f'; {skipped} skipped, which an earlier run has finished' if skipped else '')
            + (f'; {failed} failed' if failed else ''),
            file=sys.stderr,
        )


def _inputs(jobs: list['Job']) -> str:
    """The word for what a run is about."""
    return 'inputs' if any(job.input.video for job in jobs) else 'images'


def _expand(items: Iterable[str], quiet: bool = False, whole: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Files, folders (with their sub-folders) and patterns to a list of paths, each once, in the order given.

    The folders in `whole` stay as they are. Results of earlier runs that lie in a folder or match a pattern are not
    images to segment, which is said.

    Returns:
        The paths; and what is wrong with folders and patterns that give none.
    """
    from ..preprocessors.image import image_files
    from ..results import OwnOutputs

    results = OwnOutputs()
    found: dict[str, None] = {}
    empty: list[str] = []
    left_out = 0
    for item in items:
        if not item:
            empty.append("'': an empty text names no image")
            continue
        if os.path.isdir(item) and item not in whole:
            seen = image_files(item)
            nothing = f'{item}: no images in this folder (videos are named, or matched: "*.mp4")'
        elif not os.path.exists(item) and glob.has_magic(item) and '://' not in item:
            seen = sorted(glob.glob(item, recursive=True))
            nothing = f'{item}: nothing matches this pattern'
        else:
            found[item] = None
            continue
        inside = [path for path in seen if path not in results]
        left_out += len(seen) - len(inside)
        if not inside:
            empty.append(f'{item}: holds nothing but results of earlier runs' if seen else nothing)
        found.update(dict.fromkeys(inside))
    say_left_out(left_out, quiet)
    return list(found), empty
