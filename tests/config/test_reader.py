"""Configurations: the bundled ones, the original converter's, and every way to get one wrong."""

import json
import re

import pytest

from ms_segformer.config.jsonplus import decode_jsonplus, encode_jsonplus, load_json
from ms_segformer.config.messages import ConfigurationError
from ms_segformer.config.reader import read_configuration
from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.metainfo import VARIANTS, configuration_dir, variant_of_hub_id


@pytest.mark.parametrize('variant', VARIANTS.values(), ids=VARIANTS)
def test_bundled_configurations_describe_their_variant(variant):
    folder = configuration_dir() / variant.model_name
    settings = read_configuration(folder)
    assert settings.model.variant == variant.name
    assert settings.model.head.channels == variant.head_channels
    assert settings.model.head.num_classes == 172
    assert settings.classes == CLASSES
    assert settings.preprocess.scale == (2048, variant.short_side)
    assert settings.preprocess.size_divisor == 32
    assert load_json(folder / 'configuration.json')['plugins'] == ['pai-easycv']
    assert [variant_of_hub_id(i) for i in variant.hub_ids] == [variant, variant]


@pytest.mark.parametrize('name', [f'b{i}' for i in range(6)] + ['b0.as_converted_syncbn'])
def test_what_the_originals_converter_writes_is_read(oracle, name):
    settings = read_configuration(oracle / 'configuration' / f'{name}.json')
    assert settings.model.variant == name[:2]
    assert settings.preprocess.size_divisor is None


def test_what_the_originals_trainer_exports_is_read(oracle):
    settings = read_configuration(oracle / 'train' / 'output_configuration.json')
    assert settings.model.variant == 'b0' and settings.preprocess.scale == (512, 128)


def test_tuples_survive_a_round_trip():
    value = {'a': (1, [2, (3,)]), 'b': {'c': ()}}
    assert decode_jsonplus(json.loads(json.dumps(encode_jsonplus(value)))) == value


@pytest.mark.parametrize('variant', VARIANTS.values(), ids=VARIANTS)
def test_parameters_are_counted_without_building_the_network(variant):
    assert read_configuration(configuration_dir() / variant.model_name).model.parameters == variant.parameters


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'qkv_bias': False, 'sr_ratios': [1, 4, 1, 1], 'strides': [8, 1, 2, 2], 'num_layers': [1, 2, 3, 4]},
        {'mlp_ratio': 3, 'patch_sizes': [5, 4, 3, 1], 'num_heads': [2, 2, 4, 4]},
    ],
)
@pytest.mark.parametrize('plain', [False, True])
def test_the_count_is_that_of_the_network(raw, changes, plain):
    from ms_segformer.models.segformer import Segformer

    raw['model']['backbone'].update(changes)
    raw['model']['decode_head'].pop('in_channels')
    raw['model']['decode_head']['plain_projections'] = plain
    model = Segformer(**raw['model'])
    assert model.settings.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_network_too_large_is_refused_before_it_is_built(raw):
    raw['model']['backbone']['embed_dims'] = 20_000
    raw['model']['decode_head'].pop('in_channels')
    with pytest.raises(ConfigurationError, match=r'embed_dims is 20000.*accepted: up to 200,000,000'):
        read_configuration(raw)


def test_what_padding_adds_counts(raw):
    raw['dataset']['val']['pipeline'][0]['img_scale'] = [20_000, 10]
    read_configuration(raw)
    raw['dataset']['val']['pipeline'][0]['transforms'].append({'type': 'MMPad', 'size_divisor': 1024})
    with pytest.raises(ConfigurationError, match=r'up to 16,777,216 pixels \(padded to multiples of 1024\)'):
        read_configuration(raw)


def test_an_image_may_be_larger_where_it_goes_through_in_windows(raw):
    raw['dataset']['val']['pipeline'][0]['img_scale'] = [8192, 8192]
    raw['model']['test_cfg'] = {'mode': 'slide', 'crop_size': [512, 512], 'stride': [341, 341]}
    assert read_configuration(raw).preprocess.scale == (8192, 8192)


@pytest.fixture
def raw(tiny_model_dir):
    return load_json(tiny_model_dir / 'configuration.json')


def put(raw, path, value):
    *parents, last = path.split('.')
    for key in parents:
        raw = raw[int(key) if isinstance(raw, list) else key]
    last = int(last) if isinstance(raw, list) else last
    if value is ...:
        del raw[last]
    else:
        raw[last] = value


