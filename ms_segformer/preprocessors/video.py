"""Turns a video file, or a folder of images in order, into upright H×W×3 uint8 RGB frames with their times.

PyAV, the extra `[video]`, decodes; it is imported when a video file is opened. OpenCV, which is there anyway, ends a
damaged video as if it were whole and turns a mirrored one upside down; its wheels encode no H.264, and its writer gives
all frames the same length, and no error when the disk is full.
"""

import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from ..errors import one_line
from .image import SUFFIXES as IMAGES
from .image import DamagedImageError, ImageError, TooManyPixelsError, load_image, open_regular

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

MAX_VIDEO_PIXELS = 2**25  # of a frame, 7680×4320 among them: a decoder holds a dozen frames at a time
SUFFIXES = (
    *('.mp4', '.m4v', '.mov', '.3gp', '.mkv', '.webm', '.avi', '.ogv'),
    *('.mpg', '.mpeg', '.ts', '.mts', '.m2ts', '.wmv', '.flv'),
)
# FFmpeg's readers of these. Others open further files and addresses that the content names, as playlists do.
CONTAINERS = 'mov,mp4,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg'
DEFAULT_RATE = Fraction(25)  # frames a second of a file that does not say it
TOLERANCE = 0.5  # seconds that a video may end before the end it claims


class VideoError(ImageError):
    """A video that cannot be read or is not one; the message says which and what is accepted."""


class DamagedVideoError(VideoError, DamagedImageError):
    """The content is at fault. Raised after the last frame that could be decoded, if there are any."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        index: counted from 0.
        time: seconds from the first frame.
        image: H×W×3 uint8 RGB, upright.
    """

    index: int
    time: float
    image: np.ndarray


@dataclass(frozen=True)
class Video:
    """A video that is read once, from its beginning; `open_video` makes it.

    Attributes:
        name: its path.
        height, width: of the upright frames, in pixels; all have this size.
        rate: frames a second, on average; the times of the frames are what counts.
        count: about how many frames there are; None where the file does not say it.
        aspect: width of a pixel over its height.
        sound: there is sound, which is not read.
        frames: the frames in order, one at a time. At the end it raises `DamagedVideoError` if some were missing.
    """

    name: str
    height: int
    width: int
    rate: Fraction
    count: int | None
    aspect: Fraction
    sound: bool
    frames: Generator[Frame, None, None]


def is_video(location: str | os.PathLike) -> bool:
    """Whether the suffix is that of a video file, in either case."""
    return os.fspath(location).lower().endswith(SUFFIXES)


def require_pyav() -> None:
    """Raise `VideoError` where PyAV is not installed."""
    try:
        import av  # noqa: F401  # imported late: optional
    except ImportError as error:
        raise VideoError(f"a video needs PyAV ({one_line(error)}): pip install 'ms-segformer[video]'") from None


def open_video(path: str | os.PathLike, fps: float | None = None, max_pixels: int | None = None) -> Video:
    """Open a video and decode its first frame.

    Of the tracks the one that FFmpeg deems the main one is read. Rotation and mirroring that the file asks for are
    applied; a frame of another size than the first is scaled to that. The sound is dropped. Packets that cannot be
    decoded are passed over: later frames keep their times.

    Args:
        path: a video file; or, with `fps`, a folder whose images are the frames, numbers in their names in counting
            order, its sub-folders left out.
        fps: frames a second of a folder.
        max_pixels: a video with larger frames is refused before they are decoded; default: `MAX_VIDEO_PIXELS`.

    Raises:
        FileNotFoundError: the path does not exist.
        VideoError: PyAV is missing; it is not a video, or not one frame of it can be decoded; or `fps` does not fit.
        TooManyPixelsError: larger frames.
    """
    path, limit = os.fspath(path), max_pixels or MAX_VIDEO_PIXELS
    folder = os.path.isdir(path)
    if folder and fps is None:
        raise VideoError(f'{path}: a folder; say how many frames a second its images are (fps=25)')
    if fps is not None and not folder:
        raise VideoError(f'{path}: fps is for a folder of images; a video file says it itself')
    if fps is not None:
        return _open_folder(path, fps, limit)
    require_pyav()
    file = open_regular(path)
    try:
        return _File(file, path, limit).video()
    except BaseException:
        file.close()
        raise


