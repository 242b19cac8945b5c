"""Reads a `configuration.json` in EasyCV's ModelScope schema into typed settings; all validation happens here.

Accepted are the published files, what EasyCV's converter wrote (tuples as `{"__class__": "tuple", "__value__": [...]}`)
and what a training run of this package exports. `read_configuration` is the only entrance.
"""
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .class_file import ClassFileError, ConfiguredClassFile, read_class_file
from .metainfo import DEAD_PLUGIN, MODEL, PIPELINE, TASK, variant_of

REPOSITORY = 'easycv'  # of DEAD_PLUGIN, in lower case: the name at the end of its URL


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
        raw, name = _load_json(path), str(path)
    else:
        raw, name = decode_jsonplus(_plain(source)), 'configuration'
        path = None
    check_pipeline(raw, name)
    root = _Section(raw, name, '')
    root.one_of('task', (TASK,), default=TASK)
    model = _read_model(root.section('model'))
    classes = _read_classes(root, path, model.head.num_classes)
    return Settings(model, _read_preprocess(root), classes, _read_palette(root, len(classes)), raw, name)


def read_model_section(section, name='configuration'):
    """Read the `model` section of a configuration alone into `ModelSettings`."""
    return _read_model(_Section(decode_jsonplus(_plain(section)), name, 'model'))


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
            f'{name}: pipeline.type is {_short(type_in(configuration, "pipeline"))}; accepted: {PIPELINE!r}, the '
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
            raise ConfigurationError(f'{name}: {path or "the file"} must be a mapping, found {_short(values)}')

    def fail(self, key, found, accepted):
        raise ConfigurationError(f'{self.name}: {self._key(key)} is {_short(found)}; accepted: {accepted}')

    def _key(self, key):
        return f'{self.path}.{key}' if self.path else key

    def __contains__(self, key):
        return self.values.get(key) is not None

    def section(self, key):
        if key not in self:
            have = ', '.join(sorted(self.values)) or 'nothing'
            raise ConfigurationError(f'{self.name}: the section {self._key(key)} is missing (found only: {have})')
        return _Section(self.values[key], self.name, self._key(key))

    def get(self, key, default=None):
        value = self.values.get(key)
        return default if value is None else value

    def only(self, *accepted):
        for key in self.values:
            if key not in accepted:
                raise ConfigurationError(
                    f'{self.name}: unknown key {self._key(key)}; accepted: {", ".join(sorted(accepted))}')

    def one_of(self, key, accepted, default=None):
        value = self.get(key, default)
        if value not in accepted:
            self.fail(key, value, ' or '.join(map(repr, accepted)))
        return value

    def number(self, key, default, low=None, high=None, kind=float):
        value = self.get(key, default)
        good = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if value is None or not good or (low is not None and value < low) or (high is not None and value > high):
            span = f'{"-∞" if low is None else low} to {"∞" if high is None else high}'
            self.fail(key, value, f'{"an integer" if kind is int else "a number"} from {span}')
        return value

    def flag(self, key, default):
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, value, 'true or false')
        return value

    def numbers(self, key, default, length, low=1, kind=int):
        value = self.get(key, default)
        good = isinstance(value, (list, tuple)) and len(value) == length and all(
            isinstance(x, int if kind is int else (int, float)) and not isinstance(x, bool) and x >= low
            for x in value)
        if not good:
            what = 'integers' if kind is int else 'numbers'
            self.fail(key, value, f'{length} {what} of at least {low}')
        return tuple(value)


def _read_model(model):
    model.one_of('type', (MODEL,))
    arch = model.get('__easycv_arch__', {})
    if isinstance(arch, dict) and arch.get('type', 'EncoderDecoder') not in ('EncoderDecoder', 'MsSegformer'):
        model.fail('__easycv_arch__.type', arch['type'], "'EncoderDecoder' or 'MsSegformer'")
    backbone = _read_backbone(model.section('backbone'))
    head = _read_head(model.section('decode_head'), backbone)
    test = _read_test(_Section(model.get('test_cfg', {}), model.name, f'{model.path}.test_cfg'))
    pretrained = model.get('pretrained')
    if not isinstance(pretrained, (str, bool, type(None))):
        model.fail('pretrained', pretrained, 'a URL, a path, false or null')
    return ModelSettings(backbone, head, test, pretrained if isinstance(pretrained, str) else None)


