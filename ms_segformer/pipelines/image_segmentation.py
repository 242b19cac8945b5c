"""The `image-segmentation` pipeline: photographs in, masks with labels and scores out."""

import difflib
import inspect
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Optional, TypeAlias, TypedDict, TypeVar, overload

import numpy as np
import torch
from modelscope.models import Model
from modelscope.pipelines.base import Pipeline
from modelscope.pipelines.builder import PIPELINES

from ..config.limits import as_integer, check_windows
from ..config.reader import read_configuration
from ..download import Interruption, without_userinfo
from ..engines import Engine, create_engine
from ..errors import ArgumentError, SegformerError, one_line
from ..metainfo import PIPELINE, TASK
from ..postprocess.segmentation import Segmentation, masks, segment
from ..postprocess.sliding_window import slide_segment
from ..preprocessors.image import MAX_PIXELS, DamagedImageError, ImageSource, check_reading, load_image
from ..preprocessors.segformer import PreparedImage, SegformerPreprocessor
from ..preprocessors.shapes import ImageShapes
from ..preprocessors.video import Frame, Video, open_video
from ..results.output import SegmentationOutput
from ..results.palettes import palette_for
from ..results.result import SegmentationResult
from .read_ahead import read_ahead

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..models.segformer import Segformer

logger = logging.getLogger(__name__)

# What ModelScope's constructors take besides what their signatures say.
MODELSCOPE_ARGUMENTS = (
    'type',
    'framework',
    'task',
    'compile',
    'compile_options',
    'ignore_file_pattern',
    'third_party',
    'use_hf',
    'llm_framework',
    'external_engine_for_llm',
    'trust_remote_code',
    'torch_dtype',
    'config',
)

Read = TypeVar('Read')
Several: TypeAlias = list[Any] | tuple[Any, ...]
Sides: TypeAlias = int | Sequence[int] | np.ndarray  # of both sides, or (height, width)
Item: TypeAlias = 'tuple[int, ImageSource, Future[PreparedImage]]'  # of a list: position, what was given, reading


class StreamOptions(TypedDict, total=False):
    """The keyword arguments of `SegformerPipeline.__call__` that `stream` takes as well."""

    batch_size: int | None
    mode: str | None
    crop_size: Sides | None
    stride: Sides | None
    resize: bool
    with_masks: bool
    max_pixels: int | None
    with_image: bool
    confidence: bool


class CallOptions(StreamOptions, total=False):
    """The keyword arguments of `SegformerPipeline.__call__`."""

    channel_order: str


@dataclass(frozen=True)
class Options:
    """`CallOptions`, checked, with defaults filled in: what `SegformerPipeline.options` returns.

    Attributes:
        windows: their size and stride, (height, width) in pixels; None for one piece.
        between_windows: called before each window; what it raises ends the image.
    """

    windows: tuple[tuple[int, int], tuple[int, int]] | None
    resize: bool
    with_masks: bool
    channel_order: str
    max_pixels: int
    with_image: bool
    confidence: bool
    between_windows: Callable[[], None] | None = None


