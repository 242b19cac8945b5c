"""`ms-segformer export MODEL -o OUT`: write a model as ONNX or OpenVINO IR."""

import argparse

from ..errors import ArgumentError
from ..integrations.modelscope.hub import model_directory
from .arguments import one_of, opset, output_folder, positive_int, side

FORMATS = ('onnx', 'openvino')
HELP = 'write a model as ONNX or OpenVINO IR'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', help='model directory, hub id, b0 to b5, or demo')
    parser.add_argument(
        '-o',
        '--output',
        type=output_folder,
        default='exported',
        metavar='DIR',
        help='where to write (default: %(default)s)',
    )
    parser.add_argument('--format', type=one_of(FORMATS), choices=FORMATS, default='onnx', help='default: %(default)s')
    parser.add_argument(
        '--size',
        type=side,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='the only input size the file takes (default: any)',
    )
    parser.add_argument('--batch', type=positive_int, metavar='N', help='images in a batch, with --size (default: 1)')
    parser.add_argument('--opset', type=opset, help='ONNX operator set (default: 17)')
    parser.add_argument('--fp16', action='store_true', help='OpenVINO: store the weights in half precision')


def run(args: argparse.Namespace) -> int:
    from ..config.reader import read_configuration  # imported late: takes 30 ms, and --help is to be fast

    for option, needed, there in (
        ('batch', '--size', args.size),
        ('opset', '--format onnx', args.format == 'onnx'),
        ('fp16', '--format openvino', args.format == 'openvino'),
    ):
        if getattr(args, option) and not there:
            raise ArgumentError(f'--{option} goes with {needed} only: add that, or leave --{option} out')

    folder = model_directory(args.model)

    read_configuration(folder)  # its errors are clearer than what ModelScope makes of a directory it does not know
    from modelscope.models import Model

    from ..exporters.segformer_exporter import SegformerExporter

    exporter = SegformerExporter(Model.from_pretrained(folder))
    shape = None if args.size is None else (args.batch or 1, 3, *args.size)
    if args.format == 'onnx':
        files = exporter.export_onnx(args.output, shape=shape, **({'opset': args.opset} if args.opset else {}))
    else:
        files = exporter.export_openvino(args.output, shape=shape, compress_to_fp16=args.fp16)
    for path in files.values():
        print(path)
    return 0