WRONG = [
    ('model.type', 'Mask2Former', ["model.type is 'Mask2Former'", "'Segformer'"]),
    ('model', ..., ['model.type is missing']),
    ('model.backbone', ..., ['section model.backbone is missing']),
    ('model.backbone.type', 'ResNet', ['model.backbone.type', "'MixVisionTransformer'"]),
    ('model.backbone.embed_dims', 0, ['model.backbone.embed_dims is 0', 'an integer from 1']),
    ('model.backbone.embed_dims', '32', ["'32'", 'an integer']),
    ('model.backbone.embed_dims', ..., ['model.backbone.embed_dims is missing']),
    ('model.backbone.num_layers', [2, 2, 2], ['model.backbone.num_layers is [2, 2, 2]', '4 integers']),
    ('model.backbone.drop_path_rate', 1.5, ['drop_path_rate is 1.5', 'from 0 to 1']),
    ('model.backbone.embed_dim', 32, ['unknown key model.backbone.embed_dim', 'embed_dims']),
    ('model.decode_head.num_classes', 0, ['num_classes is 0', 'from 1 to 255']),
    ('model.decode_head.num_classes', 150, ['171 names', '150 names for decode_head.num_classes 150']),
    ('model.decode_head.in_channels', [1, 2, 3, 4], ['in_channels', 'the channels of the backbone']),
    ('model.decode_head.align_corners', 'no', ['align_corners', 'true or false']),
    ('model.decode_head.norm_cfg', {'type': 'GN'}, ['norm_cfg.type', "'BN'"]),
    ('model.decode_head.loss_decode', {'type': 'DiceLoss'}, ['loss_decode.type', "'CrossEntropyLoss'"]),
    ('model.test_cfg', {'mode': 'tile'}, ['test_cfg.mode', "'slide'"]),
    ('model.test_cfg', {'mode': 'slide', 'crop_size': [64, 64], 'stride': [80, 80]}, ['stride', 'gaps']),
    ('model.__easycv_arch__', {'type': 'Detector'}, ['__easycv_arch__', 'EncoderDecoder']),
    ('dataset', ..., ['section dataset is missing']),
    ('dataset.val.pipeline', [], ['dataset.val.pipeline', 'a list of transforms']),
    ('dataset.val.pipeline', [{'type': 'MMNormalise'}], ["'MMNormalise'", 'MMNormalize']),
    ('task', 'image-classification', ['task', "'image-segmentation'"]),
    ('framework', 'tensorflow', ['framework', "'pytorch'"]),
    ('CLASSES', 'classes.txt', ['classes.txt', 'one name a line']),
    ('CLASSES', [1, 2], ['CLASSES', 'a list of class names']),
    ('PALETTE', [[0, 0, 300]] * 171, ['PALETTE', '0 to 255']),
    ('model.decode_head.channels', 100_000, ['decode_head.channels 100000', 'up to 200,000,000']),
    ('model.backbone.num_layers', [2, 2, 10**6, 2], ['num_layers', 'from 1 to 128']),
    ('model.backbone.num_layers', [32, 32, 33, 32], ['num_layers', 'up to 128 blocks in all']),
    ('model.backbone.sr_ratios', [16, 4, 2, 1], ['sr_ratios', 'from 2 to 8 in stage 0']),
    ('model.backbone.sr_ratios', [1, 4, 2, 1], ['sr_ratios', 'from 2 to 8 in stage 0']),
    ('model.backbone.strides', [64, 2, 2, 2], ['strides', 'from 1 to 8']),
    ('model.backbone.mlp_ratio', 1000, ['mlp_ratio', 'from 1 to 64']),
    ('model.decode_head.num_classes', 256, ['num_classes is 256', 'from 1 to 255']),
    ('model.test_cfg', {'mode': 'slide', 'crop_size': [8, 8], 'stride': [8, 8]}, ['crop_size', 'from 29']),
    (
        'model.test_cfg',
        {'mode': 'slide', 'crop_size': [8192, 8192], 'stride': [4096, 4096]},
        ['crop_size', 'up to 16,777,216 pixels'],
    ),
    ('model.test_cfg', {'mode': 'slide', 'crop_size': [64, 64], 'stride': [1, 64]}, ['stride', 'at least [8, 8]']),
    ('dataset.val.pipeline.0.img_scale', [20_000, 20_000], ['img_scale is [20000, 20000]', 'up to 16,777,216 pixels']),
    ('model.backbone.out_indices', 3, ['out_indices is 3', '[0, 1, 2, 3]']),
    ('model.backbone.act_cfg', 'GELU', ['model.backbone.act_cfg must be a mapping', "'GELU'"]),
    ('model.backbone.act_cfg', {'type': 'ReLU'}, ['model.backbone.act_cfg.type', "'GELU'"]),
    ('model.backbone.norm_cfg', ['LN'], ['model.backbone.norm_cfg must be a mapping']),
    ('model.backbone.num_stages', 4.0, ['num_stages is 4.0', 'accepted: 4']),
    ('model.backbone.embed_dims', [32], ['embed_dims is [32]', 'an integer']),
    ('model.backbone.embed_dims', True, ['embed_dims is True', 'an integer']),
    ('model.backbone.embed_dims', 10**20, ['embed_dims is 100000000000000000000', 'an integer']),
    ('model.backbone.drop_rate', float('nan'), ['drop_rate is nan', 'a number from 0 to 1']),
    ('model.backbone.embed_dims\x1b[2J\n', 3, ['unknown key', 'x1b[2J']),
    ('model.backbone.embed_dinms', 32, ['did you mean embed_dims?']),
    ('model.neck', {'type': 'FPN'}, ['model.neck', 'null']),
    ('model.decode_head.in_index', 3, ['in_index is 3', '[0, 1, 2, 3]']),
    ('model.decode_head.norm_cfg', None, ['norm_cfg', 'a mapping']),
    ('model.decode_head.norm_cfg', 'BN', ['norm_cfg must be a mapping']),
    ('model.decode_head.norm_cfg', {'type': 'BN', 'eps': 1e-3}, ['norm_cfg.eps is 0.001', '1e-05']),
    ('model.decode_head.act_cfg', {'type': 'GELU'}, ['act_cfg.type', "'ReLU'"]),
    ('model.decode_head.loss_decode', [1], ['loss_decode must be a mapping']),
    ('model.decode_head.loss_decode.class_weigth', [1], ['unknown key', 'did you mean class_weight?']),
    ('model.decode_head.loss_decode.class_weight', [float('nan')] * 172, ['class_weight', '172 numbers']),
    ('model.decode_head.loss_decode.loss_weight', float('inf'), ['loss_weight is inf']),
    ('dataset', 5, ['dataset must be a mapping']),
    ('dataset.train', 'x', ['dataset.train must be a mapping']),
    ('dataset.train.data_source', 5, ['dataset.train.data_source must be a mapping']),
    ('dataset.val.pipeline.0.transforms', 3, ['transforms is 3', 'a list of transforms']),
    ('dataset.val.pipeline.0.transforms.0', 'MMResize', ['transforms[0] must be a mapping']),
    ('dataset.val.pipeline.0.img_scale', [512, float('nan')], ['img_scale', '2 integers']),
    ('dataset.val.pipeline.0.transforms.2.mean', [1, 2, 10**400], ['mean', '3 numbers']),
    ('dataset.val.pipeline.0.transforms.2.std', [1, 2, float('inf')], ['std', '3 numbers']),
    ('CLASSES', ['\ud800'] * 171, ['CLASSES', 'a list of class names']),
    ('PALETTE', [[True, 0, 0]] * 171, ['PALETTE', '0 to 255']),
    (
        'dataset.val.pipeline.0.transforms.1',
        {'type': 'MMPad', 'size_divisor': 10**6},
        ['size_divisor', 'from 1 to 1024'],
    ),
]


