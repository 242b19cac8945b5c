"""The part of `ms-segformer predict` that runs on Ray: rows of Parquet in place of files for each image."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ArgumentError, some_of
from ..files import is_text
from ..metainfo import DEMO, DEMO_NOTE
from ..progress import screen
from .ray_cluster import check_ray_arguments, cluster

if TYPE_CHECKING:
    from ..pipelines.ray import Outcome
    from ..results import Run
    from ..results.parquet import ParquetFolder, Plan

# Options that are for files of each image: what they are when they were not given, and why a run with Ray has none.
FILES_ONLY: dict[str, tuple[object, str]] = {
    'save': (['labels', 'overlay', 'json'], 'rows always have the label map and the segments'),
    'formats': ([], 'it reads the files of a run without --ray'),
    'video_from_images': (None, 'videos are segmented without it'),
    'overwrite': (False, 'rows are not replaced; write to another folder (-o)'),
    'names': (False, 'rows have no overlay'),
    'language': ('en', 'rows have no overlay'),
    'min_share': (0.001, 'the terminal shows no classes'),
    'batch_size': (None, 'an actor works on one image at a time'),
}
MOST_SAID = 20  # images without a result that are named on the terminal
PROGRESS = '{l_bar}{bar}| {n_fmt}/{total_fmt} images, {rate_noinv_fmt}, {remaining} left'


def check_ray(args: Namespace) -> None:
    """Refuse what makes no sense with `--ray`.

    Raises:
        ArgumentError: of the options.
        RayError: Ray is not installed.
    """
    check_ray_arguments(args)
    if not args.ray:
        return
    for name, (usual, reason) in FILES_ONLY.items():
        if getattr(args, name) != usual:
            option = {'formats': 'format'}.get(name, name).replace('_', '-')
            raise ArgumentError(f'--{option} does not go with --ray: {reason}')


def predict_with_ray(args: Namespace, locations: list[str], empty: list[str], describe: 'Callable[[], Run]') -> int:
    """Segment images on a cluster, into the Parquet files of a folder.

    Args:
        args: the command line's.
        locations: of the images.
        empty: what is wrong with folders and patterns that gave none.
        describe: opens the model, and says what of it and the options decides the rows.

    Returns:
        The exit code.

    Raises:
        ArgumentError: there are videos among the images, or there are none.
        ManifestError: of the folder.
        RayError: of the cluster, or a file cannot be written.
    """
    from ..preprocessors.video import is_video
    from ..results.parquet import ParquetFolder

    videos = [location for location in locations if is_video(location)]
    if videos:
        raise ArgumentError(f'videos do not go with --ray, segment them without it: {some_of(videos, 3)}')
    if not locations:
        raise ArgumentError('\nerror: '.join(empty))
    if args.model == DEMO and not args.quiet:
        print(f'note: {DEMO_NOTE}', file=sys.stderr)
    keys, problems = _keys(locations)
    if not keys:
        raise ArgumentError('\nerror: '.join([*empty, *problems]))
    empty = [*empty, *problems]
    task = describe()
    output = args.output if '://' in args.output else os.path.abspath(args.output)
    tally = _Tally()
    with ParquetFolder(output, {'model': dict(task.model), 'options': task.options}) as folder:
        plan = folder.plan(keys, args.retry_failed)
        if plan.parts:
            _segment(args, folder, plan, keys, tally)
    for error in [*empty, *tally.errors]:
        print(f'error: {error}', file=sys.stderr)
    if not args.quiet:
        tally.say(plan.images, plan.images - plan.left, args.output)
    return 1 if empty or tally.failed else 0


def _segment(args: Namespace, folder: 'ParquetFolder', plan: 'Plan', keys: dict[str, str], tally: '_Tally') -> None:
    from tqdm import tqdm

    from ..pipelines.ray import segment_parts

    shown = not args.quiet and sys.stderr.isatty()
    with (
        cluster(args) as actors,
        tqdm(
            total=plan.left, unit=' images', bar_format=PROGRESS, disable=not shown, leave=False, **screen()
        ) as progress,
    ):
        for outcome in segment_parts(
            folder,
            plan.parts,
            os.path.abspath(args.model) if os.path.isdir(args.model) else args.model,
            {'device': actors.device, 'engine': args.engine, 'precision': args.precision},
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus,
            concurrency=actors.concurrency,
            locations={key: location for key, location in keys.items() if key != location},
            options={'mode': args.mode, 'resize': not args.full_size, 'max_pixels': args.max_pixels},
        ):
            tally.add(outcome)
            progress.update(len(outcome.part.keys))


def _keys(locations: list[str]) -> tuple[dict[str, str], list[str]]:
    """The images by their `path` in the rows: absolute, or a URL without a password; and what has no such path."""
    from ..results import find_input
    from ..stores import scheme_of

    found: dict[str, str] = {}
    problems: list[str] = []
    for location in locations:
        if not is_text(location):
            problems.append(f'{location}: its name is not UTF-8, as the text of a row has to be; rename the image')
            continue
        if scheme_of(location):
            found[location] = location
            continue
        each = find_input(location)
        found.setdefault(each.key, each.key if each.kind == 'path' and '://' not in location else location)
    return found, problems


class _Tally:
    """What a run has done so far."""

    def __init__(self) -> None:
        self.done = self.failed = 0
        self._errors: list[str] = []
        self._start = time.monotonic()

    def add(self, outcome: 'Outcome') -> None:
        self.done += len(outcome.part.keys) - outcome.failed
        self.failed += outcome.failed
        self._errors += outcome.errors[: MOST_SAID - len(self._errors)]

    @property
    def errors(self) -> list[str]:
        """The first errors, and how many more there are."""
        more = self.failed - len(self._errors)
        return [*self._errors, *([f'and {more} more images, each with its error in the rows'] if more else [])]

    def say(self, images: int, skipped: int, output: str) -> None:
        """Say how many images have a row, and how fast."""
        seconds = time.monotonic() - self._start
        print(
            f'{self.done} of {images} images segmented'
            + (f' in {seconds:.1f} s, {self.done / seconds:.1f} images/s' if self.done else '')
            + (f'; {skipped} skipped, which an earlier run has finished' if skipped else '')
            + (f'; {self.failed} failed' if self.failed else '')
            + f' -> {output}',
            file=sys.stderr,
        )