def _read_backbone(section):
    section.only('type', 'in_channels', 'embed_dims', 'num_stages', 'num_layers', 'num_heads', 'patch_sizes', 'strides',
                 'sr_ratios', 'out_indices', 'mlp_ratio', 'qkv_bias', 'drop_rate', 'attn_drop_rate', 'drop_path_rate',
                 'act_cfg', 'norm_cfg', 'pretrained', 'init_cfg', 'with_cp')
    section.one_of('type', ('MixVisionTransformer',))
    if section.get('num_stages', 4) != 4:
        section.fail('num_stages', section.get('num_stages'), '4')
    if tuple(section.get('out_indices', (0, 1, 2, 3))) != (0, 1, 2, 3):
        section.fail('out_indices', section.get('out_indices'), '(0, 1, 2, 3)')
    norm = _Section(section.get('norm_cfg', {}), section.name, f'{section.path}.norm_cfg')
    norm.one_of('type', ('LN',), 'LN')
    activation = section.get('act_cfg', {})
    if activation and activation.get('type', 'GELU') != 'GELU':
        section.fail('act_cfg', activation, "{'type': 'GELU'}")
    defaults = BackboneSettings()
    lists = {key: section.numbers(key, getattr(defaults, key), 4)
             for key in ('num_layers', 'num_heads', 'patch_sizes', 'strides', 'sr_ratios')}
    rates = {key: section.number(key, getattr(defaults, key), 0, 1)
             for key in ('drop_rate', 'attn_drop_rate', 'drop_path_rate')}
    return BackboneSettings(
        in_channels=section.number('in_channels', 3, 3, 3, int),
        embed_dims=section.number('embed_dims', None, 1, kind=int),
        mlp_ratio=section.number('mlp_ratio', 4, 1, kind=int),
        qkv_bias=section.flag('qkv_bias', True),
        layer_norm_eps=norm.number('eps', defaults.layer_norm_eps, 0, 1), **lists, **rates)


def _read_head(section, backbone):
    section.only('type', 'in_channels', 'in_index', 'channels', 'num_classes', 'dropout_ratio', 'conv_cfg', 'norm_cfg',
                 'act_cfg', 'align_corners', 'loss_decode', 'ignore_index', 'input_transform', 'interpolate_mode',
                 'init_cfg', 'sampler', 'plain_projections')
    section.one_of('type', ('SegformerHead',))
    in_channels = section.numbers('in_channels', backbone.channels, 4)
    if in_channels != backbone.channels:
        section.fail('in_channels', list(in_channels), f'{list(backbone.channels)}, the channels of the backbone')
    if tuple(section.get('in_index', (0, 1, 2, 3))) != (0, 1, 2, 3):
        section.fail('in_index', section.get('in_index'), '(0, 1, 2, 3)')
    if section.get('interpolate_mode', 'bilinear') != 'bilinear':
        section.fail('interpolate_mode', section.get('interpolate_mode'), "'bilinear'")
    if section.get('sampler') is not None:
        section.fail('sampler', section.get('sampler'), 'null (pixel samplers are not supported)')
    norm = _Section(section.get('norm_cfg', {'type': 'BN'}), section.name, f'{section.path}.norm_cfg')
    return HeadSettings(
        in_channels=in_channels,
        channels=section.number('channels', None, 1, kind=int),
        num_classes=section.number('num_classes', None, 1, 255, int),
        dropout_ratio=section.number('dropout_ratio', 0.1, 0, 1),
        align_corners=section.flag('align_corners', False),
        plain_projections=section.flag('plain_projections', False),
        norm=norm.one_of('type', ('BN', 'SyncBN', 'BN2d'), 'BN').replace('2d', ''),
        ignore_index=section.number('ignore_index', 255, 0, 255, int),
        loss=_read_loss(section))


def _read_loss(head):
    section = _Section(head.get('loss_decode', {'type': 'CrossEntropyLoss'}), head.name, f'{head.path}.loss_decode')
    section.one_of('type', ('CrossEntropyLoss',))
    if section.get('use_sigmoid', False) or section.get('use_mask', False):
        section.fail('use_sigmoid', True, 'false (softmax cross entropy)')
    weights = section.get('class_weight')
    if weights is not None:
        weights = section.numbers('class_weight', None, head.get('num_classes'), low=0, kind=float)
    return LossSettings(section.number('loss_weight', 1.0, 0), weights, section.flag('avg_non_ignore', False))


