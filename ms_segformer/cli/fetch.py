"""`ms-segformer fetch MODEL`: bring a published model to this machine, for use without a network."""

import argparse
import os

from ..errors import ArgumentError
from ..integrations.modelscope.hub import fetch, model_directory
from ..metainfo import find_model, own_configuration, variant_of_hub_id
from ..trainers.starts import HUGGING_FACE
from .arguments import output_folder

HELP = 'download a published model, or weights to start training from, to use them without a network later'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'model',
        help='b0 to b5, a hub id such as '
        'damo/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k, or weights: a '
        f'URL, or {HUGGING_FACE}OWNER/NAME of Hugging Face',
    )
    parser.add_argument(
        '--imagenet',
        action='store_true',
        help="fetch the ImageNet weights that the model's "
        'configuration names (model.pretrained), which `train --from imagenet` starts from',
    )
    parser.add_argument('--revision', help='branch, tag or commit (default: master)')
    parser.add_argument('--to', type=output_folder, metavar='DIR', help='put the files here instead of in the cache')


def run(args: argparse.Namespace) -> int:
    if args.imagenet or args.model.startswith(HUGGING_FACE) or '://' in args.model:
        from ..trainers.start_weights import weights

        print(weights(_imagenet_weights(args.model) if args.imagenet else args.model, args.to))
        return 0
    model_id = find_model(args.model)
    if os.path.isdir(model_id):
        raise ArgumentError(f'{args.model} is a model directory on this machine already: {model_id}')
    folder = fetch(model_id, args.revision, args.to)
    print(folder)
    print(f"Works without a network now: pipeline('image-segmentation', {_usable_name(model_id, args, folder)!r})")
    return 0


def _imagenet_weights(name: str) -> str:
    """What the configuration of a model names as `model.pretrained`.

    Raises:
        ArgumentError: it names nothing.
    """
    from ..config.reader import read_configuration  # imported late: takes 30 ms, and --help is to be fast

    named = read_configuration(own_configuration(name) or model_directory(name)).model.pretrained
    if named is None:
        raise ArgumentError(f'the configuration of {name} names no ImageNet weights (model.pretrained)')
    return named


def _usable_name(model_id: str, args: argparse.Namespace, folder: str) -> str:

    by_id = not args.to and not args.revision and variant_of_hub_id(model_id) is not None
    return model_id if by_id else str(folder)
