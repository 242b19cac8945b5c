"""Turns a whole SegFormer of Hugging Face, NVlabs or mmsegmentation into a model directory of this package.

    python -m ms_segformer.models.convert SOURCE TARGET [--classes FILE]

SOURCE is a directory of `transformers` (`config.json`, `model.safetensors`) or a checkpoint file; TARGET is then what
`pipeline()`, the trainer and `ms-segformer` open. Their head has neither norm nor activation before the fusion; the
configuration says so with `plain_projections`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..config.jsonplus import load_json
from ..config.messages import ConfigurationError
from ..config.reader import is_number, read_configuration
from ..files import atomic_write
from ..metainfo import MODEL, PIPELINE, TASK
from ..metainfo import WEIGHTS_OF_TRANSFORMERS as WEIGHTS
from .checkpoint import CheckpointError, load_state, read_checkpoint, save_checkpoint
from .pickle_interpreter import shown

MAX_DEPTH = 128  # blocks of a stage; B5 has 40
MAX_NAME = 200  # characters of a class
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def convert(source: str | Path, target: str | Path, classes: Sequence[str] | None = None) -> Path:
    """Write a model directory for a foreign model.

    Args:
        source: directory of `transformers`, or a checkpoint file in any known dialect.
        target: folder to write `configuration.json` and `pytorch_model.pt` into.
        classes: class names by id, where the source has none.

    Returns:
        Path of `target`.

    Raises:
        FileNotFoundError, CheckpointError: the source is no whole SegFormer, or its classes are not known.
    """
    source, target = Path(source), Path(target)
    file = source if source.is_file() else _weights_of(source)
    state, meta = read_checkpoint(file)
    try:
        described = load_json(source / 'config.json') if source.is_dir() else {}
        section = model_section(state, described)
        names = _class_names(classes, described, meta, section['decode_head']['num_classes'])
        palette = _palette(meta)
        configuration = {
            'task': TASK,
            'framework': 'pytorch',
            'model': section,
            'pipeline': {'type': PIPELINE},
            'dataset': {
                'val': {
                    'type': 'SegDataset',
                    'data_source': {'type': 'SegSourceRaw', 'classes': names},
                    'pipeline': _test_pipeline(source),
                }
            },
            'CLASSES': names,
            **({'PALETTE': palette} if palette else {}),
        }
        read_configuration(configuration)
        model = _built(section, state, str(file))
    except (CheckpointError, ConfigurationError) as error:
        raise CheckpointError(f'{file}: {str(error).removeprefix(f"{file}: ")}') from None
    content = json.dumps(configuration, indent=2, ensure_ascii=False).encode()  # complete before anything is written
    save_checkpoint(target / 'pytorch_model.pt', model, {'CLASSES': names})
    with atomic_write(target / 'configuration.json') as temporary:
        temporary.write_bytes(content)
    return target


def _built(section: dict, state: dict[str, torch.Tensor], file: str) -> torch.nn.Module:
    """The model of a section with the weights; without memory for it before every shape has been compared."""
    from .segformer import Segformer  # imported late: it imports ModelScope

    arguments = {key: value for key, value in section.items() if key != 'type'}
    with torch.device('meta'):
        expected = Segformer(**arguments).state_dict()
    other = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if other:
        raise CheckpointError(
            f'{shown(other[0])} is {tuple(state[other[0]].shape)}, which does not go with the other '
            f'shapes (expected {tuple(expected[other[0]].shape)})'
        )
    model = Segformer(**arguments)
    load_state(model, state, file)
    return model


def model_section(state: dict[str, torch.Tensor], described: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the `model` section that fits a translated state dict.

    Args:
        state: from `checkpoint.read_checkpoint`.
        described: `config.json` of `transformers`, for what the weights do not show: heads, strides and the epsilon of
            the layer norms. Without it those of the paper: 1, 2, 5, 8 heads, strides 4, 2, 2, 2.

    Raises:
        CheckpointError: the weights are not a whole SegFormer.
    """
    described = described or {}
    stages = range(4)
    projections = [_convolution(state, f'backbone.layers.{i}.0.projection.weight') for i in stages]
    dims = [projection.shape[0] for projection in projections]
    fusion, classifier = (
        _convolution(state, f'decode_head.{name}.weight') for name in ('fusion_conv.conv', 'conv_seg')
    )
    hidden = _convolution(state, 'backbone.layers.0.1.0.ffn.layers.0.weight').shape[0]
    depths = [_depth(state, i) for i in stages]
    reductions = [_reduction(state, i) for i in stages]
    heads = described.get('num_attention_heads') or [1, 2, 5, 8]
    if not _are_counts(heads) or [dims[0] // heads[0] * count for count in heads] != dims:
        raise CheckpointError(f'stages of {dims} channels with {heads} heads: not of one width per head')
    return {
        'type': MODEL,
        'pretrained': None,
        'backbone': {
            'type': 'MixVisionTransformer',
            'embed_dims': dims[0] // heads[0],
            'num_layers': depths,
            'num_heads': heads,
            'patch_sizes': [projection.shape[-1] for projection in projections],
            'strides': described.get('strides') or [4, 2, 2, 2],
            'sr_ratios': reductions,
            'mlp_ratio': hidden // dims[0],
            'qkv_bias': 'backbone.layers.0.1.0.attn.attn.in_proj_bias' in state,
            'drop_path_rate': described.get('drop_path_rate', 0.1),
            # transformers leaves every norm at torch's default, whatever its layer_norm_eps says
            'norm_cfg': {'type': 'LN', 'eps': 1e-5 if described else 1e-6},
        },
        'decode_head': {
            'type': 'SegformerHead',
            'in_channels': dims,
            'channels': fusion.shape[0],
            'num_classes': classifier.shape[0],
            'dropout_ratio': described.get('classifier_dropout_prob', 0.1),
            'plain_projections': 'decode_head.convs.0.conv.bias' in state,
            'align_corners': False,
            'loss_decode': {'type': 'CrossEntropyLoss'},
        },
    }


def _are_counts(values: Any) -> bool:
    return (
        isinstance(values, (list, tuple))
        and len(values) == 4
        and all(type(value) is int and value > 0 for value in values)
    )


def _convolution(state: dict[str, torch.Tensor], key: str) -> torch.Tensor:
    """A convolution's weights: out×in×k×k, none of them zero."""
    if key not in state:
        raise CheckpointError(
            f'not a whole SegFormer: {key} is missing. A backbone alone is a starting point for '
            'training: pass it as load_from'
        )
    if state[key].dim() != 4 or 0 in state[key].shape:
        raise CheckpointError(f'{key} is {tuple(state[key].shape)}; expected the weights of a convolution')
    return state[key]


def _depth(state: dict[str, torch.Tensor], stage: int) -> int:
    depth = len({key.split('.')[4] for key in state if key.startswith(f'backbone.layers.{stage}.1.')})
    if not 1 <= depth <= MAX_DEPTH:
        raise CheckpointError(f'{depth} blocks in stage {stage}; expected 1 to {MAX_DEPTH}')
    return depth


def _reduction(state: dict[str, torch.Tensor], stage: int) -> int:
    key = f'backbone.layers.{stage}.1.0.attn.sr.weight'
    return _convolution(state, key).shape[-1] if key in state else 1


def _weights_of(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file() and (folder / 'config.json').is_file():
            return folder / name
    raise CheckpointError(
        f'{folder}: not a directory of transformers; expected config.json and {" or ".join(WEIGHTS)} '
        '(a model in several parts has to be saved in one first)'
    )


def _of_meta(meta: dict[str, Any], key: str) -> list | tuple:
    """`CLASSES` or `PALETTE` as mmcv's checkpoints have them, or as the configuration in EasyCV's exports does."""
    config = meta['config'] if isinstance(meta.get('config'), dict) else {}
    found = meta.get(key, config.get(key))
    return found if isinstance(found, (list, tuple)) else ()


def _class_names(classes: Sequence[str] | None, described: dict, meta: dict[str, Any], count: int) -> list[str]:
    labels = described.get('id2label')
    if not isinstance(labels, dict) or not all(key.isdecimal() for key in labels):
        labels = {}
    names = classes or _of_meta(meta, 'CLASSES') or [labels[key] for key in sorted(labels, key=int)]
    if not names:
        raise CheckpointError(f'has no class names; give the {count} names with classes=[…] (--classes FILE)')
    if len(names) not in (count, count - 1):
        raise CheckpointError(f'has {count} outputs, but {len(names)} class names were given')
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise CheckpointError(
                f'{shown(name)} is no class name (text of 1 to {MAX_NAME} printable characters); '
                f'give the {count} names with classes=[…] (--classes FILE)'
            )
    return list(names)


def _palette(meta: dict[str, Any]) -> list[list[int]]:
    """The colors of the checkpoint; none unless all of them are red, green and blue from 0 to 255."""
    palette = _of_meta(meta, 'PALETTE')
    good = len(palette) <= 1024 and all(
        isinstance(color, (list, tuple))
        and len(color) == 3
        and all(type(value) is int and 0 <= value <= 255 for value in color)
        for color in palette
    )
    return [list(color) for color in palette] if good else []


def _test_pipeline(source: Path) -> list[dict[str, Any]]:
    """The test pipeline: that of `preprocessor_config.json`, else the short side to 512 as in the paper."""
    settings, scale, keep_ratio = {}, [2048, 512], True
    if (source / 'preprocessor_config.json').is_file():
        settings = load_json(source / 'preprocessor_config.json')
        size = settings.get('size', 512)
        size = size if isinstance(size, dict) else {'height': size, 'width': size}
        scale, keep_ratio = [size.get('width', 512), size.get('height', 512)], False
    mean, std = (
        _on_255(settings, key) if key in settings else list(default)
        for key, default in (('image_mean', MEAN), ('image_std', STD))
    )
    return [
        {
            'type': 'MMMultiScaleFlipAug',
            'img_scale': scale,
            'flip': False,
            'transforms': [
                {'type': 'MMResize', 'keep_ratio': keep_ratio},
                {'type': 'MMNormalize', 'mean': mean, 'std': std, 'to_rgb': True},
                {'type': 'ImageToTensor', 'keys': ['img']},
                {'type': 'Collect', 'keys': ['img']},
            ],
        }
    ]


def _on_255(settings: dict, key: str) -> list[float]:
    values = settings[key]
    if not isinstance(values, list) or not all(is_number(value, float) for value in values):
        raise CheckpointError(f'preprocessor_config.json: {key} is {shown(values)}; expected three numbers')
    return [255 * value for value in values]


def _main() -> None:
    from ..datasets.sources import read_classes  # imported late: only the command needs it

    parser = argparse.ArgumentParser(prog='python -m ms_segformer.models.convert', description=__doc__.splitlines()[0])
    parser.add_argument('source')
    parser.add_argument('target')
    parser.add_argument('--classes', metavar='FILE', help='class names, one a line')
    args = parser.parse_args()
    print(convert(args.source, args.target, read_classes(args.classes) if args.classes else None))


if __name__ == '__main__':
    _main()
