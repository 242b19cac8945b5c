"""`quantize`: a model directory to one with an int8 network, and a record of how close that is to float32."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..config.jsonplus import load_json
from ..config.limits import as_integer
from ..config.reader import read_configuration
from ..datasets.errors import DatasetError
from ..datasets.label_file import read_label
from ..engines.int8 import FILES, FOLDERS, FORMATS, RECORD, Int8Record, MIoU
from ..errors import ArgumentError
from ..files import TEMPORARY, atomic_write, locked, temporary_prefix
from ..integrations.modelscope.hub import model_directory
from ..metainfo import IGNORE_INDEX
from ..metrics.confusion import ConfusionMatrix
from ..metrics.segmentation import SegmentationEvaluator
from ..models.checkpoint import SUFFIXES, find_checkpoint
from ..models.fingerprint import network_fingerprint
from ..preprocessors.image import ImageError
from ..version import installed
from .nncf_int8 import QuantizationError, require, write_int8
from .photographs import Inputs, Photographs, Size, choose, split

if TYPE_CHECKING:
    from ..pipelines.image_segmentation import SegformerPipeline

LIMIT = 300  # photographs; more change the ranges little
TOLERANCE = 0.4  # of `Int8Record.error`: trained networks have 0.01 to 0.05, untrained ones 0.1, wrong ones 1
PACKAGES = ('ms-segformer', 'nncf', 'openvino', 'onnx', 'onnxruntime', 'torch')  # that make a network
CONFIGURATION = 'configuration.json'
BEFORE = 'before'  # the int8 network that is being replaced
logger = logging.getLogger(__name__)

Tell = Callable[[str, int, int], object]  # what is done, how far, of how many


def quantize(
    model: str | os.PathLike[str],
    images: str | os.PathLike[str],
    output: str | os.PathLike[str] = 'quantized',
    *,
    annotations: str | os.PathLike[str] | None = None,
    limit: int = LIMIT,
    format: str = 'openvino',
    overwrite: bool = False,
    progress: Tell | None = None,
) -> Int8Record:
    """Make an int8 network of a model, calibrated on photographs without labels, and compare it with float32.

    Then `ms_segformer.load(output, precision='int8')` runs it. Four of five photographs calibrate, the others are for
    the comparison.

    Args:
        model: as for `ms_segformer.load`: `'demo'`, `'b0'` … `'b5'`, a hub id or a model directory.
        images: folder of photographs of any size, like those that the model will see; sub-folders too.
        output: model directory to write: configuration and weights as they are, and the int8 network in a folder of its
            own. It is new or empty; or it is the model's directory itself, to which the int8 network is added.
        annotations: folder of label maps, `NAME.png` for `NAME.jpg` (class ids, 255: not labeled): the record then has
            the mIoU before and after, on the held-back photographs.
        limit: photographs at most, taken evenly from the folder.
        format: `'openvino'`, or `'onnx'` for ONNX Runtime.
        overwrite: replace the int8 network that is in `output` already.
        progress: called with what is done, how far it is, and of how many.

    Returns:
        The record that lies beside the network.

    Raises:
        ArgumentError: an argument is not accepted, or would overwrite what is there.
        FileNotFoundError: there is no such model or folder.
        ImageError, DatasetError: too few photographs can be read, or a label map cannot.
        QuantizationError: a package is missing, or fails, or the logits differ from those of float32 by more than
            `TOLERANCE`; nothing is written then.
    """
    tell = progress or (lambda *_: None)
    if format not in FORMATS:
        raise ArgumentError(f'format is {format!r}; accepted: {" or ".join(map(repr, FORMATS))}')
    engine = FORMATS[format]
    most = as_integer(limit)
    if most is None or most < 2:
        raise ArgumentError(f'limit is {limit!r}; accepted: an integer of at least 2')
    if annotations is not None and not Path(annotations).is_dir():
        raise FileNotFoundError(f'{annotations}: no such folder; expected a folder of label maps')
    chosen = choose(images, most, annotations)
    require(engine)
    folder = Path(model_directory(model))
    target = Path(os.path.realpath(output))
    _check_output(folder, target, engine, overwrite)
    from ..pipelines.loading import load  # imported late: it brings ModelScope, and mistakes are told at once

    segmenter = load(folder, device='cpu', engine='torch' if engine == 'onnxruntime' else engine)
    photographs = _readable(chosen, segmenter, tell)
    labels = _labels(photographs, images, annotations, len(segmenter.classes))
    with _staged(folder, target, engine, overwrite) as staged:
        read_configuration(staged)  # with all that it names
        record = _make(engine, segmenter, photographs, staged, tell)
        record = _compare(engine, segmenter, record, staged, photographs, labels, tell)
    return record


def _check_output(folder: Path, output: Path, engine: str, overwrite: bool) -> None:
    """Refuse an output folder that holds anything but this model."""
    if output.exists() and not output.is_dir():
        raise ArgumentError(f'{output} is not a folder; name one that is new, or empty')
    target = output / FOLDERS[engine]
    if target.exists() and _same(folder, output):
        if not overwrite:
            raise ArgumentError(f'{target} is there already; pass overwrite (--overwrite) to replace it')
    elif output.exists() and not _same(folder, output) and _holds_anything(output):
        raise ArgumentError(
            f'{output} is not empty, and not the directory of this model ({folder}); name a folder that is new or empty'
        )


def _holds_anything(output: Path) -> bool:
    """But for what a killed run has left."""
    return not all(path.name.startswith(TEMPORARY) for path in output.iterdir())


def _same(folder: Path, output: Path) -> bool:
    return output.exists() and os.path.samefile(folder, output)


def _readable(chosen: list[str], segmenter: SegformerPipeline, tell: Tell) -> Photographs:
    """The photographs that can be read; a warning names the others."""
    shapes: dict[str, tuple[Size, Size]] = {}
    for number, path in enumerate(chosen):
        try:
            prepared = segmenter.preprocessor(path)
            height, width = prepared['ori_shape'][:2]
            rows, columns = prepared['img'].shape[2:]
            shapes[path] = (height, width), (rows, columns)
        except (ImageError, OSError) as error:
            logger.warning('left out: %s', error)
        tell('reading', number + 1, len(chosen))
    if len(shapes) < 2:
        raise ImageError(
            f'{len(shapes)} of {len(chosen)} photographs can be read; at least 2 are needed, one to calibrate with '
            'and one to compare on. The warnings say what is wrong with the others'
        )
    return split(shapes)


def _labels(
    photographs: Photographs,
    images: str | os.PathLike[str],
    annotations: str | os.PathLike[str] | None,
    classes: int,
) -> dict[str, np.ndarray]:
    """Label maps of the held-back photographs that have one, by path of the photograph."""
    if annotations is None:
        return {}
    found = {}
    for path in photographs.held_back:
        file = Path(annotations, Path(path).relative_to(images).with_suffix('.png'))
        if not file.is_file():
            continue
        label = read_label(file)
        wrong = sorted(set(np.unique(label)) - set(range(classes)) - {IGNORE_INDEX})
        if wrong:
            raise DatasetError(
                f'{file} holds the values {", ".join(map(str, wrong[:12]))}; the model has the classes '
                f'0-{classes - 1}, and 255 is "not labeled"'
            )
        height, width = photographs.shapes[path][0]
        if label.shape != (height, width):
            raise DatasetError(f'{file} is {label.shape[1]}×{label.shape[0]}, the photograph {width}×{height}')
        found[path] = label
    if not found:
        raise DatasetError(
            f'{annotations} has no label map for any of the {len(photographs.held_back)} held-back photographs; '
            f'expected {Path(photographs.held_back[0]).relative_to(images).with_suffix(".png")} and so on'
        )
    if all((label == IGNORE_INDEX).all() for label in found.values()):
        raise DatasetError(f'{annotations}: no pixel of the held-back photographs is labeled (all are {IGNORE_INDEX})')
    return found


def _make(engine: str, segmenter: SegformerPipeline, photographs: Photographs, staged: Path, tell: Tell) -> Int8Record:
    """Write the int8 network into a staged model directory, and its record without a comparison."""
    target = staged / FOLDERS[engine]
    target.mkdir()
    count, done, output = len(photographs.calibration), 0, sys.stdout

    def calibrated() -> None:
        nonlocal done
        done = done % count + 1  # NNCF goes through them twice
        with contextlib.redirect_stdout(output):  # which is held back while NNCF is at work
            tell('calibrating', done, count)

    size = None
    if engine == 'onnxruntime':  # NNCF stacks what it sees in ONNX networks
        sizes = [photographs.shapes[path][1] for path in photographs.calibration]
        size = min(height for height, _ in sizes), min(width for _, width in sizes)
    inputs = Inputs(photographs.calibration, lambda path: _input(segmenter, path), calibrated, size)
    write_int8(engine, segmenter.model, inputs, target)
    files = {name: hashlib.sha256((target / name).read_bytes()).hexdigest() for name in FILES[engine]}
    record = Int8Record(
        network=network_fingerprint(segmenter.model),
        files=files,
        calibration=[Path(path).name for path in photographs.calibration],
        held_back=[Path(path).name for path in photographs.held_back],
        versions=installed(PACKAGES),
        date=date.today().isoformat(),
    )
    _write(record, target)
    return record


def _input(segmenter: SegformerPipeline, path: str) -> np.ndarray:
    return np.ascontiguousarray(segmenter.preprocessor(path)['img'])


def _write(record: Int8Record, target: Path) -> None:
    with atomic_write(target / RECORD) as temporary:
        text = json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + '\n'
        temporary.write_text(text, encoding='utf-8', errors='backslashreplace')  # names need not be UTF-8


def _compare(
    engine: str,
    segmenter: SegformerPipeline,
    record: Int8Record,
    staged: Path,
    photographs: Photographs,
    labels: dict[str, np.ndarray],
    tell: Tell,
) -> Int8Record:
    """Run both networks on the held-back photographs, and write the record with what was found."""
    from ..pipelines.loading import load  # imported late: it brings ModelScope

    int8 = load(staged, device='cpu', engine=engine, precision='int8')
    classes = len(segmenter.classes)
    same = pixels = 0
    errors = []
    before, after = ConfusionMatrix(classes), ConfusionMatrix(classes)
    for number, path in enumerate(photographs.held_back):
        expected, found = (each(path, with_masks=False)['seg_map'] for each in (segmenter, int8))
        errors.append(_error(segmenter, int8, path))
        same += int((expected == found).sum())
        pixels += expected.size
        if path in labels:
            before.update(expected, labels[path])
            after.update(found, labels[path])
        tell('comparing', number + 1, len(photographs.held_back))
    error = float(np.mean(errors))
    if not error <= TOLERANCE:
        raise QuantizationError(
            f'the int8 network differs from float32 by {error:.2g} standard deviations of the logits, more than '
            f'{TOLERANCE}, with {same / pixels:.1%} of the pixels equal; nothing was written. Calibrate with more '
            'photographs like those that the model will see'
        )
    first, then = (_miou(matrix, segmenter.classes) for matrix in (before, after))
    miou = None if first is None or then is None else MIoU(float32=first, int8=then, images=len(labels))
    record = replace(record, agreement=same / pixels, error=error, pixels=pixels, miou=miou)
    _write(record, staged / FOLDERS[engine])
    return record


def _error(segmenter: SegformerPipeline, int8: SegformerPipeline, path: str) -> float:
    """Root mean square difference of the logits for a photograph, relative to their standard deviation."""
    prepared = segmenter.preprocessor(path)['img']
    exact, rounded = (each.prepare_model()(prepared) for each in (segmenter, int8))
    return float((rounded - exact).square().mean().sqrt() / exact.std())


def _miou(matrix: ConfusionMatrix, classes: tuple[str, ...]) -> float | None:
    """In percent; None where no pixel is labeled."""
    value = SegmentationEvaluator(list(classes)).evaluate(matrix)['mIoU']
    return None if math.isnan(value) else round(100 * value, 4)


@contextmanager
def _staged(folder: Path, output: Path, engine: str, overwrite: bool) -> Iterator[Path]:
    """A copy of a model directory, which becomes the output when the block ends without an error.

    It is made inside the output where that exists: the model's own directory, to which only the int8 network is moved
    then, or an empty one. Otherwise it is made beside it and renamed. What a killed run has left of it is removed.
    """
    inside = output.exists()
    output.parent.mkdir(parents=True, exist_ok=True)
    staged = (output if inside else output.parent) / temporary_prefix(f'{output.name}/{FOLDERS[engine]}')
    with locked(staged, ArgumentError(f'another run is writing {output}; wait for it, or name another folder')):
        _put_back(staged, output / FOLDERS[engine])
        for left in staged.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield from _filled(staged, folder, output, engine, overwrite, inside)


def _filled(staged: Path, folder: Path, output: Path, engine: str, overwrite: bool, inside: bool) -> Iterator[Path]:
    """`_staged`, in a folder that is empty and this run's own."""
    same = _same(folder, output)
    try:
        for source in _files_of(folder):
            target = staged / source.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            (_link if same else shutil.copy)(source, target)
        yield staged
        if same:
            _check_output(folder, output, engine, overwrite)  # again: it has taken a while
            _replace(staged / FOLDERS[engine], output / FOLDERS[engine])
        elif inside:
            for path in sorted(staged.iterdir(), key=lambda path: path.name == CONFIGURATION):  # that one last
                if (output / path.name).exists():
                    raise ArgumentError(f'{output} is not empty any more; name a folder that is new or empty')
                os.rename(path, output / path.name)
        else:
            os.rename(staged, output)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _files_of(folder: Path) -> list[Path]:
    """What makes a model directory: its files, without hidden ones and other checkpoints than its own.

    A class file is one of them, wherever below the directory the configuration names it.
    """
    checkpoint = find_checkpoint(folder)
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith('.')
        and (path.suffix not in SUFFIXES or path.name == checkpoint.name)
    ]
    named = _texts(load_json(folder / CONFIGURATION))
    below = [folder / name for name in sorted(named) if not os.path.isabs(name) and '..' not in Path(name).parts]
    return files + [path for path in below if path not in files and path.suffix not in SUFFIXES and path.is_file()]


def _texts(value: object) -> set[str]:
    """All texts in a configuration that could name a class file."""
    if isinstance(value, str):
        return {value} if 0 < len(value) < 200 and '\0' not in value else set()
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return set().union(*map(_texts, values))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # a file system without links
        shutil.copy(source, target)


def _replace(new: Path, old: Path) -> None:
    """Put a folder in the place of another; the old one is removed last."""
    try:
        if old.exists():
            os.rename(old, new.parent / BEFORE)
        os.rename(new, old)
    except BaseException:  # Ctrl-C too
        _put_back(new.parent, old)
        raise


def _put_back(staged: Path, old: Path) -> None:
    """Undo the first half of `_replace`."""
    if (staged / BEFORE).exists() and not old.exists():
        os.rename(staged / BEFORE, old)
