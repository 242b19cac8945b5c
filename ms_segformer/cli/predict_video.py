"""The part of `ms-segformer predict` that is about videos: one after the other, each frame by frame."""

import os
import sys
import time
from argparse import Namespace
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from ..errors import ArgumentError, SegformerError, one_line
from ..files import FULL_DISK, atomic_write
from ..progress import screen

if TYPE_CHECKING:
    from ..pipelines.image_segmentation import SegformerPipeline
    from ..results import Input, Job, Manifest, ResultWriter, Row, Run
    from ..results.manifest import Record

PROGRESS = '{desc}: {l_bar}{bar}| {n_fmt}/{total_fmt} frames, {rate_noinv_fmt}, {remaining} left'
WITHOUT_END = '{desc}: {n_fmt} frames, {rate_noinv_fmt}'  # of a video that does not say how long it is

UNKNOWN: 'Record' = {'size': -1, 'sha256': ''}  # of a file that is still to be made


def check_videos(args: Namespace, inputs: 'list[Input]') -> None:
    """Refuse before anything runs what cannot be done of the videos among the inputs.

    Raises:
        ArgumentError: only label maps are asked for.
        VideoError: PyAV is not installed.
    """
    from ..preprocessors.video import require_pyav
    from ..results.writer import VIDEO_KINDS

    if not any(each.video and not each.refusal for each in inputs):
        return
    if not set(args.save) & set(VIDEO_KINDS):
        raise ArgumentError(
            '--save labels is for images; the masks of a video are in its JSON lines: --save json overlay'
        )
    require_pyav()
    if args.formats and not args.quiet:
        print('note: --format is for images; the videos are left out of it', file=sys.stderr)


def segment_video(
    args: Namespace,
    segmenter: 'SegformerPipeline',
    writer: 'ResultWriter',
    manifest: 'Manifest',
    task: 'Run',
    job: 'Job',
) -> 'list[Row] | None':
    """Segment a video and write its files, which appear when the last frame is done.

    Where frames cannot be decoded the others are kept, and the job fails all the same, with its files.

    Returns:
        The segments of all frames together; None where there is no file.

    Raises:
        OSError: the disk is full.
    """
    from ..preprocessors.image import DamagedImageError
    from ..preprocessors.video import DamagedVideoError, open_video
    from ..results import VideoFiles, change, obstacle, out_of_date
    from ..results.manifest import record_of_file

    version = job.input.version
    wanted = out_of_date(job, version, manifest, task)
    announced, incomplete = None, None
    try:
        error = obstacle(job, wanted.values(), manifest, task)
        if error:
            raise ArgumentError(error)
        change(job, manifest, task, dict.fromkeys(wanted.values(), UNKNOWN))  # what was altered is seen before the work
        path = job.input.key if '://' in job.input.location else job.input.location
        fps = args.video_from_images if os.path.isdir(path) else None
        video = open_video(path, fps, args.max_pixels)
        if video.sound and not args.quiet:
            print(f'note: {job.input.name}: its sound is left out of the overlay', file=sys.stderr)
        results = segmenter.stream(
            video,
            batch_size=args.batch_size,
            mode=args.mode,
            resize=not args.full_size,
            with_masks=False,
            max_pixels=args.max_pixels,
            with_image='overlay' in wanted,
        )
        with ExitStack() as temporary:
            places = {
                kind: temporary.enter_context(atomic_write(writer.folder / output)) for kind, output in wanted.items()
            }
            with closing(results), VideoFiles(places, video, writer) as files, _Progress(args, job, video.count) as bar:
                try:
                    for result in results:
                        files.add(result)
                        bar.update()
                except DamagedVideoError as error:
                    incomplete = str(error)
                files.finish()
            new = change(job, manifest, task, {wanted[kind]: record_of_file(path) for kind, path in places.items()})
            announced = job.announcement(task, version, new)
            manifest.append(announced)
    except (SegformerError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise
        ours = isinstance(error, (SegformerError, FileNotFoundError))
        text = str(error) if ours else f'its result cannot be made or written ({one_line(error)})'
        job.fail(text if job.input.name in text else f'{job.input.name}: {text}')
        if announced is not None:
            manifest.append({**announced, 'error': job.error})
        elif not manifest.owned(job.input.key):
            damaged = isinstance(error, DamagedImageError)
            manifest.append(job.entry(task, version if damaged else None, {}, job.error))
        return None
    if incomplete:
        incomplete += '; the result is of these'
    manifest.append(job.entry(task, version, new.outputs, incomplete))
    job.state, job.error, job.outputs = 'failed' if incomplete else 'done', incomplete, wanted
    return files.rows


class _Progress:
    """A bar of frames on a terminal; says how many there were, and how fast, when it is closed without an error."""

    def __init__(self, args: Namespace, job: 'Job', count: int | None) -> None:
        from tqdm import tqdm

        self._name, self._quiet, self._start = job.input.name, args.quiet, time.monotonic()
        self._bar = tqdm(
            desc=job.input.name,
            total=count,
            unit=' frames',
            bar_format=PROGRESS if count else WITHOUT_END,
            disable=args.quiet or not sys.stderr.isatty(),
            leave=False,
            **screen(),
        )
        self.frames = 0

    def update(self) -> None:
        self.frames += 1
        self._bar.update()

    def __enter__(self) -> '_Progress':
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        if kind is None and not self._quiet:
            seconds = time.monotonic() - self._start
            rate = self.frames / seconds
            print(f'{self._name}: {self.frames} frames in {seconds:.1f} s, {rate:.1f} frames/s', file=sys.stderr)
