"""Images to the content of their files, in this process or in several; writing them is left to the caller."""

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ..integrations.modelscope.messages import held_back_messages
from ..processes import Died, work_in_processes
from ..results import InputVersion, RemoteImage, ResultWriter, Row
from .loading import load

if TYPE_CHECKING:
    from ..results import SegmentationResult
    from .image_segmentation import SegformerPipeline


@dataclass(frozen=True)
class Making:
    """How files are made, the same for all images; it goes to other processes.

    Attributes:
        model, device, engine, precision: of `load`.
        call: keyword arguments of the pipeline's call.
        language, names: of `ResultWriter`.
        verbose: show ModelScope's own messages.
    """

    model: str
    device: str = 'cpu'
    engine: str = 'auto'
    precision: str = 'float32'
    call: dict[str, Any] = field(default_factory=dict)
    language: str = 'en'
    names: bool = False
    verbose: bool = False


@dataclass(frozen=True)
class Wanted:
    """An image to segment.

    Attributes:
        source: what `load_image` reads.
        name: what its JSON calls it.
        kinds: the files to make of it, of `results.writer.KINDS`.
    """

    source: str | RemoteImage
    name: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """What became of an image.

    Attributes:
        contents: the files by kind.
        rows: its segments.
        error: why there is none of these; else None.
        damaged: the image is at fault: another try would give the same.
        version: of a URL's content.
        unchanged: the URL's content is the known version, and was not fetched.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    error: str | None = None
    damaged: bool = False
    version: InputVersion | None = None
    unchanged: bool = False


def make_files(
    making: Making, segmenter: 'SegformerPipeline', images: Iterable[Wanted], processes: int = 1
) -> Generator[Made, None, None]:
    """Segment images and make their files.

    Args:
        making: how.
        segmenter: what `making` opens; used when this process works alone.
        images: taken as they are needed, some ahead.
        processes: that share the images out, with a share of the threads each. More than one work on one image after
            the other, whatever `batch_size` is.

    Yields:
        What became of each image, in order.

    Raises:
        ProcessError: a process of several cannot work.
    """
    if processes == 1:
        images = list(images)
        writer = _writer(making, segmenter)
        results = segmenter((image.source for image in images), with_image=_draws(*images), **making.call)
        with _without_warnings():
            for image, result in zip(images, results, strict=True):
                yield _made(writer, image, result)
        return
    threads = max(1, torch.get_num_threads() // processes)
    with closing(work_in_processes(partial(_open, making, threads), images, processes)) as outcomes:
        for made in outcomes:
            yield Made(error=str(made)) if isinstance(made, Died) else made


class _Worker:
    """Segments one image after the other."""

    def __init__(self, making: Making, segmenter: 'SegformerPipeline') -> None:
        self._segmenter, self._call = segmenter, {**making.call, 'batch_size': 1}
        self._writer = _writer(making, segmenter)

    def __call__(self, image: Wanted) -> Made:
        (result,) = self._segmenter([image.source], with_image=_draws(image), **self._call)
        return _made(self._writer, image, result)


def _open(making: Making, threads: int, number: int) -> _Worker:
    """What works in a process of several; with GPUs each has one."""
    logging.getLogger('ms_segformer.pipelines').setLevel(logging.ERROR)  # what failed is in what is made
    torch.set_num_threads(threads)
    device = making.device
    if torch.cuda.is_available() and device in ('gpu', 'cuda'):
        device = f'cuda:{number % torch.cuda.device_count()}'
    with held_back_messages(not making.verbose):
        segmenter = load(making.model, device=device, engine=making.engine, precision=making.precision)
        segmenter.prepare_model()
    return _Worker(making, segmenter)


def _writer(making: Making, segmenter: 'SegformerPipeline') -> ResultWriter:
    settings = segmenter.settings
    return ResultWriter('.', settings.classes, settings.palette, making.language, making.names)


def _draws(*images: Wanted) -> bool:
    return any('overlay' in image.kinds for image in images)


def _made(writer: ResultWriter, image: Wanted, result: 'SegmentationResult') -> Made:
    remote = image.source if isinstance(image.source, RemoteImage) else None
    version = remote.version if remote else None
    if remote and remote.unchanged:
        return Made(unchanged=True)
    if 'error' in result:
        return Made(error=result['error'], damaged=result['damaged'], version=version)
    contents, rows = writer.contents(image.kinds, image.name, result)
    return Made(contents, rows, version=version)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the pipeline's warnings: what failed is in what is yielded."""
    pipeline = logging.getLogger('ms_segformer.pipelines')
    level = pipeline.level
    pipeline.setLevel(logging.ERROR)
    try:
        yield
    finally:
        pipeline.setLevel(level)
