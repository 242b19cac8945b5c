"""`ms-segformer quantize MODEL --images FOLDER`: an int8 network of a model, calibrated on photographs."""

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from ..metainfo import INT8_FORMATS
from ..progress import screen
from .arguments import input_folder, one_of, output_folder, positive_int

if TYPE_CHECKING:
    from tqdm import tqdm

HELP = 'make an int8 network of a model for the CPU, calibrated on photographs without labels'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', help='model directory, hub id, b0 to b5, or demo')
    parser.add_argument(
        '--images',
        required=True,
        type=input_folder,
        metavar='FOLDER',
        help='photographs of any size, like those that the model will see; 50 to 300 are enough',
    )
    parser.add_argument(
        '--annotations',
        type=input_folder,
        metavar='FOLDER',
        help='label maps, NAME.png for NAME.jpg: the mIoU before and after is measured',
    )
    parser.add_argument(
        '--limit',
        type=positive_int,
        default=300,
        metavar='N',
        help='photographs at most, spread evenly over the folder; one of five is held back for the comparison with '
        'float32 (default: %(default)s)',
    )
    parser.add_argument(
        '--format',
        type=one_of(INT8_FORMATS),
        choices=INT8_FORMATS,
        default='openvino',
        help='of the int8 network: for OpenVINO, or ONNX for ONNX Runtime (default: %(default)s)',
    )
    parser.add_argument(
        '-o',
        '--output',
        type=output_folder,
        default='quantized',
        metavar='DIR',
        help="model directory to write, new or empty; or the model's own, to which the int8 network is added "
        '(default: %(default)s)',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an int8 network that is there already')


def run(args: argparse.Namespace) -> int:
    from ..quantization.quantize import quantize

    with _Bar() as bar:
        record = quantize(
            args.model,
            args.images,
            args.output,
            annotations=args.annotations,
            limit=args.limit,
            format=args.format,
            overwrite=args.overwrite,
            progress=bar.show,
        )
    print(f'{args.output}: {record.summary()}')
    print(f'use it: ms-segformer predict IMAGE --model {shlex.quote(args.output)} --precision int8 --device cpu')
    return 0


class _Bar:
    """A progress bar at a terminal, one for each thing that is done."""

    def __enter__(self) -> '_Bar':
        self._bar: tqdm | None = None
        self._doing = ''
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, doing: str, done: int, count: int) -> None:
        """Show how far it is."""
        from tqdm import tqdm as bar  # imported late: it takes 20 ms, and --help is to be fast

        if self._bar is None or doing != self._doing:
            self.__exit__()
            self._doing = doing
            self._bar = bar(
                total=count, desc=doing, unit='image', file=sys.stderr, disable=not sys.stderr.isatty(), **screen()
            )
        self._bar.n = done
        self._bar.refresh()
