"""Reads a `configuration.json` in EasyCV's ModelScope schema into typed settings; all validation happens here.

Accepted are the published files, what EasyCV's converter wrote (tuples as `{"__class__": "tuple", "__value__": [...]}`)
and what a training run of this package exports. `read_configuration` is the only entrance.
"""
import difflib
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..metainfo import DEAD_PLUGIN, MODEL, PIPELINE, TASK, variant_of
from . import limits
from .class_file import ClassFileError, ConfiguredClassFile, read_class_file

# What the sections of the network may say. Their unknown keys are refused, but for those of the whole model and of the
# test mode, where converters leave more than is needed: a warning names these.
MODEL_KEYS = ('type', 'pretrained', 'backbone', 'decode_head', 'neck', 'train_cfg', 'test_cfg', '__easycv_arch__',
              'init_cfg')
BACKBONE_KEYS = (
    'type', 'in_channels', 'embed_dims', 'num_stages', 'num_layers', 'num_heads', 'patch_sizes', 'strides', 'sr_ratios',
    'out_indices', 'mlp_ratio', 'qkv_bias', 'drop_rate', 'attn_drop_rate', 'drop_path_rate', 'act_cfg', 'norm_cfg',
    'pretrained', 'init_cfg', 'with_cp')
HEAD_KEYS = (
    'type', 'in_channels', 'in_index', 'channels', 'num_classes', 'dropout_ratio', 'conv_cfg', 'norm_cfg', 'act_cfg',
    'align_corners', 'loss_decode', 'ignore_index', 'input_transform', 'interpolate_mode', 'init_cfg', 'sampler',
    'plain_projections')
LOSS_KEYS = ('type', 'use_sigmoid', 'use_mask', 'loss_weight', 'class_weight', 'avg_non_ignore', 'reduction',
             'loss_name')
TEST_KEYS = ('mode', 'crop_size', 'stride')
REPOSITORY = 'easycv'  # of DEAD_PLUGIN, in lower case: the name at the end of its URL
logger = logging.getLogger('ms_segformer')


class ConfigurationError(ValueError):
    """A configuration that cannot be used; the message names the file, the key, what was found and what is accepted."""


@dataclass(frozen=True)
class BackboneSettings:
    """Arguments of `models.mix_transformer.MixVisionTransformer`."""

    in_channels: int = 3
    embed_dims: int = 32
    num_layers: tuple = (2, 2, 2, 2)
    num_heads: tuple = (1, 2, 5, 8)
    patch_sizes: tuple = (7, 3, 3, 3)
    strides: tuple = (4, 2, 2, 2)
    sr_ratios: tuple = (8, 4, 2, 1)
    mlp_ratio: int = 4
    qkv_bias: bool = True
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.1
    layer_norm_eps: float = 1e-6

    @property
    def channels(self):
        """Channels of the four stages."""
        return tuple(self.embed_dims * heads for heads in self.num_heads)


@dataclass(frozen=True)
class LossSettings:
    """Cross entropy of the decode head.

    Attributes:
        avg_non_ignore: False averages over all pixels, ignored ones included, as the published configurations do.
    """

    loss_weight: float = 1.0
    class_weight: tuple | None = None
    avg_non_ignore: bool = False


@dataclass(frozen=True)
class HeadSettings:
    """Arguments of `models.segformer_head.SegformerHead`, and the loss."""

    in_channels: tuple
    channels: int
    num_classes: int
    dropout_ratio: float = 0.1
    align_corners: bool = False
    plain_projections: bool = False
    norm: str = 'BN'
    ignore_index: int = 255
    loss: LossSettings = LossSettings()


@dataclass(frozen=True)
class TestSettings:
    """How an image goes through the network: `whole`, or `slide` in windows of `crop_size` every `stride` pixels."""

    mode: str = 'whole'
    crop_size: tuple | None = None
    stride: tuple | None = None