def _read_test(section):
    mode = section.one_of('mode', ('whole', 'slide'), 'whole')
    if mode == 'whole':
        return TestSettings()
    crop = section.numbers('crop_size', None, 2)
    stride = section.numbers('stride', None, 2)
    if stride[0] > crop[0] or stride[1] > crop[1]:
        section.fail('stride', list(stride), f'at most crop_size {list(crop)}: larger steps would leave gaps')
    return TestSettings(mode, crop, stride)


def _read_preprocess(root):
    """The test-time pipeline: `test_pipeline` when present, else `dataset.val.pipeline`."""
    if 'test_pipeline' in root:
        steps, path = root.get('test_pipeline'), 'test_pipeline'
    else:
        steps, path = root.section('dataset').section('val').get('pipeline'), 'dataset.val.pipeline'
    if not isinstance(steps, (list, tuple)) or not steps:
        root.fail(path, steps, 'a list of transforms')
    found = {}
    for index, step in enumerate(steps):
        step = _Section(step, root.name, f'{path}[{index}]')
        if step.get('type') == 'MMMultiScaleFlipAug':
            found['scale'] = step.get('img_scale')
            inner = step.get('transforms', ())
            found.update(_steps(_Section(s, root.name, f'{step.path}.transforms[{i}]') for i, s in enumerate(inner)))
        else:
            found.update(_steps([step]))
    scale = found.get('scale')
    if isinstance(scale, (list, tuple)) and len(scale) == 1:
        scale = scale[0]
    size = _Section({'img_scale': scale}, root.name, path).numbers('img_scale', None, 2)
    if 'mean' not in found:
        root.fail(path, [s.get('type') for s in steps], 'a pipeline with MMNormalize (the network needs its mean, std)')
    keep_ratio = found.get('keep_ratio', True)
    return PreprocessSettings((max(size), min(size)) if keep_ratio else size, keep_ratio, found['mean'], found['std'],
                              found.get('size_divisor'))


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
            found['mean'] = step.numbers('mean', None, 3, low=0, kind=float)
            found['std'] = step.numbers('std', None, 3, low=1e-6, kind=float)
        elif kind == 'MMPad':
            if 'size_divisor' not in step:
                step.fail('size_divisor', None, 'an integer (a fixed size cannot hold every image)')
            found['size_divisor'] = step.number('size_divisor', None, 1, kind=int)
        elif kind not in ('MMRandomFlip', 'ImageToTensor', 'Collect', 'DefaultFormatBundle', 'LoadImage', 'LoadImages',
                          'LoadImageFromFile', 'ToTensor'):
            step.fail('type', kind, 'MMResize, MMNormalize, MMPad, MMRandomFlip, ImageToTensor, Collect, LoadImage…')
    return found


def _read_classes(root, path, num_classes):
    dataset = root.get('dataset', {})
    candidates = [('CLASSES', root.get('CLASSES'))] + [
        (f'dataset.{split}.data_source.classes', ((dataset.get(split) or {}).get('data_source') or {}).get('classes'))
        for split in ('val', 'train')]
    key, names = next(((key, names) for key, names in candidates if names), (None, None))
    if key is None:
        root.fail('CLASSES', None, 'a list of class names (or dataset.val.data_source.classes)')
    if isinstance(names, str):
        names = _class_file(root, key, names, path)
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        root.fail(key, names, 'a list of class names')
    if len(names) not in (num_classes, num_classes - 1):
        root.fail(key, f'{len(names)} names', f'{num_classes} names for decode_head.num_classes {num_classes}, '
                  f'or {num_classes - 1} when the last output is VOID')
    return tuple(names)


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
        isinstance(c, (list, tuple)) and len(c) == 3 and all(isinstance(x, int) and 0 <= x <= 255 for x in c)
        for c in palette)
    if not good:
        root.fail('PALETTE', palette, f'{count} colours [R, G, B] of 0 to 255, one per class')
    return tuple(tuple(colour) for colour in palette[:count])


def _load_json(path):
    try:
        return decode_jsonplus(json.loads(path.read_text(encoding='utf-8')))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f'{path}: not a JSON file ({error})') from None


def _plain(value):
    """ModelScope's ConfigDict and friends to plain dicts and lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def _short(value: Any):
    text = 'missing' if value is None else repr(value)
    return text if len(text) <= 120 else text[:117] + '…'