@pytest.mark.parametrize('path, value, said', WRONG, ids=[f'{path}={str(value)[:20]}' for path, value, _ in WRONG])
def test_errors_name_the_file_the_key_what_was_found_and_what_is_accepted(tmp_path, raw, path, value, said):
    put(raw, path, value)
    file = tmp_path / 'configuration.json'
    file.write_text(json.dumps(encode_jsonplus(raw)))
    in_json = not re.search('NaN|Infinity', file.read_text())
    with pytest.raises(ConfigurationError) as error:
        read_configuration(tmp_path if in_json else raw)
    for words in [str(file) if in_json else 'configuration: ', *said]:
        assert words in str(error.value)
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


def test_a_directory_without_a_configuration(tmp_path):
    with pytest.raises(FileNotFoundError, match='configuration.json'):
        read_configuration(tmp_path)


@pytest.mark.parametrize(
    'content, said',
    [
        (b'{"task": ', 'not a JSON file'),
        (b'', 'not a JSON file'),
        (b'[]', 'must be a mapping'),
        (b'{"a": "\xff"}', 'not a JSON file .*utf-8'),
        (b'\xff\xfe{\0}\0', 'not a JSON file .*utf-8'),
        ('{"a": "ü"}'.encode('latin-1'), 'not a JSON file .*utf-8'),
        (b'\xef\xbb\xbf{}', 'not a JSON file .*byte order mark'),
        (b'{"a": ' * 100_000 + b'1' + b'}' * 100_000, 'more than 64 deep'),
        (b'[' * 100_000, 'more than 64 deep'),
        (b'{"a": ' + b'[' * 900 + b']' * 900 + b'}', 'more than 64 deep'),
        (b'{"a": ' + b'{"__class__": "tuple", "__value__": [' * 70 + b']}' * 70 + b'}', 'more than 64 deep'),
        (b'{"a": ' + b'9' * 5000 + b'}', 'not a JSON file'),
        (b'{"model": {"a": 1, "b": 2, "a": 3}}', "'a' stands twice"),
        (b'{"a": NaN}', 'not a JSON file .NaN'),
        (b'{"a": [-Infinity]}', 'not a JSON file .-Infinity'),
        (b'{"a": {"__class__": "tuple", "__value__": 3}}', 'accepted are tuples'),
        (b'{"a": {"__class__": "datetime", "__value__": []}}', 'accepted are tuples'),
        (b'{"a": "' + b'x' * (17 << 20) + b'"}', '16,777,216 bytes'),
    ],
    ids=lambda value: str(value[:12]),
)
def test_files_that_are_no_configuration(tmp_path, content, said):
    (tmp_path / 'configuration.json').write_bytes(content)
    with pytest.raises(ConfigurationError, match=f'^{tmp_path}/configuration.json.*{said}') as error:
        read_configuration(tmp_path)
    assert str(error.value).isprintable()


