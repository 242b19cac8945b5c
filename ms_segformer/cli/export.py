"""`ms-segformer export MODEL -o OUT`: write a model as ONNX or OpenVINO IR."""

import argparse

from ..errors import ArgumentError
from ..integrations.modelscope.hub import model_directory
from ..metainfo import FIRST_FP16_OPSET, ONNX_OUTPUTS
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
    parser.add_argument(
        '--image-size',
        type=side,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='with --gives classes: the only size of photographs that the file is for; its class maps have that size',
    )
    parser.add_argument(
        '--batch', type=positive_int, metavar='N', help='images in a batch, with --size or --image-size (default: 1)'
    )
    parser.add_argument(
        '--gives',
        type=one_of(ONNX_OUTPUTS),
        choices=ONNX_OUTPUTS,
        default='logits',
        help='ONNX: logits, or the class ids of the pixels (default: %(default)s)',
    )
    parser.add_argument('--opset', type=opset, help='ONNX operator set (default: 17)')
    parser.add_argument(
        '--fp16', action='store_true', help='ONNX: compute in half precision; OpenVINO: store the weights in it'
    )


def run(args: argparse.Namespace) -> int:
    from ..config.reader import read_configuration  # imported late: takes 30 ms, and --help is to be fast

    classes = args.gives == 'classes'
    for option, given, needed, there in (
        ('batch', args.batch, '--size or --image-size', args.size or args.image_size),
        ('opset', args.opset, '--format onnx', args.format == 'onnx'),
        ('gives classes', classes, '--format onnx', args.format == 'onnx'),
        ('image-size', args.image_size, '--gives classes', classes),
    ):
        if given and not there:
            raise ArgumentError(f'--{option} goes with {needed} only: add that, or leave --{option} out')
    if args.size and args.image_size:
        raise ArgumentError('--size and --image-size: the first follows from the second; leave one of them out')
    if args.fp16 and args.opset and args.opset < FIRST_FP16_OPSET:
        raise ArgumentError(f'--fp16 goes with --opset {FIRST_FP16_OPSET} or later only; leave --opset out')

    folder = model_directory(args.model)

    read_configuration(folder)  # its errors are clearer than what ModelScope makes of a directory it does not know
    from modelscope.models import Model

    from ..exporters.segformer_exporter import SegformerExporter

    exporter = SegformerExporter(Model.from_pretrained(folder))
    shape, image_shape = (
        None if size is None else (args.batch or 1, 3, *size) for size in (args.size, args.image_size)
    )
    if args.format == 'onnx':
        options = {'opset': args.opset} if args.opset else {}
        files = exporter.export_onnx(
            args.output, shape=shape, image_shape=image_shape, output=args.gives, fp16=args.fp16, **options
        )
    else:
        files = exporter.export_openvino(args.output, shape=shape, compress_to_fp16=args.fp16)
    for path in files.values():
        print(path)
    return 0
