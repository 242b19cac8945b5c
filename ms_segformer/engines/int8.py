"""The int8 network that `ms-segformer quantize` adds to a model directory: where it lies, whether it fits the weights.

It lies in a folder of its own, where checkpoint discovery does not look, beside a record of how it was made:

    model/
      configuration.json, pytorch_model.pt, …
      openvino_int8/   network.xml, network.bin, record.json
      onnx_int8/       network.onnx, record.json
"""

from __future__ import annotations

import hashlib
import math
import os
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ..files import read_json
from ..models.fingerprint import network_fingerprint
from .base import EngineError

if TYPE_CHECKING:
    from ..models.segformer import Segformer

FOLDERS = {'openvino': 'openvino_int8', 'onnxruntime': 'onnx_int8'}  # by engine
FILES = {'openvino': ('network.xml', 'network.bin'), 'onnxruntime': ('network.onnx',)}
FORMATS = {'openvino': 'openvino', 'onnx': 'onnxruntime'}  # `quantize --format` to engine
RECORD = 'record.json'
FORMAT = 'ms-segformer int8 network, 1'


class MIoU(TypedDict):
    """mIoU in percent on the held-back photographs that have a label map."""

    float32: float
    int8: float
    images: int


@dataclass(frozen=True)
class Int8Record:
    """How an int8 network was made, and how it does.

    Attributes:
        network: `models.fingerprint.network_fingerprint` of the weights it was made from.
        files: name to SHA-256 of the files beside the record.
        calibration: file names of the photographs that the ranges of the activations were taken from.
        held_back: those of the photographs it was compared with float32 on.
        agreement: share of the held-back pixels whose class is that of float32, 0–1; None: not compared yet.
        error: root mean square difference of the logits of held-back photographs, relative to the standard deviation of
            those of float32.
        pixels: number of those pixels.
        miou: None where no label maps were given.
        versions: of the packages that made it.
        date: ISO 8601 day.
    """

    network: str
    files: dict[str, str]
    calibration: list[str]
    held_back: list[str]
    agreement: float | None = None
    error: float | None = None
    pixels: int = 0
    miou: MIoU | None = None
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ''
    format: str = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """Tells this network from another one of the same weights: 16 hexadecimal digits."""
        return hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()[:16]

    def summary(self) -> str:
        """A sentence for people."""
        count = len(self.calibration)
        text = f'calibrated with {count:,} photograph{"" if count == 1 else "s"}'
        if self.agreement is not None:
            text += f'; {self.agreement:.2%} of the pixels of {len(self.held_back):,} others as in float32'
        if self.miou is not None:
            text += f'; mIoU {self.miou["float32"]:.2f} % in float32, {self.miou["int8"]:.2f} % in int8'
        return text


@dataclass(frozen=True)
class Int8Network:
    """A checked int8 network in memory: the content of its files in the order of `FILES`, and its record."""

    content: tuple[bytes, ...]
    record: Int8Record


def command(model_dir: str | os.PathLike, engine: str) -> str:
    """What puts an int8 network into a model directory, in the place of one that is there."""
    folder = shlex.quote(os.fspath(model_dir))
    form = next(name for name, runs_in in FORMATS.items() if runs_in == engine)
    options = '' if form == 'openvino' else f' --format {form}'
    options += ' --overwrite' if Path(model_dir, FOLDERS[engine]).exists() else ''
    return f'ms-segformer quantize {folder} --images FOLDER -o {folder}{options}'


def engines_with_int8(model_dir: str | os.PathLike) -> list[str]:
    """Names of the engines that a model directory has an int8 network for, whether it fits or not."""
    return [engine for engine, folder in FOLDERS.items() if Path(model_dir, folder, RECORD).is_file()]


def read_record(model_dir: str | os.PathLike, engine: str) -> Int8Record:
    """The record of the int8 network for an engine.

    Raises:
        EngineError: there is none, or it is damaged; the message names the command that makes one.
    """
    path = Path(model_dir, FOLDERS[engine], RECORD)
    how = command(model_dir, engine)
    try:
        content = read_json(path)
    except FileNotFoundError:
        others = [other for other in engines_with_int8(model_dir) if other != engine]
        there = f' (there is one for engine {" and ".join(map(repr, others))})' if others else ''
        raise EngineError(f'{model_dir} has no int8 network for engine {engine!r}{there}; make one: {how}') from None
    except (OSError, ValueError) as error:
        raise EngineError(f'{path} cannot be read ({error}); make the network anew: {how}') from None
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise EngineError(
            f'{path} is not the record of an int8 network that this version of ms-segformer knows ({FORMAT!r}); '
            f'make the network anew: {how}'
        )
    try:
        record = Int8Record(**content)
        _check(record, FILES[engine])
    except (TypeError, AttributeError) as error:
        raise EngineError(f'{path} is damaged ({error}); make the network anew: {how}') from None
    return record


def _check(record: Int8Record, files: tuple[str, ...]) -> None:
    """Raise TypeError where a record is not of the form that it is written in."""
    numbers: list[object] = [number for number in (record.agreement, record.error) if number is not None]
    numbers += [record.pixels, *(record.miou.values() if isinstance(record.miou, dict) else [])]
    right = (
        isinstance(record.network, str)
        and isinstance(record.files, dict)
        and set(record.files) == set(files)
        and all(isinstance(each, list) for each in (record.calibration, record.held_back))
        and all(map(_is_number, numbers))
        and (record.miou is None or (isinstance(record.miou, dict) and set(record.miou) == set(MIoU.__annotations__)))
    )
    if not right:
        raise TypeError('a value of it is of another kind')


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_int8(model: Segformer, engine: str) -> Int8Network:
    """The int8 network for a model's weights.

    Args:
        model: opened from the directory that has the network.
        engine: `'openvino'` or `'onnxruntime'`.

    Raises:
        EngineError: there is none, it is damaged, or it was made from other weights; the message names the command.
    """
    model_dir = model.model_dir
    if model_dir is None:
        raise EngineError(
            'precision int8 needs a model that was opened from a directory, and this one was not; save it, then '
            + command('DIRECTORY', engine)
        )
    record = read_record(model_dir, engine)
    folder = Path(model_dir, FOLDERS[engine])
    if record.network != network_fingerprint(model):
        raise EngineError(
            f'{folder} was made from other weights than the model has now, or from another network; make it anew: '
            f'{command(model_dir, engine)}'
        )
    content = []
    for name in FILES[engine]:
        try:
            data = Path(folder, name).read_bytes()
        except OSError as error:
            raise EngineError(f'{folder} is incomplete ({error}); make it anew: {command(model_dir, engine)}') from None
        if hashlib.sha256(data).hexdigest() != record.files[name]:
            raise EngineError(
                f'{folder / name} is damaged: its SHA-256 is not the one in {RECORD}; make the network anew: '
                f'{command(model_dir, engine)}'
            )
        content.append(data)
    return Int8Network(tuple(content), record)