@PIPELINES.register_module(group_key=TASK, module_name=PIPELINE, force=True)
class SegformerPipeline(Pipeline):
    """Segments images with a SegFormer.

    Args:
        model: model directory, or a `Segformer`.
        preprocessor: replaces the one the configuration describes.
        device: `'cpu'`, `'gpu'`, `'cuda:0'`, … as everywhere in ModelScope: without CUDA the CPU is used, and a warning
            is logged where a device other than the default `'gpu'` was asked for.
        engine: what runs the network: `'torch'`, `'openvino'`, `'onnxruntime'`, …, or `'auto'`, the fastest of those
            installed whose float32 label maps are the same; see `engines.create_engine`.
        precision: `'float32'`, `'bf16'`, or `'int8'`, for which `ms-segformer quantize` makes a network.

    Raises:
        TypeError: an argument that neither this class nor ModelScope has.

    Calling it:

    >>> result = segmenter('street.jpg')                                           # doctest: +SKIP
    >>> result['labels'], result['scores'], result['masks'][0].shape               # doctest: +SKIP
    (['tree', 'road', 'car'], [0.91, 0.98, 0.88], (480, 640))
    """

    preprocessor: SegformerPreprocessor

    def __init__(
        self,
        model: 'str | os.PathLike | Segformer | Several',
        preprocessor: SegformerPreprocessor | None = None,
        device: str = 'gpu',
        engine: str = 'auto',
        precision: str = 'float32',
        **kwargs: Any,
    ) -> None:
        model = _only(model)
        self.settings = read_configuration(model if isinstance(model, (str, os.PathLike)) else model.model_dir)
        _refuse_unknown(
            kwargs,
            'the pipeline',
            'preprocessor',
            'device',
            'engine',
            'precision',
            *MODELSCOPE_ARGUMENTS,
            *_parameters(Pipeline.__init__),
            *_parameters(Model.from_pretrained),
            *self.settings.pipeline_section,
            *self.settings.model_section,
        )
        super().__init__(
            model=model,
            preprocessor=preprocessor or SegformerPreprocessor(settings=self.settings.preprocess),
            device=device,
            **kwargs,
        )
        # On a CPU a batch takes as long per image, and one by one no result can depend on its company.
        self._share_runs = self.device.type != 'cpu'
        if self.device.type == 'cpu' and device != 'gpu' and not device.lower().startswith('cpu'):
            logger.warning(
                "device %r was asked for, but torch %s sees no CUDA device; the CPU is used (device='cpu' "
                'says so without this warning)',
                device,
                torch.__version__,
            )
        self._engine_request = engine, precision
        self._engine: Engine | None = None
        self._engine_lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and deep copies: without what belongs to a process; the first call there makes the engine anew."""
        own = ('_engine', '_engine_lock', '_model_prepare', '_model_prepare_lock')
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._engine, self._model_prepare = None, False
        self._engine_lock, self._model_prepare_lock = threading.Lock(), threading.Lock()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by id."""
        return self.settings.classes

    @property
    def id2label(self) -> dict[int, str]:
        """Class id to name."""
        return dict(enumerate(self.settings.classes))

    @property
    def palette(self) -> np.ndarray:
        """256×3 uint8 RGB colors by class id, as `predict` draws them; ids without a class are black."""
        return palette_for(self.settings.classes, self.settings.palette)

    @property
    def variant(self) -> str | None:
        """`b0` … `b5` by the sizes of the backbone; None where it is none of these."""
        return self.settings.model.variant

    @overload  # the first of these that fits is meant
    def __call__(  # type: ignore[overload-overlap]  # a text is iterable
        self, input: ImageSource, **options: 'Unpack[CallOptions]'
    ) -> SegmentationResult: ...
    @overload
    def __call__(self, input: Several, **options: 'Unpack[CallOptions]') -> list[SegmentationResult]: ...
    @overload
    def __call__(
        self, input: Iterable[ImageSource], **options: 'Unpack[CallOptions]'
    ) -> Iterator[SegmentationResult]: ...

    # ModelScope's `get_pipeline_information_by_pipeline` parses the parameters here, of `forward` and of `postprocess`;
    # it fails on keyword-only ones, on defaults that are no literals, and on annotations such as `int | None`.
    def __call__(
        self,
        input: Any,
        batch_size: Optional[int] = None,  # noqa: UP045
        channel_order: str = 'RGB',
        mode: Optional[str] = None,  # noqa: UP045
        crop_size: Optional[Sides] = None,  # noqa: UP045
        stride: Optional[Sides] = None,  # noqa: UP045
        resize: bool = True,
        with_masks: bool = True,
        max_pixels: Optional[int] = None,  # noqa: UP045
        with_image: bool = False,
        confidence: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Segment one image or many.

        Args:
            input: an image in any form `preprocessors.image.load_image` takes; or a list or tuple of them; or an
                iterator, generator, `MsDataset` or `datasets.Dataset` of them.
            batch_size: how many images are worked on together. The results do not depend on it.
            channel_order: `'BGR'` for arrays from `cv2.imread`.
            mode: `'whole'` or `'slide'`: the image in one piece, or in overlapping windows whose logits are averaged;
                default: the configuration's `test_cfg`.
            crop_size, stride: (height, width) in pixels of the windows and of their steps; default: the
                configuration's, else windows of its short side and steps of two thirds of that.
            resize: False segments the image at its own size: in one piece up to `config.limits.WHOLE_PIXELS`, and with
                `mode='slide'`, which bounds the memory, images of any size; see
                `ms_segformer.postprocess.sliding_window`.
            with_masks: False leaves `masks` empty (a mask takes a byte per pixel); `seg_map` holds the same.
            max_pixels: larger files are refused before they are decoded; default: `preprocessors.image.MAX_PIXELS`.
            with_image: True adds `image`, the picture that was segmented: H×W×3 uint8 RGB, upright. A URL is fetched
                once; of a list, the pictures of up to two batches are held besides those of the batch in work.
            confidence: True adds `confidence`, the softmax probability of each pixel's class, and `margin`, its lead
                over the second best class: H×W float16, 0–1, rounded by at most 2.5e-4.

        Returns:
            For one image a `SegmentationResult`, a dict with one entry per class present, classes in falling id:
            `masks` (H×W uint8, 0 or 1, at the size of the upright image), `labels` (str), `scores` (mean softmax
            probability over the mask, 0–1); and `seg_map`, H×W uint8 class ids. Class ids without a name (VOID) are in
            `seg_map` only. Its methods draw it, save it and make tables of it.
            For a list or tuple a list of such dicts, for anything else iterable a generator of them. An image in them
            that cannot be read does not take the others with it: its dict is empty but for `error` (the reason),
            `index` (its position) and `damaged` (True: the content is at fault, and another try would give the same),
            and a warning is logged.

        Raises:
            FileNotFoundError, ImageError: a single image cannot be read.
            postprocess.LogitsError: the model's logits hold NaN or infinity.
            ArgumentError: an argument is not accepted.
            TypeError: there is no such argument.
        """
        _refuse_unknown(kwargs, 'a call of the pipeline', *_parameters(SegformerPipeline.__call__))
        images_at_once = _images_at_once(batch_size)
        options = self.options(
            channel_order=channel_order,
            mode=mode,
            crop_size=crop_size,
            stride=stride,
            resize=resize,
            with_masks=with_masks,
            max_pixels=max_pixels,
            with_image=with_image,
            confidence=confidence,
        )
        if not _is_many(input):
            return self.segment([self.prepare(input, options)], options)[0]
        results = self._stream(input, images_at_once, options)
        return list(results) if isinstance(input, (list, tuple)) else results

    def stream(
        self, video: 'str | os.PathLike | Video', *, fps: float | None = None, **options: 'Unpack[StreamOptions]'
    ) -> Generator[SegmentationResult, None, None]:
        """Segment a video frame by frame; decoding runs ahead in another thread, by two batches of frames at most.

        Args:
            video: path of a video file (PyAV, the extra `[video]`, reads it); of a folder of images, with `fps`; or
                what `preprocessors.video.open_video` returned, which says more about it, and how it is read.
            fps: frames a second of a folder.
            options: of `__call__`, `channel_order` left out. `max_pixels` is that of a frame, and its default
                `preprocessors.video.MAX_VIDEO_PIXELS`.

        Returns:
            A generator of results in order, each with `index`, counted from 0, and `time`, in seconds from the first
            frame. Closing it ends the thread and closes the file.

        Raises:
            FileNotFoundError, ImageError: the video cannot be read. These and errors of arguments come at once; a
                `DamagedVideoError` comes after the last frame if some could not be decoded.
            ArgumentError, TypeError: an argument is not accepted.
            postprocess.LogitsError: the model's logits hold NaN or infinity.
        """
        _refuse_unknown(options, 'stream', 'fps', *StreamOptions.__annotations__)
        frames_at_once = _images_at_once(options.pop('batch_size', None))
        max_pixels = options.get('max_pixels')
        checked = self.options(**options)  # type: ignore[misc]  # without batch_size
        opened = video if isinstance(video, Video) else open_video(video, fps, max_pixels)
        return self._of_frames(opened, frames_at_once, checked)

    def _of_frames(self, video: Video, batch_size: int, options: Options) -> Generator[SegmentationResult, None, None]:
        self.prepare_model()

        def prepared() -> Iterator[tuple[Frame, PreparedImage]]:
            with closing(video.frames):
                for frame in video.frames:
                    yield frame, self.prepare(frame.image, options)

        with closing(read_ahead(prepared(), 2 * batch_size)) as ahead:
            for batch in _batches(ahead, batch_size):
                results = self.segment([inputs for _, inputs in batch], options)
                for (frame, _), result in zip(batch, results, strict=True):
                    result['index'], result['time'] = frame.index, frame.time
                    yield result

    def options(
        self,
        *,
        channel_order: str = 'RGB',
        mode: str | None = None,
        crop_size: Sides | None = None,
        stride: Sides | None = None,
        resize: bool = True,
        with_masks: bool = True,
        max_pixels: int | None = None,
        with_image: bool = False,
        confidence: bool = False,
        between_windows: Callable[[], None] | None = None,
    ) -> Options:
        """Check the options of a call, for `prepare` and `segment`: its two halves, which may run in two threads.

        Args:
            channel_order, mode, crop_size, stride, resize, with_masks, max_pixels, with_image, confidence: of
                `__call__`.
            between_windows: see `Options`.

        Raises:
            ArgumentError, ImageError: one is not accepted.
        """
        max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
        check_reading(channel_order, max_pixels)
        return Options(
            self._windows(mode, crop_size, stride),
            resize,
            with_masks,
            channel_order,
            max_pixels,
            with_image,
            confidence,
            between_windows,
        )

    def prepare_model(self) -> Engine:
        """Move the model to its device and make the engine; done once, by the first call."""
        with self._engine_lock:
            if self._engine is None:
                super().prepare_model()
                name, precision = self._engine_request
                self._engine = create_engine(self.model, name, precision, self.device)
        return self._engine

    def _windows(
        self, mode: str | None, crop_size: Sides | None, stride: Sides | None
    ) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """`Options.windows`, checked, with the configuration's in place of None."""
        test = self.settings.model.test
        mode = mode or test.mode
        if mode not in ('whole', 'slide'):
            raise ArgumentError(f"mode is {mode!r}; accepted: 'whole' or 'slide'")
        if mode == 'whole':
            return None
        if crop_size is None:
            crop_size = test.crop_size or min(self.settings.preprocess.scale)
        window = _pair('crop_size', crop_size)
        if stride is None:
            stride = test.stride or [max(1, size * 2 // 3) for size in window]
        step = _pair('stride', stride)
        check_windows(window, step)
        return window, step

    def _stream(self, images: Iterable[ImageSource], batch_size: int, options: Options) -> Iterator[SegmentationResult]:
        """Yield results in order; images are read ahead in another thread, at most two batches of them."""
        numbered = enumerate(images)
        interruption = Interruption()
        reader = ThreadPoolExecutor(1, 'ms-segformer-read', initializer=interruption.bind)
        ahead: deque[Item] = deque()
        try:
            while True:
                for index, image in islice(numbered, 2 * batch_size - len(ahead)):
                    ahead.append((index, image, reader.submit(self.prepare, image, options)))
                if not ahead:
                    return
                yield from self._finish([ahead.popleft() for _ in range(min(batch_size, len(ahead)))], options)
        finally:  # a caller that has had enough, or Ctrl-C, does not wait for slow servers
            reader.shutdown(wait=False, cancel_futures=True)
            interruption.interrupt()

    def _finish(self, items: list[Item], options: Options) -> list[SegmentationResult]:
        """Results of some items in order, an error entry where reading or the network failed."""
        self.prepare_model()  # what fails here fails for all
        results: dict[int, SegmentationResult] = {}
        prepared: dict[int, PreparedImage] = {}
        for index, image, future in items:
            try:
                prepared[index] = future.result()
            except Exception as error:  # whatever a list holds, the rest of it has a result
                results[index] = self._left_out(index, image, error)
        with suppress(RuntimeError, MemoryError):  # such as a lack of memory, which may be for one of them
            results.update(zip(prepared, self.segment(list(prepared.values()), options), strict=True))
        # Out here the error is gone, which held what the batch had in memory.
        for index, image, _ in items:
            if index in prepared and index not in results:
                results[index] = self._alone(index, image, prepared[index], options)
        return [results[index] for index, *_ in items]

    def _alone(self, index: int, image: ImageSource, prepared: PreparedImage, options: Options) -> SegmentationResult:
        try:
            return self.segment([prepared], options)[0]
        except (RuntimeError, MemoryError) as error:
            return self._left_out(index, image, error)

    def prepare(self, image: ImageSource, options: Options) -> PreparedImage:
        """Read an image and make the network's input of it; any number of threads may do so at a time.

        Raises:
            FileNotFoundError, ImageError: it cannot be read.
        """
        read = self.preprocessor.load if options.windows else self.preprocessor.__call__
        if not options.with_image:
            return read(
                image, channel_order=options.channel_order, resize=options.resize, max_pixels=options.max_pixels
            )
        picture = load_image(image, options.channel_order, options.max_pixels)
        prepared = read(picture, resize=options.resize)
        prepared['picture'] = picture
        prepared['filename'] = str(image) if isinstance(image, (str, os.PathLike)) else None
        return prepared

    def segment(self, prepared: list[PreparedImage], options: Options) -> list[SegmentationResult]:
        """Results of what `prepare` returned, in order; one thread at a time.

        Raises:
            postprocess.LogitsError: the model's logits hold NaN or infinity.
        """
        results = self._results(prepared, options)
        for inputs, result in zip(prepared, results, strict=True):
            if options.with_image:
                result['image'] = inputs['picture']
        return results

    def _results(self, prepared: list[PreparedImage], options: Options) -> list[SegmentationResult]:
        """Results of preprocessed images; those of equal shape share a run of the network where that is faster."""
        engine = self._engine or self.prepare_model()
        if options.windows:
            return [
                self._result(self._slide(engine, inputs, *options.windows, options), inputs, options.with_masks)
                for inputs in prepared
            ]
        results: dict[int, SegmentationResult] = {}
        for group in _groups(prepared, self._share_runs):
            logits = engine(torch.cat([prepared[i]['img'] for i in group]))
            for i, one in zip(group, logits, strict=True):
                results[i] = self.postprocess(
                    {**prepared[i], 'logits': one}, with_masks=options.with_masks, confidence=options.confidence
                )
        return [results[i] for i in range(len(prepared))]

    def _slide(
        self,
        engine: Engine,
        inputs: PreparedImage,
        crop_size: tuple[int, int],
        stride: tuple[int, int],
        options: Options,
    ) -> Segmentation:
        def read(top: int, bottom: int, left: int, right: int) -> torch.Tensor:
            if options.between_windows:
                options.between_windows()
            return self.preprocessor.window(inputs['image'], top, bottom, left, right)

        return slide_segment(
            engine,
            read,
            ImageShapes.of(inputs),
            crop_size,
            stride,
            len(self.settings.classes),
            self.settings.model.head.align_corners,
            self.model.model_dir,
            options.confidence,
        )

    def forward(self, inputs: PreparedImage, **_: Any) -> PreparedImage:
        """Preprocessed image(s) to `{'logits': N×C×h×w}`, with the inputs' other entries; part of ModelScope's API."""
        engine = self._engine or self.prepare_model()
        return {**inputs, 'logits': engine(inputs['img'])}

    def postprocess(
        self, inputs: PreparedImage, with_masks: bool = True, confidence: bool = False, **_: Any
    ) -> SegmentationResult:
        """`logits` (C×h×w or 1×C×h×w) with the shapes that the preprocessor noted, to the pipeline's result."""
        logits = inputs['logits']
        logits = logits[0] if logits.ndim == 4 else logits
        return self._result(
            segment(
                logits,
                ImageShapes.of(inputs),
                len(self.settings.classes),
                self.settings.model.head.align_corners,
                self.model.model_dir,
                confidence,
            ),
            inputs,
            with_masks,
        )

    def _result(self, found: Segmentation, inputs: PreparedImage, with_masks: bool) -> SegmentationResult:
        content = SegmentationOutput(
            masks=masks(found) if with_masks else [],
            labels=[self.settings.classes[i] for i in found.class_ids],
            scores=list(found.scores),
            seg_map=found.seg_map,
        )
        if found.confidence is not None:
            content['confidence'], content['margin'] = found.confidence.probability, found.confidence.margin
        return self._with_facts(content, inputs.get('filename'))

    def _with_facts(self, content: SegmentationOutput, name: str | None) -> SegmentationResult:
        """A result that knows the model's classes and colors, and the path of its image."""
        return SegmentationResult(content, self.settings.classes, self._colors, _local_path(name))

    @cached_property
    def _colors(self) -> np.ndarray:
        """`palette`, which all results share."""
        colors = self.palette
        colors.flags.writeable = False
        return colors

    def _left_out(self, index: int, image: ImageSource, error: Exception) -> SegmentationResult:
        """The entry of an image without a result, which is logged."""
        ours = isinstance(error, (SegformerError, OSError))
        reason = str(error) if ours else f'{type(error).__name__}: {one_line(error)}'
        name, path = type(image).__name__, None
        if isinstance(image, (str, os.PathLike)):
            with suppress(Exception):  # of an object's own `__fspath__`
                name = without_userinfo(os.fspath(image))
                path = os.fspath(image)
        logger.warning('image %d (%s) was left out: %s', index, name, reason)
        content = SegmentationOutput(
            masks=[], labels=[], scores=[], error=reason, index=index, damaged=isinstance(error, DamagedImageError)
        )
        return self._with_facts(content, path)


def _images_at_once(batch_size: object) -> int:
    number = 1 if batch_size is None else as_integer(batch_size) or 0
    if number < 1:
        raise ArgumentError(f'batch_size is {batch_size!r}; accepted: a positive integer or None')
    return number


def _batches(items: Iterable[Read], size: int) -> Iterator[list[Read]]:
    """Lists of that many items; where the items end with an error, those before it come first."""
    batch: list[Read] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _only(model: 'str | os.PathLike | Segformer | Several') -> 'str | os.PathLike | Segformer':
    """A model, or the one of a list."""
    if not isinstance(model, (list, tuple)):
        return model
    if len(model) != 1:
        raise ArgumentError(f'{len(model)} models were given; expected one')
    return model[0]


def _local_path(name: str | None) -> str | None:
    """The absolute path of a local file; None for a URL, whose text may be the content."""
    if name is None or '://' in name or name.startswith('data:'):
        return None
    try:
        return os.path.abspath(name)
    except OSError:  # there is no current directory any more
        return None


def _parameters(function: Callable) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ('self', 'input', 'kwargs')]


def _refuse_unknown(arguments: Iterable[str], what: str, *known: str) -> None:
    """Raise `TypeError` for the first keyword argument that is none of those known."""
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise TypeError(f'{what} takes no argument {name!r}' + (f'; did you mean {near[0]!r}?' if near else ''))


def _pair(name: str, value: Sides) -> tuple[int, int]:
    """One number for both sides, or (height, width)."""
    given = value.tolist() if isinstance(value, np.ndarray) else value
    sides = given if isinstance(given, (tuple, list)) else (given, given)
    pair = [as_integer(side) or 0 for side in sides]
    if len(pair) != 2 or min(pair) < 1:
        raise ArgumentError(f'{name} is {one_line(repr(value))}; accepted: (height, width) in pixels')
    return pair[0], pair[1]


def _is_many(input: Any) -> bool:
    """Lists, tuples, generators and data sets are many images; what `load_image` takes is one."""
    if isinstance(input, (str, bytes, bytearray, memoryview, os.PathLike, dict, np.ndarray, torch.Tensor)):
        return False
    if hasattr(input, 'read') or type(input).__module__.startswith('PIL.'):
        return False
    return isinstance(input, Iterable) or (hasattr(input, '__getitem__') and hasattr(input, '__len__'))


def _groups(prepared: list[PreparedImage], together: bool) -> list[list[int]]:
    """Lists of indices to run in one go."""
    if not together:
        return [[i] for i in range(len(prepared))]
    by_shape: dict[tuple[int, int], list[int]] = {}
    for i, inputs in enumerate(prepared):
        by_shape.setdefault(inputs['pad_shape'], []).append(i)
    return list(by_shape.values())