@dataclass(frozen=True)
class ModelSettings:
    """The network: backbone, head, test mode and the ImageNet weights it starts from when trained from scratch."""

    backbone: BackboneSettings
    head: HeadSettings
    test: TestSettings = TestSettings()
    pretrained: str | None = None

    @property
    def variant(self):
        """`b0` … `b5`, or None for a network of other dimensions."""
        return variant_of(self.backbone.channels, self.backbone.num_layers)

    @property
    def parameters(self) -> int:
        """How many parameters the network has; nothing is built to count them."""
        head, channels = self.head, self.backbone.channels
        projections = sum(channels) * head.channels + 4 * head.channels * (1 if head.plain_projections else 2)
        fusion = 4 * head.channels ** 2 + 2 * head.channels
        return sum(_stage_parameters(self.backbone)) + projections + fusion + (head.channels + 1) * head.num_classes


@dataclass(frozen=True)
class PreprocessSettings:
    """From an RGB image to the network's input.

    Attributes:
        scale: (long side at most, short side), in pixels; or (width, height) without `keep_ratio`.
        keep_ratio: scale both sides alike.
        mean, std: per RGB channel, on the 0–255 scale.
        size_divisor: zeros are added at the bottom and right up to a multiple of this; None for no padding.
    """

    scale: tuple = (2048, 512)
    keep_ratio: bool = True
    mean: tuple = (123.675, 116.28, 103.53)
    std: tuple = (58.395, 57.12, 57.375)
    size_divisor: int | None = None


@dataclass(frozen=True)
class Settings:
    """A whole configuration; `raw` is the file's content with tuples decoded."""

    model: ModelSettings
    preprocess: PreprocessSettings
    classes: tuple
    palette: tuple | None
    raw: dict = field(repr=False)
    source: str = 'configuration'


def _stage_parameters(backbone: BackboneSettings) -> Iterator[int]:
    inputs = backbone.in_channels
    for stage, channels in enumerate(backbone.channels):
        reduction = backbone.sr_ratios[stage]
        attention = 4 * channels ** 2 + channels + (3 * channels if backbone.qkv_bias else 0)
        attention += channels ** 2 * reduction ** 2 + 3 * channels if reduction > 1 else 0
        hidden = backbone.mlp_ratio * channels
        block = attention + 2 * channels * hidden + 11 * hidden + channels + 4 * channels
        yield (inputs * backbone.patch_sizes[stage] ** 2 * channels + 3 * channels
               + backbone.num_layers[stage] * block + 2 * channels)
        inputs = channels