def test_a_directory_in_the_place_of_the_file(tmp_path):
    (tmp_path / 'configuration.json').mkdir()
    with pytest.raises(ConfigurationError, match=r'configuration.json cannot be read \(Is a directory\)'):
        read_configuration(tmp_path)


@pytest.mark.parametrize(
    'content, said',
    [
        ({'model': {'backbone': {3: 1}}}, 'the key 3 in model.backbone; accepted: keys that are text'),
        ({3: 1}, 'the key 3; accepted'),
        ([], 'must be a mapping'),
        (None, 'must be a mapping'),
    ],
)
def test_content_that_is_no_configuration(content, said):
    with pytest.raises(ConfigurationError, match=said):
        read_configuration(content)


def test_content_without_an_end():
    content = {}
    content['model'] = content
    with pytest.raises(ConfigurationError, match='more than 64 deep'):
        read_configuration(content)


@pytest.mark.parametrize('content, said', [(b'[' * 100_000, 'more than 64 deep'), (b'{"a"', 'not a JSON file')])
def test_a_file_that_modelscope_cannot_read_is_named(tmp_path, content, said):
    from modelscope.pipelines import pipeline

    (tmp_path / 'configuration.json').write_bytes(content)
    with pytest.raises(ConfigurationError, match=f'{tmp_path}/configuration.json: .*{said}'):
        pipeline('image-segmentation', str(tmp_path))


def test_classes_may_stand_in_a_file(tmp_path, raw):
    raw['CLASSES'] = 'names.txt'
    (tmp_path / 'names.txt').write_text('\n'.join(CLASSES), encoding='utf-8')
    (tmp_path / 'configuration.json').write_text(json.dumps(encode_jsonplus(raw)))
    assert read_configuration(tmp_path).classes == CLASSES


def test_the_pretrained_url_is_read_but_never_fetched(raw):
    raw['model']['pretrained'] = 'https://weights.invalid/mit_b0.pth'
    assert read_configuration(raw).model.pretrained == 'https://weights.invalid/mit_b0.pth'
