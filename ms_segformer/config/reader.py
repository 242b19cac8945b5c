"""Reads a `configuration.json` in EasyCV's ModelScope schema into typed settings; all validation happens here.

Accepted are the published files, what EasyCV's converter wrote (tuples as `{"__class__": "tuple", "__value__": [...]}`)
and what a training run of this package exports. `read_configuration` is the only entrance.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..metainfo import MODEL, TASK
from . import limits
from .class_file import ClassFileError, ConfiguredClassFile, read_class_file
from .jsonplus import decode_jsonplus, load_json, plain
from .messages import ConfigurationError, nearest, shown, warn_once
from .recognition import check_pipeline
from .settings import (
    BackboneSettings,
    HeadSettings,
    InferenceSettings,
    LossSettings,
    ModelSettings,
    PreprocessSettings,
    Settings,
)

# What the sections of the network may say. Their unknown keys are refused, but for those of the whole model and of the
# test mode, where converters leave more than is needed: a warning names these.
MODEL_KEYS = (
    'type',
    'pretrained',
    'backbone',
    'decode_head',
    'neck',
    'train_cfg',
    'test_cfg',
    '__easycv_arch__',
    'init_cfg',
)
BACKBONE_KEYS = (
    'type',
    'in_channels',
    'embed_dims',
    'num_stages',
    'num_layers',
    'num_heads',
    'patch_sizes',
    'strides',
    'sr_ratios',
    'out_indices',
    'mlp_ratio',
    'qkv_bias',
    'drop_rate',
    'attn_drop_rate',
    'drop_path_rate',
    'act_cfg',
    'norm_cfg',
    'pretrained',
    'init_cfg',
    'with_cp',
)
HEAD_KEYS = (
    'type',
    'in_channels',
    'in_index',
    'channels',
    'num_classes',
    'dropout_ratio',
    'conv_cfg',
    'norm_cfg',
    'act_cfg',
    'align_corners',
    'loss_decode',
    'ignore_index',
    'input_transform',
    'interpolate_mode',
    'init_cfg',
    'sampler',
    'plain_projections',
)
LOSS_KEYS = (
    'type',
    'use_sigmoid',
    'use_mask',
    'loss_weight',
    'class_weight',
    'avg_non_ignore',
    'reduction',
    'loss_name',
)
TEST_KEYS = ('mode', 'crop_size', 'stride')


def read_configuration(source: str | os.PathLike | dict) -> Settings:
    """Read and check a configuration.

    Args:
        source: path of a `configuration.json` or of the directory that holds it, or its content as a dict.

    Returns:
        `Settings`.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigurationError: it is not JSON, a section is missing, or a value is not accepted.
    """
    path = None
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        path = path / 'configuration.json' if path.is_dir() else path
        if not path.exists():
            raise FileNotFoundError(f'{path}: no such file; a model directory needs its configuration.json')
        raw, name = load_json(path), str(path)
    else:
        raw, name = decode_jsonplus(plain(source, 'configuration')), 'configuration'
    check_pipeline(raw, name)
    root = _Section(raw, name, '')
    root.one_of('task', (TASK,), default=TASK)
    root.one_of('framework', ('pytorch',), default='pytorch')
    model = _read_model(root.section('model'))
    classes = _read_classes(root, path, model.head.num_classes)
    steps, place = _test_pipeline(root)
    return Settings(
        model,
        _read_preprocess(root, steps, place, model.test),
        classes,
        _read_palette(root, len(classes)),
        root.section('model').values,
        root.section('pipeline', {}).values,
        steps,
        name,
    )


def read_model_section(section: dict, name: str = 'configuration') -> ModelSettings:
    """Read the `model` section of a configuration alone into `ModelSettings`."""
    return _read_model(_Section(decode_jsonplus(plain(section, name, 'model')), name, 'model'))


class _Section:
    """A mapping that knows its place in the file, so that every complaint can name it."""

    def __init__(self, values: Any, name: str, path: str) -> None:
        self.values, self.name, self.path = values, name, path
        if not isinstance(values, dict):
            raise ConfigurationError(f'{name}: {path or "the file"} must be a mapping, found {shown(values)}')

    def fail(self, key: str, found: object, accepted: str) -> NoReturn:
        raise ConfigurationError(f'{self.name}: {self.key(key)} is {shown(found)}; accepted: {accepted}')

    def key(self, key: str) -> str:
        """The name of a key in the whole file."""
        return f'{self.path}.{key}' if self.path else key

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def section(self, key: str, default: dict | None = None) -> '_Section':
        if key not in self and default is None:
            have = shown(', '.join(sorted(self.values)) or 'nothing', quoted=False)
            raise ConfigurationError(f'{self.name}: the section {self.key(key)} is missing (found only: {have})')
        return _Section(self.get(key, default), self.name, self.key(key))

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def only(self, *accepted: str) -> None:
        for key in self.values:
            if key not in accepted:
                raise ConfigurationError(
                    f'{self.name}: unknown key {shown(self.key(key), quoted=False)}'
                    f'{nearest(key, accepted)}; accepted: {", ".join(sorted(accepted))}'
                )

    def known(self, *accepted: str) -> None:
        for key in self.values:
            if key not in accepted:
                warn_once(f'{self.name}: {shown(self.key(key), quoted=False)} is not read{nearest(key, accepted)}')

    def one_of(self, key: str, accepted: Sequence, default: Any = None) -> Any:
        value = self.get(key, default)
        if not any(type(value) is type(one) and value == one for one in accepted):
            self.fail(key, value, ' or '.join(map(repr, accepted)))
        return value

    def exactly(self, key: str, accepted: tuple) -> None:
        """A list that can be no other; missing is the same."""
        value = self.get(key, accepted)
        if not isinstance(value, (list, tuple)) or tuple(value) != accepted:
            self.fail(key, value, f'{list(accepted)}')

    def number(self, key: str, default: float | None, low: float, high: float, kind: type = float) -> Any:
        value = self.get(key, default)
        if not is_number(value, kind) or not low <= value <= high:
            self.fail(key, value, f'{"an integer" if kind is int else "a number"} from {low} to {high}')
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, value, 'true or false')
        return value

    def numbers(self, key: str, default: tuple | None, length: int, low: float, high: float, kind: type = int) -> tuple:
        value = self.get(key, default)
        if (
            not isinstance(value, (list, tuple))
            or len(value) != length
            or not all(is_number(x, kind) and low <= x <= high for x in value)
        ):
            self.fail(key, value, f'{length} {"integers" if kind is int else "numbers"} from {low} to {high}')
        return tuple(value)


def is_number(value: Any, kind: type) -> bool:
    """Whether a value is an integer, or for `float` any number but NaN, which no comparison would refuse."""
    accepted = int if kind is int else (int, float)
    return isinstance(value, accepted) and not isinstance(value, bool) and value == value


def _read_model(model: _Section) -> ModelSettings:
    model.known(*MODEL_KEYS)
    if 'neck' in model:
        model.fail('neck', model.get('neck'), 'null (SegFormer has none)')
    model.one_of('type', (MODEL,))
    arch = model.get('__easycv_arch__', {})
    if isinstance(arch, dict) and arch.get('type', 'EncoderDecoder') not in ('EncoderDecoder', 'MsSegformer'):
        model.fail('__easycv_arch__.type', arch['type'], "'EncoderDecoder' or 'MsSegformer'")
    backbone = _read_backbone(model.section('backbone'))
    head = _read_head(model.section('decode_head'), backbone)
    test = _read_test(model.section('test_cfg', {}))
    pretrained = model.get('pretrained')
    if not isinstance(pretrained, (str, bool, type(None))):
        model.fail('pretrained', pretrained, 'a URL, a path, false or null')
    settings = ModelSettings(backbone, head, test, pretrained if isinstance(pretrained, str) else None)
    if settings.parameters > limits.PARAMETERS:
        raise ConfigurationError(
            f'{model.name}: {model.path} describes a network of {settings.parameters:,} parameters (embed_dims is '
            f'{backbone.embed_dims}, decode_head.channels {head.channels}); accepted: up to {limits.PARAMETERS:,}'
        )
    return settings


def _read_backbone(section: _Section) -> BackboneSettings:
    section.only(*BACKBONE_KEYS)
    section.one_of('type', ('MixVisionTransformer',))
    section.one_of('num_stages', (4,), 4)
    section.exactly('out_indices', (0, 1, 2, 3))
    section.section('act_cfg', {}).one_of('type', ('GELU',), 'GELU')
    norm = section.section('norm_cfg', {})
    norm.one_of('type', ('LN',), 'LN')
    defaults = BackboneSettings()
    largest = {
        'num_layers': limits.BLOCKS,
        'num_heads': limits.HEADS,
        'patch_sizes': limits.PATCH,
        'strides': limits.STRIDE,
        'sr_ratios': limits.REDUCTION[1],
    }
    lists: dict[str, Any] = {
        key: section.numbers(key, getattr(defaults, key), 4, 1, high) for key, high in largest.items()
    }
    _check_stages(section, **lists)
    rates: dict[str, Any] = {
        key: section.number(key, getattr(defaults, key), 0, 1)
        for key in ('drop_rate', 'attn_drop_rate', 'drop_path_rate')
    }
    return BackboneSettings(
        in_channels=section.number('in_channels', defaults.in_channels, 3, 3, int),
        embed_dims=section.number('embed_dims', None, 1, limits.PARAMETERS, int),
        mlp_ratio=section.number('mlp_ratio', defaults.mlp_ratio, 1, limits.HIDDEN_RATIO, int),
        qkv_bias=section.flag('qkv_bias', defaults.qkv_bias),
        layer_norm_eps=norm.number('eps', defaults.layer_norm_eps, 0, 1),
        **lists,
        **rates,
    )


def _check_stages(section: _Section, num_layers: tuple, strides: tuple, sr_ratios: tuple, **_: tuple) -> None:
    if sum(num_layers) > limits.BLOCKS:
        section.fail('num_layers', list(num_layers), f'up to {limits.BLOCKS} blocks in all')
    low, high = limits.REDUCTION
    for stage in range(4):
        stride = math.prod(strides[: stage + 1])
        reach = stride * sr_ratios[stage]
        if reach < low or (sr_ratios[stage] > 1 and reach > high):
            section.fail(
                'sr_ratios',
                list(sr_ratios),
                f'from {-(-low // stride)} to {max(1, high // stride)} in stage '
                f'{stage}, whose strides make {stride}: each key of its attention then stands for {low} to '
                f'{high} pixels',
            )


def _read_head(section: _Section, backbone: BackboneSettings) -> HeadSettings:
    section.only(*HEAD_KEYS)
    section.one_of('type', ('SegformerHead',))
    in_channels = section.get('in_channels', backbone.channels)
    if not isinstance(in_channels, (list, tuple)) or tuple(in_channels) != backbone.channels:
        section.fail('in_channels', in_channels, f'{list(backbone.channels)}, the channels of the backbone')
    section.exactly('in_index', (0, 1, 2, 3))
    for key in ('norm_cfg', 'act_cfg'):
        if section.values.get(key, ...) is None:  # in EasyCV another network, not the default
            section.fail(key, 'null', 'a mapping (or leave it out)')
    section.one_of('interpolate_mode', ('bilinear',), 'bilinear')
    section.section('act_cfg', {}).one_of('type', ('ReLU',), 'ReLU')
    if section.get('sampler') is not None:
        section.fail('sampler', section.get('sampler'), 'null (pixel samplers are not supported)')
    norm = section.section('norm_cfg', {})
    norm.only('type', 'requires_grad', 'eps', 'momentum')
    norm.one_of('eps', (1e-5,), 1e-5)
    norm.one_of('momentum', (0.1,), 0.1)
    return HeadSettings(
        in_channels=backbone.channels,
        channels=section.number('channels', None, 1, limits.PARAMETERS, int),
        num_classes=section.number('num_classes', None, 1, limits.CLASSES, int),
        dropout_ratio=section.number('dropout_ratio', HeadSettings.dropout_ratio, 0, 1),
        align_corners=section.flag('align_corners', HeadSettings.align_corners),
        plain_projections=section.flag('plain_projections', HeadSettings.plain_projections),
        norm=norm.one_of('type', ('BN', 'SyncBN', 'BN2d'), HeadSettings.norm).replace('2d', ''),
        ignore_index=section.number('ignore_index', HeadSettings.ignore_index, 0, 255, int),
        loss=_read_loss(section),
    )


def _read_loss(head: _Section) -> LossSettings:
    section = head.section('loss_decode', {})
    section.only(*LOSS_KEYS)
    section.one_of('type', ('CrossEntropyLoss',), 'CrossEntropyLoss')
    for key in ('use_sigmoid', 'use_mask'):
        section.one_of(key, (False,), False)
    section.one_of('reduction', ('mean',), 'mean')
    weights = section.get('class_weight')
    if weights is not None:
        weights = section.numbers('class_weight', None, head.get('num_classes'), 0, limits.LOSS_WEIGHT, float)
    return LossSettings(
        section.number('loss_weight', LossSettings.loss_weight, 0, limits.LOSS_WEIGHT),
        weights,
        section.flag('avg_non_ignore', LossSettings.avg_non_ignore),
    )


def _read_test(section: _Section) -> InferenceSettings:
    section.known(*TEST_KEYS)
    mode = section.one_of('mode', ('whole', 'slide'), InferenceSettings.mode)
    if mode == 'whole':
        return InferenceSettings()
    crop = section.numbers('crop_size', None, 2, limits.SMALLEST_SIDE, limits.WHOLE_PIXELS // limits.SMALLEST_SIDE)
    if math.prod(crop) > limits.WHOLE_PIXELS:
        section.fail('crop_size', list(crop), f'windows of up to {limits.WHOLE_PIXELS:,} pixels')
    stride = section.numbers('stride', None, 2, 1, limits.WHOLE_PIXELS)
    if stride[0] > crop[0] or stride[1] > crop[1]:
        section.fail('stride', list(stride), f'at most crop_size {list(crop)}: larger steps would leave gaps')
    least = [-(-size // limits.OVERLAP) for size in crop]
    if stride[0] < least[0] or stride[1] < least[1]:
        section.fail('stride', list(stride), f'at least {least}: 1/{limits.OVERLAP} of crop_size {list(crop)}')
    return InferenceSettings(mode, crop, stride)


def _test_pipeline(root: _Section) -> tuple[Any, str]:
    """The transforms that an image is tested with, and where they stand."""
    if 'test_pipeline' in root:
        return root.get('test_pipeline'), 'test_pipeline'
    return root.section('dataset').section('val').get('pipeline'), 'dataset.val.pipeline'


def _read_preprocess(root: _Section, steps: Any, path: str, test: InferenceSettings) -> PreprocessSettings:
    found = {}
    for step in _listed(root, path, steps):
        if step.get('type') == 'MMMultiScaleFlipAug':
            found['scale'] = step.get('img_scale')
            found.update(_steps(_listed(root, f'{step.path}.transforms', step.get('transforms'))))
        else:
            found.update(_steps([step]))
    scale = found.get('scale')
    if isinstance(scale, (list, tuple)) and len(scale) == 1:
        scale = scale[0]
    whole = test.mode == 'whole'
    most = limits.WHOLE_PIXELS if whole else limits.SLIDE_PIXELS
    size = _Section({'img_scale': scale}, root.name, path).numbers('img_scale', None, 2, 2, most // 2)
    divisor = found.get('size_divisor')
    if math.prod(-(-side // (divisor or 1)) * (divisor or 1) for side in size) > most:
        padded = f' (padded to multiples of {divisor})' if divisor else ''
        root.fail(f'{path}.img_scale', list(size), f'up to {most:,} pixels{padded} in mode {test.mode!r}')
    if 'mean' not in found:
        root.fail(path, steps, 'a pipeline with MMNormalize (the network needs its mean, std)')
    keep_ratio = found.get('keep_ratio', PreprocessSettings.keep_ratio)
    return PreprocessSettings(
        (max(size), min(size)) if keep_ratio else size, keep_ratio, found['mean'], found['std'], divisor
    )


def _listed(root: _Section, path: str, steps: Any) -> list[_Section]:
    """The transforms of a pipeline."""
    if not isinstance(steps, (list, tuple)) or not steps:
        root.fail(path, steps, 'a list of transforms')
    return [_Section(step, root.name, f'{path}[{index}]') for index, step in enumerate(steps)]


def _steps(steps: Sequence[_Section]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step in steps:
        kind = step.get('type')
        if kind == 'MMResize':
            found['keep_ratio'] = step.flag('keep_ratio', PreprocessSettings.keep_ratio)
            if 'img_scale' in step:
                found['scale'] = step.get('img_scale')
        elif kind == 'MMNormalize':
            if not step.flag('to_rgb', True):
                step.fail('to_rgb', False, 'true (the network takes RGB)')
            found['mean'] = step.numbers('mean', None, 3, 0, 255, float)
            found['std'] = step.numbers('std', None, 3, 1e-6, 1e6, float)
        elif kind == 'MMPad':
            if 'size_divisor' not in step:
                step.fail('size_divisor', None, 'an integer (a fixed size cannot hold every image)')
            found['size_divisor'] = step.number('size_divisor', None, 1, limits.DIVISOR, int)
        elif kind not in (
            'MMRandomFlip',
            'ImageToTensor',
            'Collect',
            'DefaultFormatBundle',
            'LoadImage',
            'LoadImages',
            'LoadImageFromFile',
            'ToTensor',
        ):
            step.fail('type', kind, 'MMResize, MMNormalize, MMPad, MMRandomFlip, ImageToTensor, Collect, LoadImage…')
    return found


def _read_classes(root: _Section, path: Path | None, num_classes: int) -> tuple[str, ...]:
    dataset = root.section('dataset', {})
    candidates = [('CLASSES', root.get('CLASSES'))] + [
        (source.key('classes'), source.get('classes'))
        for source in (dataset.section(split, {}).section('data_source', {}) for split in ('val', 'train'))
    ]
    key, names = next(((key, names) for key, names in candidates if names), (None, None))
    if key is None:
        root.fail('CLASSES', None, 'a list of class names (or dataset.val.data_source.classes)')
    if isinstance(names, str):
        names = _class_file(root, key, names, path)
    if not isinstance(names, (list, tuple)) or not all(map(_is_text, names)):
        root.fail(key, names, 'a list of class names')
    if len(names) not in (num_classes, num_classes - 1):
        root.fail(
            key,
            f'{len(names)} names',
            f'{num_classes} names for decode_head.num_classes {num_classes}, '
            f'or {num_classes - 1} when the last output is VOID',
        )
    return tuple(names)


def _is_text(value: Any) -> bool:
    """Whether a value is text that can be written: JSON can hold lone surrogates, which cannot."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _class_file(root: _Section, key: str, name: str, path: Path | None) -> list[str]:
    try:
        return read_class_file(name) if path is None else ConfiguredClassFile(path, name).read()
    except (FileNotFoundError, ClassFileError) as error:
        root.fail(
            key, name, f'a list of names, or a text file with one name a line (relative to configuration.json): {error}'
        )


def _read_palette(root: _Section, count: int) -> tuple[tuple[int, int, int], ...] | None:
    palette = root.get('PALETTE')
    if palette is None:
        return None
    good = (
        isinstance(palette, (list, tuple))
        and len(palette) >= count
        and all(
            isinstance(c, (list, tuple)) and len(c) == 3 and all(is_number(x, int) and 0 <= x <= 255 for x in c)
            for c in palette
        )
    )
    if not good:
        root.fail('PALETTE', palette, f'{count} colors [R, G, B] of 0 to 255, one per class')
    return tuple(tuple(color) for color in palette[:count])