def read_configuration(source):
    """Read and check a configuration.

    Args:
        source: path of a `configuration.json` or of the directory that holds it, or its content as a dict.

    Returns:
        `Settings`.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigurationError: it is not JSON, a section is missing, or a value is not accepted.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        path = path / 'configuration.json' if path.is_dir() else path
        if not path.exists():
            raise FileNotFoundError(f'{path}: no such file; a model directory needs its configuration.json')
        raw, name = load_json(path), str(path)
    else:
        raw, name = decode_jsonplus(plain(source, 'configuration')), 'configuration'
        path = None
    check_pipeline(raw, name)
    root = _Section(raw, name, '')
    root.one_of('task', (TASK,), default=TASK)
    root.one_of('framework', ('pytorch',), default='pytorch')
    model = _read_model(root.section('model'))
    classes = _read_classes(root, path, model.head.num_classes)
    return Settings(model, _read_preprocess(root, model.test), classes, _read_palette(root, len(classes)), raw, name)


def read_model_section(section, name='configuration'):
    """Read the `model` section of a configuration alone into `ModelSettings`."""
    return _read_model(_Section(decode_jsonplus(plain(section, name, 'model')), name, 'model'))


def check_pipeline(configuration: Any, name: str) -> None:
    """Refuse a SegFormer of EasyCV's whose pipeline is another: ModelScope would run pip for the plugin it names.

    Args:
        configuration: the content of any configuration, SegFormer's or not.
        name: of its file, for the message.

    Raises:
        ConfigurationError: the model is SegFormer, the plugin is EasyCV's, and the pipeline is missing or not EasyCV's.
    """
    if type_in(configuration, 'model') != MODEL or type_in(configuration, 'pipeline') == PIPELINE:
        return
    if any(map(is_dead_plugin, plugins_of(configuration))):
        raise ConfigurationError(
            f'{name}: pipeline.type is {shown(type_in(configuration, "pipeline"))}; accepted: {PIPELINE!r}, the '
            f'pipeline of a SegFormer with the plugin {DEAD_PLUGIN}. ModelScope would now run pip for that plugin, '
            'which can no longer be installed. Correct the type, or remove "plugins" if the pipeline is not of EasyCV')


def type_in(configuration: Any, section: str) -> Any:
    """The `type` that a section of a configuration (a dict or ModelScope's `Config`) names; None without one."""
    # Through the plain dict, so that reading another model's configuration runs no code of ModelScope's that it
    # would not have run without us.
    content = configuration if isinstance(configuration, dict) else getattr(configuration, '_cfg_dict', None)
    section = dict.get(content, section) if isinstance(content, dict) else None
    return dict.get(section, 'type') if isinstance(section, dict) else None


def plugins_of(configuration: Any) -> list[str]:
    """The requirements that a configuration names in `plugins`: one, a list, or the keys of a dict."""
    plugins = configuration.get('plugins') or ()
    plugins = [plugins] if isinstance(plugins, str) else plugins
    return [str(name) for name in plugins] if isinstance(plugins, (list, tuple, dict)) else []


def is_dead_plugin(requirement: str) -> bool:
    """Whether a requirement is pai-easycv: by name, by URL, or the path of a wheel (users' own repair of a file)."""
    text = requirement.strip().replace('\\', '/')
    named = re.match(r'([\w.-]+)\s*(\[[^]]*\])?\s*@', text) or re.search(r'#(?:.*&)?egg=([\w.-]+)', text)
    address = re.split(r'[?#]', text)[0].rstrip('/')
    last = re.split(r'(?<=.)@', address.rpartition('/')[2])[0]  # `EasyCV.git@v0.11.7`
    name = named[1] if named else re.sub(r'\.(git|whl|zip|tar\.gz)$', '', last, flags=re.IGNORECASE)
    name = re.sub(r'[-_.]+', '-', name).lower()  # as PEP 503 compares names
    if '/' in address and not named and name == REPOSITORY:
        return True
    return name.startswith(DEAD_PLUGIN) and not name[len(DEAD_PLUGIN):].lstrip('-')[:1].isalpha()


def decode_jsonplus(value):
    """Turn the JSON form of tuples, `{"__class__": "tuple", "__value__": [...]}`, back into tuples, at any depth."""
    if isinstance(value, dict):
        if value.get('__class__') == 'tuple' and isinstance(value.get('__value__'), (list, tuple)):
            return tuple(decode_jsonplus(item) for item in value['__value__'])
        return {key: decode_jsonplus(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(decode_jsonplus(item) for item in value)
    return value


def encode_jsonplus(value):
    """The inverse of `decode_jsonplus`."""
    if isinstance(value, dict):
        return {key: encode_jsonplus(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {'__class__': 'tuple', '__value__': [encode_jsonplus(item) for item in value]}
    if isinstance(value, list):
        return [encode_jsonplus(item) for item in value]
    return value


class _Section:
    """A mapping that knows its place in the file, so that every complaint can name it."""

    def __init__(self, values, name, path):
        self.values, self.name, self.path = values, name, path
        if not isinstance(values, dict):
            raise ConfigurationError(f'{name}: {path or "the file"} must be a mapping, found {shown(values)}')

    def fail(self, key, found, accepted):
        raise ConfigurationError(f'{self.name}: {self._key(key)} is {shown(found)}; accepted: {accepted}')

    def _key(self, key):
        return f'{self.path}.{key}' if self.path else key

    def __contains__(self, key):
        return self.values.get(key) is not None

    def section(self, key, default=None):
        if key not in self and default is None:
            have = shown(', '.join(sorted(self.values)) or 'nothing', quoted=False)
            raise ConfigurationError(f'{self.name}: the section {self._key(key)} is missing (found only: {have})')
        return _Section(self.get(key, default), self.name, self._key(key))

    def get(self, key, default=None):
        value = self.values.get(key)
        return default if value is None else value

    def only(self, *accepted):
        for key in self.values:
            if key not in accepted:
                raise ConfigurationError(f'{self.name}: unknown key {shown(self._key(key), quoted=False)}'
                                         f'{nearest(key, accepted)}; accepted: {", ".join(sorted(accepted))}')

    def known(self, *accepted):
        for key in self.values:
            if key not in accepted:
                warn_once(f'{self.name}: {shown(self._key(key), quoted=False)} is not read{nearest(key, accepted)}')

    def one_of(self, key, accepted, default=None):
        value = self.get(key, default)
        if not any(type(value) is type(one) and value == one for one in accepted):
            self.fail(key, value, ' or '.join(map(repr, accepted)))
        return value

    def exactly(self, key, accepted):
        """A list that can be no other; missing is the same."""
        value = self.get(key, accepted)
        if not isinstance(value, (list, tuple)) or tuple(value) != accepted:
            self.fail(key, value, f'{list(accepted)}')

    def number(self, key, default, low, high, kind=float):
        value = self.get(key, default)
        if not is_number(value, kind) or not low <= value <= high:
            self.fail(key, value, f'{"an integer" if kind is int else "a number"} from {low} to {high}')
        return value

    def flag(self, key, default):
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, value, 'true or false')
        return value

    def numbers(self, key, default, length, low, high, kind=int):
        value = self.get(key, default)
        if not isinstance(value, (list, tuple)) or len(value) != length or not all(
                is_number(x, kind) and low <= x <= high for x in value):
            self.fail(key, value, f'{length} {"integers" if kind is int else "numbers"} from {low} to {high}')
        return tuple(value)


def is_number(value: Any, kind: type) -> bool:
    """Whether a value is an integer, or for `float` any number but NaN, which no comparison would refuse."""
    accepted = int if kind is int else (int, float)
    return isinstance(value, accepted) and not isinstance(value, bool) and value == value


def nearest(key: str, accepted: Iterable[str]) -> str:
    """` (did you mean …?)` with the accepted key that is most like a mistyped one; '' where none is."""
    found = difflib.get_close_matches(key, accepted, n=1)
    return f' (did you mean {found[0]}?)' if found else ''


@lru_cache(maxsize=1024)
def warn_once(message: str) -> None:
    """Log a warning the first time it is given."""
    logger.warning('%s', message)


def _read_model(model):
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
            f'{backbone.embed_dims}, decode_head.channels {head.channels}); accepted: up to {limits.PARAMETERS:,}')
    return settings


def _read_backbone(section):
    section.only(*BACKBONE_KEYS)
    section.one_of('type', ('MixVisionTransformer',))
    section.one_of('num_stages', (4,), 4)
    section.exactly('out_indices', (0, 1, 2, 3))
    section.section('act_cfg', {}).one_of('type', ('GELU',), 'GELU')
    norm = section.section('norm_cfg', {})
    norm.one_of('type', ('LN',), 'LN')
    defaults = BackboneSettings()
    largest = {'num_layers': limits.BLOCKS, 'num_heads': limits.HEADS, 'patch_sizes': limits.PATCH,
               'strides': limits.STRIDE, 'sr_ratios': limits.REDUCTION[1]}
    lists = {key: section.numbers(key, getattr(defaults, key), 4, 1, high) for key, high in largest.items()}
    _check_stages(section, **lists)
    rates = {key: section.number(key, getattr(defaults, key), 0, 1)
             for key in ('drop_rate', 'attn_drop_rate', 'drop_path_rate')}
    return BackboneSettings(
        in_channels=section.number('in_channels', 3, 3, 3, int),
        embed_dims=section.number('embed_dims', None, 1, limits.PARAMETERS, int),
        mlp_ratio=section.number('mlp_ratio', 4, 1, limits.HIDDEN_RATIO, int),
        qkv_bias=section.flag('qkv_bias', True),
        layer_norm_eps=norm.number('eps', defaults.layer_norm_eps, 0, 1), **lists, **rates)


def _check_stages(section: _Section, num_layers: tuple, strides: tuple, sr_ratios: tuple, **_: tuple) -> None:
    if sum(num_layers) > limits.BLOCKS:
        section.fail('num_layers', list(num_layers), f'up to {limits.BLOCKS} blocks in all')
    low, high = limits.REDUCTION
    for stage in range(4):
        stride = math.prod(strides[:stage + 1])
        reach = stride * sr_ratios[stage]
        if reach < low or (sr_ratios[stage] > 1 and reach > high):
            section.fail('sr_ratios', list(sr_ratios), f'from {-(-low // stride)} to {max(1, high // stride)} in stage '
                         f'{stage}, whose strides make {stride}: each key of its attention then stands for {low} to '
                         f'{high} pixels')


def _read_head(section, backbone):
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
        dropout_ratio=section.number('dropout_ratio', 0.1, 0, 1),
        align_corners=section.flag('align_corners', False),
        plain_projections=section.flag('plain_projections', False),
        norm=norm.one_of('type', ('BN', 'SyncBN', 'BN2d'), 'BN').replace('2d', ''),
        ignore_index=section.number('ignore_index', 255, 0, 255, int),
        loss=_read_loss(section))


def _read_loss(head):
    section = head.section('loss_decode', {})
    section.only(*LOSS_KEYS)
    section.one_of('type', ('CrossEntropyLoss',), 'CrossEntropyLoss')
    for key in ('use_sigmoid', 'use_mask'):
        section.one_of(key, (False,), False)
    section.one_of('reduction', ('mean',), 'mean')
    weights = section.get('class_weight')
    if weights is not None:
        weights = section.numbers('class_weight', None, head.get('num_classes'), 0, limits.LOSS_WEIGHT, float)
    return LossSettings(section.number('loss_weight', 1.0, 0, limits.LOSS_WEIGHT), weights,
                        section.flag('avg_non_ignore', False))


def _read_test(section):
    section.known(*TEST_KEYS)
    mode = section.one_of('mode', ('whole', 'slide'), 'whole')
    if mode == 'whole':
        return TestSettings()
    crop = section.numbers('crop_size', None, 2, limits.SMALLEST_SIDE, limits.WHOLE_PIXELS // limits.SMALLEST_SIDE)
    if math.prod(crop) > limits.WHOLE_PIXELS:
        section.fail('crop_size', list(crop), f'windows of up to {limits.WHOLE_PIXELS:,} pixels')
    stride = section.numbers('stride', None, 2, 1, limits.WHOLE_PIXELS)
    if stride[0] > crop[0] or stride[1] > crop[1]:
        section.fail('stride', list(stride), f'at most crop_size {list(crop)}: larger steps would leave gaps')
    least = [-(-size // limits.OVERLAP) for size in crop]
    if stride[0] < least[0] or stride[1] < least[1]:
        section.fail('stride', list(stride), f'at least {least}: 1/{limits.OVERLAP} of crop_size {list(crop)}')
    return TestSettings(mode, crop, stride)


def _read_preprocess(root, test):
    """The test-time pipeline: `test_pipeline` when present, else `dataset.val.pipeline`."""
    if 'test_pipeline' in root:
        steps, path = root.get('test_pipeline'), 'test_pipeline'
    else:
        steps, path = root.section('dataset').section('val').get('pipeline'), 'dataset.val.pipeline'
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
    keep_ratio = found.get('keep_ratio', True)
    return PreprocessSettings((max(size), min(size)) if keep_ratio else size, keep_ratio, found['mean'], found['std'],
                              divisor)


def _listed(root: _Section, path: str, steps: Any) -> list[_Section]:
    """The transforms of a pipeline."""
    if not isinstance(steps, (list, tuple)) or not steps:
        root.fail(path, steps, 'a list of transforms')
    return [_Section(step, root.name, f'{path}[{index}]') for index, step in enumerate(steps)]


def _steps(steps):
    found = {}
    for step in steps:
        kind = step.get('type')
        if kind == 'MMResize':
            found['keep_ratio'] = step.flag('keep_ratio', True)
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
        elif kind not in ('MMRandomFlip', 'ImageToTensor', 'Collect', 'DefaultFormatBundle', 'LoadImage', 'LoadImages',
                          'LoadImageFromFile', 'ToTensor'):
            step.fail('type', kind, 'MMResize, MMNormalize, MMPad, MMRandomFlip, ImageToTensor, Collect, LoadImage…')
    return found


def _read_classes(root, path, num_classes):
    dataset = root.section('dataset', {})
    candidates = [('CLASSES', root.get('CLASSES'))] + [
        (source._key('classes'), source.get('classes')) for source in
        (dataset.section(split, {}).section('data_source', {}) for split in ('val', 'train'))]
    key, names = next(((key, names) for key, names in candidates if names), (None, None))
    if key is None:
        root.fail('CLASSES', None, 'a list of class names (or dataset.val.data_source.classes)')
    if isinstance(names, str):
        names = _class_file(root, key, names, path)
    if not isinstance(names, (list, tuple)) or not all(map(_is_text, names)):
        root.fail(key, names, 'a list of class names')
    if len(names) not in (num_classes, num_classes - 1):
        root.fail(key, f'{len(names)} names', f'{num_classes} names for decode_head.num_classes {num_classes}, '
                  f'or {num_classes - 1} when the last output is VOID')
    return tuple(names)


def _is_text(value: Any) -> bool:
    """Whether a value is text that can be written: JSON can hold lone surrogates, which cannot."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _class_file(root, key, name, path):
    try:
        return read_class_file(name) if path is None else ConfiguredClassFile(path, name).read()
    except (FileNotFoundError, ClassFileError) as error:
        root.fail(key, name, 'a list of names, or a text file with one name a line (relative to configuration.json): '
                  f'{error}')


def _read_palette(root, count):
    palette = root.get('PALETTE')
    if palette is None:
        return None
    good = isinstance(palette, (list, tuple)) and len(palette) >= count and all(
        isinstance(c, (list, tuple)) and len(c) == 3 and all(is_number(x, int) and 0 <= x <= 255 for x in c)
        for c in palette)
    if not good:
        root.fail('PALETTE', palette, f'{count} colours [R, G, B] of 0 to 255, one per class')
    return tuple(tuple(colour) for colour in palette[:count])


def load_json(path: Path) -> dict:
    """The content of a configuration file, with tuples decoded."""
    try:
        with open(path, 'rb') as file:
            text = file.read(limits.CONFIGURATION_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f'{path} cannot be read ({error.strerror})') from None
    if len(text) > limits.CONFIGURATION_BYTES:
        raise ConfigurationError(f'{path} has more than {limits.CONFIGURATION_BYTES:,} bytes, which no configuration '
                                 'has')
    try:
        text = text.decode()
        if text.startswith('\ufeff'):
            raise ValueError('it begins with a byte order mark; save it as UTF-8 without one')
        content = json.loads(text, object_pairs_hook=_mapping, parse_constant=_refuse_constant)
    except RecursionError:
        raise ConfigurationError(f'{path}: {_TOO_DEEP}') from None
    except ConfigurationError as error:
        raise ConfigurationError(f'{path}: {error}') from None
    except ValueError as error:  # not JSON, not UTF-8, a number of thousands of digits
        raise ConfigurationError(f'{path}: not a JSON file ({error})') from None
    if not isinstance(content, dict):
        raise ConfigurationError(f'{path}: the file must be a mapping, found {shown(content)}')
    return decode_jsonplus(plain(content, str(path)))


def _mapping(pairs: list[tuple[str, Any]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ConfigurationError(f'the key {shown(double)} stands twice in one mapping; leave one of them')
    # ModelScope would make objects of some other classes, and fail with most.
    if '__class__' in content and not (content['__class__'] == 'tuple' and isinstance(content.get('__value__'), list)):
        raise ConfigurationError(f'{shown(content)} stands for an object; accepted are tuples, {{"__class__": "tuple", '
                                 '"__value__": […]}')
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is no number in JSON')


_TOO_DEEP = f'mappings and lists in one another are more than {limits.DEPTH} deep; accepted: up to {limits.DEPTH}'


def plain(value: Any, name: str, path: str = '', depth: int = 0) -> Any:
    """ModelScope's ConfigDict and friends to plain dicts and lists, whose keys are text and whose depth is limited."""
    if depth > limits.DEPTH:
        raise ConfigurationError(f'{name}: {_TOO_DEEP}')
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ConfigurationError(f'{name}: the key {shown(key)}{path and f" in {path}"}; accepted: keys that '
                                         'are text')
        return {key: plain(item, name, f'{path}.{key}' if path else key, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([plain(item, name, f'{path}[{i}]', depth + 1) for i, item in enumerate(value)])
    return value


def shown(value: Any, quoted: bool = True) -> str:
    """A value as it may stand in a message: on one line and not long."""
    if value is None:
        return 'missing'
    try:
        text = value if isinstance(value, str) and not quoted and value.isprintable() else repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f'a {type(value).__name__} too large to be shown'
    return text if len(text) <= 120 else text[:117] + '…'