def sequence_files(folder: str) -> list[str]:
    """Paths of the images in a folder, sub-folders left out, numbers in the names in counting order."""
    names = [name for name in os.listdir(folder) if name.lower().endswith(IMAGES) and not name.startswith('.')]
    return [os.path.join(folder, name) for name in sorted(names, key=_counting)]


def _counting(name: str) -> list[tuple[int, str]]:
    """Puts names in the order that people count in: 2 before 10."""
    parts = re.split(r'(\d+)', name, flags=re.ASCII)
    return [(int(part) if number % 2 else 0, part) for number, part in enumerate(parts)]


def _open_folder(path: str, fps: float, max_pixels: int) -> Video:
    if not 0 < fps <= 1000:
        raise VideoError(f'fps is {fps!r}; accepted: a number above 0, 1000 at most')
    files = sequence_files(path)
    if not files:
        raise VideoError(f'{path}: no images in this folder')
    rate = Fraction(fps).limit_denominator(1001)
    first = load_image(files[0], max_pixels=max_pixels)
    height, width = first.shape[:2]

    def frames() -> Generator[Frame, None, None]:
        for index, file in enumerate(files):
            try:
                image = first if index == 0 else load_image(file, max_pixels=max_pixels)
            except DamagedImageError as error:
                raise DamagedVideoError(f'{path}: ends after {index} of {len(files)} images ({error})') from None
            if image.shape != first.shape:
                raise VideoError(
                    f'{file}: {image.shape[1]}×{image.shape[0]} pixels, and the first image of the folder {width}×'
                    f'{height}; the frames of a video have one size'
                )
            yield Frame(index, float(index / rate), image)

    return Video(path, height, width, rate, len(files), Fraction(1), False, frames())


class _File:
    """A video file while it is read."""

    def __init__(self, file: BinaryIO, name: str, max_pixels: int) -> None:
        import av  # imported late: optional
        from av.video.stream import VideoStream  # imported late: optional

        self._foreign = av.FFmpegError
        self.file, self.name, self.max_pixels = file, name, max_pixels
        try:
            self.container: InputContainer = av.open(
                file, 'r', options={'format_whitelist': CONTAINERS}, metadata_errors='replace'
            )
            stream = self.container.streams.best('video')
        except (self._foreign, EOFError, OSError, ValueError) as error:
            raise DamagedVideoError(
                f'{name}: not a video of a kind that is read, or one whose beginning or end is missing '
                f'({_reason(error)})'
            ) from None
        if not isinstance(stream, VideoStream):
            raise DamagedVideoError(f'{name}: holds no pictures')
        self.stream = stream
        self._check_size(stream.codec_context.width, stream.codec_context.height)
        stream.thread_type = 'AUTO'
        stream.codec_context.options = {'max_pixels': str(max_pixels)}
        self.rate = self.stream.average_rate or DEFAULT_RATE
        self.lost, self.broken = 0, ''  # packets that could not be decoded, and why the last of them
        self.spoiled = 0  # frames that were, with faults
        self.end = Fraction(0)  # of what could be, by the file's clock
        self._turned = False

    def video(self) -> Video:
        frames = self._frames()
        first = next(frames, None)
        if first is None:
            raise DamagedVideoError(f'{self.name}: holds no frame that can be decoded')
        height, width = first.image.shape[:2]
        aspect = self.stream.sample_aspect_ratio or Fraction(1)
        if self._turned:
            aspect = 1 / aspect
        seconds = self._claimed()
        count = self.stream.frames or (round(seconds * self.rate) if seconds else None)
        sound = bool(self.container.streams.audio)
        return Video(self.name, height, width, self.rate, count, aspect, sound, _with(first, frames))

    def _frames(self) -> Generator[Frame, None, None]:
        """The frames; all errors of FFmpeg are those of this module."""
        with self.file, self.container:
            count, width, height = 0, 0, 0
            start = time = Fraction(0)
            matrix: tuple[int, int, int, int] | None = None
            for frame in self._decoded():
                moment = _moment(frame)
                if count == 0:
                    self._check_size(frame.width, frame.height)
                    width, height, matrix = frame.width, frame.height, _matrix(frame)
                    start = moment or Fraction(0)
                    self._turned = matrix is not None and matrix[0] == 0
                else:
                    time = time + 1 / self.rate if moment is None else moment - start
                self.spoiled += frame.is_corrupt
                image = frame.to_ndarray(format='rgb24', width=width, height=height)
                yield Frame(count, float(time), _upright(image, matrix))
                count += 1
            self._complain(count, float(max(start + time + 1 / self.rate, self.end)))

    def _decoded(self) -> Iterator['av.VideoFrame']:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except (StopIteration, EOFError):
                return
            except MemoryError:
                raise ImageError(f'{self.name}: there is not enough memory to decode it') from None
            except self._foreign as error:  # where it is the reading of packets that failed, there is no next one
                self.lost, self.broken = self.lost + 1, _reason(error)
                continue
            except OSError as error:  # of the disk, not of the content
                raise VideoError(f'{self.name}: cannot be read ({_reason(error)})') from None
            if packet.pts is not None and packet.duration and packet.time_base is not None:
                self.end = max(self.end, (packet.pts + packet.duration) * Fraction(packet.time_base))
            yield from cast('list[av.VideoFrame]', frames)

    def _complain(self, count: int, end: float) -> None:
        """Raise `DamagedVideoError` if something was missing of what lasts until then, in seconds of the file's clock.

        The end that a file claims is by the same clock (Matroska), or counted from the first frame, which is not later.
        """
        if count == 0:
            reason = f' ({self.broken})' if self.broken else ''
            raise DamagedVideoError(f'{self.name}: holds no frame that can be decoded{reason}')
        claimed = float(self._claimed() or 0)
        if end < claimed - max(TOLERANCE, float(2 / self.rate)):
            raise DamagedVideoError(
                f'{self.name}: truncated or damaged: {end:.1f} s of {claimed:.1f} s, {count} frames, could be decoded'
            )
        if self.lost or self.spoiled:
            lost = f'{self.lost} packets could not be decoded ({self.broken})' if self.lost else ''
            spoiled = f'{self.spoiled} frames have faults' if self.spoiled else ''
            raise DamagedVideoError(
                f'{self.name}: damaged: {" and ".join(filter(None, (lost, spoiled)))}; {count} frames could be decoded'
            )

    def _claimed(self) -> Fraction | None:
        """Seconds that the file says the video has."""
        stream = self.stream
        if stream.duration is not None and stream.time_base is not None:
            return stream.duration * stream.time_base
        said = re.fullmatch(r'(\d+):(\d+):(\d+(?:\.\d+)?)', stream.metadata.get('DURATION', ''))  # Matroska's
        if said:
            return int(said[1]) * 3600 + int(said[2]) * 60 + Fraction(said[3])
        if len(self.container.streams) == 1 and self.container.duration is not None:
            return Fraction(self.container.duration, 1_000_000)
        return None

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise TooManyPixelsError(
                f'{self.name}: frames of {width}×{height} pixels, more than the {self.max_pixels:,} allowed; '
                'max_pixels=… (--max-pixels) allows more'
            )


def _with(first: Frame, rest: Generator[Frame, None, None]) -> Generator[Frame, None, None]:
    """The frames with the first one before them."""
    try:
        yield first
        yield from rest
    finally:
        rest.close()


def _reason(error: Exception) -> str:
    return one_line(getattr(error, 'strerror', None) or error)


def _moment(frame: 'av.VideoFrame') -> Fraction | None:
    """When a frame is to be shown, in seconds of the file's clock."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * Fraction(frame.time_base)


def _matrix(frame: 'av.VideoFrame') -> tuple[int, int, int, int] | None:
    """(a, b, c, d) of the transformation to show a frame by: right a·x + c·y, down b·x + d·y; None without one."""
    data: Any = frame.side_data.get('DISPLAYMATRIX')
    if data is not None:
        a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
        if (a == 0) == (d == 0) == (b != 0) == (c != 0):  # by quarters of a turn
            return a, b, c, d
    return None


def _upright(image: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """A frame as it is to be seen."""
    if matrix is None:
        return image
    a, b, c, d = matrix
    if a == 0:
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
