"""Options and sections of training: mistyped keys, wrong values, and everything published, which passes."""

import ast
import copy
import json
import logging
from pathlib import Path

import pytest

from ms_segformer.config import schema
from ms_segformer.config.jsonplus import load_json
from ms_segformer.config.messages import ConfigurationError
from ms_segformer.config.reader import read_configuration
from ms_segformer.metainfo import VARIANTS, configuration_dir, demo_model_dir

PUBLISHED = [configuration_dir() / variant.model_name for variant in VARIANTS.values()]


@pytest.fixture
def raw(tiny_model_dir):
    return load_json(tiny_model_dir / 'configuration.json')


@pytest.fixture
def warned(caplog):
    """What was warned of, also where an earlier test has seen the same."""
    schema.warn_once.cache_clear()
    caplog.set_level(logging.WARNING, 'ms_segformer')
    return caplog


@pytest.mark.parametrize(
    'folder',
    [*PUBLISHED, demo_model_dir(), Path(__file__).parents[1] / 'data' / 'tiny_model'],
    ids=lambda folder: folder.name[:16],
)
def test_what_is_published_passes_without_a_warning(folder, warned):
    schema.check_file(folder / 'configuration.json')
    schema.check_sections(load_json(folder / 'configuration.json'), folder.name)
    assert not warned.records


def test_what_the_original_writes_passes_without_a_warning(oracle, warned):
    files = [path for path in oracle.rglob('*.json') if 'onfiguration' in str(path)]
    assert len(files) >= 9
    for file in files:
        schema.check_file(file)
        schema.check_sections(load_json(file), str(file))
    assert not warned.records


@pytest.mark.parametrize(
    'option, said',
    [
        ('train.max_epoch', 'unknown key train.max_epoch (did you mean max_epochs?)'),
        ('trian.max_epochs', 'unknown key trian (did you mean train?)'),
        ('train.dataloader.batch_size_per_gpus', '(did you mean batch_size_per_gpu?)'),
        ('train.lr_scheduler.warmup_iter', '(did you mean warmup_iters?)'),
        ('train.optimizer.weight_deacy', '(did you mean weight_decay?)'),
        ('train.optimizer.options.grad_clips', '(did you mean grad_clip?)'),
        ('train.checkpoint.period.intervall', '(did you mean interval?)'),
        ('model.backbone.embed_dim', '(did you mean embed_dims?)'),
        ('model.decode_head.loss_decode.class_weights', '(did you mean class_weight?)'),
        ('model.decode_head.norm_cfg.typ', '(did you mean type?)'),
        ('model.test_config', '(did you mean test_cfg?)'),
        ('dataset.train.pipelines', '(did you mean pipeline?)'),
        ('dataset.train.data_source.image_root', '(did you mean img_root?)'),
        ('evaluation.dataloader.worker_per_gpu', '(did you mean workers_per_gpu?)'),
        ('evaluation.periods', '(did you mean period?)'),
        ('train..lr', 'unknown key train.'),
        ('', 'unknown key'),
    ],
)
def test_a_mistyped_option_is_refused_with_the_nearest_name(raw, option, said):
    with pytest.raises(ConfigurationError) as error:
        schema.merged(raw, {option: 3})
    assert said in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'option, value, said',
    [
        (
            'train.hooks',
            [{'type': 'CheckpointHook', 'intervall': 2}],
            'train.hooks[0].intervall (did you mean interval?)',
        ),
        ('train.hooks', [{'type': 'BestCkptSaverHook', 'metric_keys': 'mIoU'}], 'train.hooks[0].metric_keys'),
        ('train.hooks', [{'type': 'EvaluationHook', 'every': 2}], 'train.hooks[0].every'),
        (
            'train.hooks',
            [{'type': 'SomebodysHook', 'every': 2}, {'type': 'TextLoggerHook', 'every': 2}],
            'train.hooks[1].every',
        ),
        ('train.hooks.0.intervall', 2, 'train.hooks[0].intervall'),
    ],
)
def test_a_mistyped_key_of_a_hook_is_refused_where_its_keys_are_known(raw, option, value, said):
    raw['train']['hooks'] = [{'type': 'CheckpointHook', 'interval': 1, 'of_the_file': 1}]
    with pytest.raises(ConfigurationError) as error:
        schema.merged(raw, {option: value})
    assert f'unknown key {said}' in str(error.value) and '\n' not in str(error.value)
    merged = schema.merged(
        raw,
        {
            'train.hooks': [
                {'type': 'CheckpointHook', 'interval': 2, 'of_the_file': 2},
                {'type': 'SomebodysHook', 'every': 2},
            ]
        },
    )
    assert [hook.get('interval') for hook in merged['train']['hooks']] == [2, None]


def test_a_mistyped_key_below_a_mapping_is_refused_too(raw):
    with pytest.raises(ConfigurationError, match='train.optimizer.lrr .did you mean lr'):
        schema.merged(raw, {'train': {'optimizer': {'lrr': 1}}})


@pytest.mark.parametrize(
    'options',
    [
        {'train.optimizer': {'type': 'LARS', 'trust_coefficient': 0.1}},
        {'train.optimizer.type': 'LARS', 'train.optimizer.trust_coefficient': 0.1},
        {'train.lr_scheduler': {'policy': 'YOLOX', 'no_aug_iters': 3}},
        {'train.hooks': [{'type': 'SomebodysHook', 'anything': [1]}]},
        {'dataset.train.pipeline': [{'type': 'Rotate', 'max_angle': 3}]},
    ],
)
def test_what_other_packages_bring_keeps_its_freedom(raw, options):
    schema.check_sections(schema.merged(raw, options), 'x')


@pytest.mark.parametrize(
    'section, values',
    [
        (
            'optimizer',
            {
                'paramwise_cfg': {
                    'bias_lr_mult': 2.0,
                    'bias_decay_mult': 0.0,
                    'norm_decay_mult': 0.0,
                    'dwconv_decay_mult': 0.0,
                    'bypass_duplicate': True,
                }
            },
        ),
        ('dataloader', {'multiprocessing_context': 'spawn', 'pin_memory_device': 'cuda', 'workers_per_gpu': 1}),
    ],
)
def test_what_mmcv_and_torch_take_passes_in_a_file(raw, section, values, warned):
    raw['train'][section] |= values
    schema.check_sections(raw, 'x')
    assert not warned.records


def test_a_seed_of_the_data_may_be_0(raw):
    schema.check_sections(schema.merged(raw, {'dataset.train.seed': 0}), 'x')


def test_a_key_that_the_file_has_can_be_set(raw):
    raw['train']['of_ours'] = {'deep': 1}
    assert schema.merged(raw, {'train.of_ours.deep': 2})['train']['of_ours'] == {'deep': 2}


def test_mappings_merge_and_lists_replace(raw):
    before = copy.deepcopy(raw)
    pipeline = [{'type': 'MMResize', 'img_scale': [96, 64]}, {'type': 'Collect', 'keys': ['img']}]
    new = schema.merged(
        raw,
        {
            'train.max_epochs': 3,
            'train': {'optimizer': {'lr': 1}},
            'train.dataloader': {'_delete_': True, 'shuffle': False},
            'dataset.train.pipeline': pipeline,
            'dataset.val.pipeline.0.img_scale': [128, 96],
            'train.checkpoint.period.interval': 2,
            'model.backbone.num_layers.3': 2,
        },
    )
    assert raw == before
    assert new['train']['max_epochs'] == 3
    assert new['train']['optimizer'] == {**raw['train']['optimizer'], 'lr': 1}
    assert new['train']['dataloader'] == {'shuffle': False}
    assert new['dataset']['train']['pipeline'] == [
        {'type': 'MMResize', 'img_scale': (96, 64)},
        {'type': 'Collect', 'keys': ['img']},
    ]
    assert new['dataset']['val']['pipeline'][0]['img_scale'] == (128, 96)  # a tuple, as it was: EasyCV asks for them
    assert new['train']['checkpoint'] == {'period': {'interval': 2}}
    assert list(new['model']['backbone']['num_layers']) == [1, 2, 1, 2]


def test_hooks_are_told_apart_by_their_type(raw):
    raw['train']['hooks'] = [{'type': 'CheckpointHook', 'interval': 1}, {'type': 'TextLoggerHook', 'interval': 50}]
    new = schema.merged(raw, {'train.hooks': [{'type': 'TextLoggerHook', 'interval': 1}, {'type': 'EMAHook'}]})
    assert new['train']['hooks'] == [
        {'type': 'CheckpointHook', 'interval': 1},
        {'type': 'TextLoggerHook', 'interval': 1},
        {'type': 'EMAHook'},
    ]


@pytest.mark.parametrize(
    'options, said',
    [
        ({'train.max_epochs.x': 3}, 'train.max_epochs is 30 in the configuration, which has no key'),
        ({'dataset.val.pipeline.7.type': 'x'}, 'dataset.val.pipeline.7 does not exist'),
        ({'train': {3: 1}}, 'the key 3 in train'),
        ({3: 1}, 'the key 3'),
    ],
)
def test_options_that_fit_nowhere(raw, options, said):
    with pytest.raises(ConfigurationError, match=said):
        schema.merged(raw, options)


@pytest.mark.parametrize(
    'path, value, said',
    [
        ('train.dataloader.batch_size_per_gpu', 10**6, 'an integer from 1 to 4096'),
        ('train.dataloader.workers_per_gpu', -1, 'an integer from 0 to 256'),
        ('train.dataloader.drop_last', 'yes', 'true or false'),
        ('train.dataloader.samples', 3, 'unknown key train.dataloader.samples'),
        ('train.max_epochs', 2.5, 'an integer'),
        ('train.max_epochs', True, 'an integer'),
        ('train.optimizer.lr', float('nan'), 'a number from 0'),
        ('train.optimizer.lr', '1e-3', 'a number from 0'),
        ('train.optimizer', 'AdamW', 'a mapping'),
        ('train.optimizer.betas', 3, 'a list of 2 values'),
        ('train.optimizer.eps', '1', 'a number'),
        ('train.optimizer.amsgrad', 3, 'true or false'),
        ('train.optimizer.paramwise_options', {'custom_keys': {'head': {'lr_mul': 1}}}, 'did you mean lr_mult'),
        ('train.lr_scheduler.power', float('inf'), 'a number'),
        ('train.lr_scheduler.policy', 3, 'text'),
        ('train.lr_scheduler.warmup_iters', 1.5, 'an integer'),
        ('train.hooks', 5, 'a list of mappings, each with its type'),
        ('train.hooks', [{}], 'each with its type'),
        ('train.checkpoint', [], 'a mapping'),
        ('train.checkpoint.best.rule', 'most', "'max' or 'min'"),
        ('train.ema', 2, 'a number from 0 to 1 or true or false'),
        ('dataset.train.ignore_index', 256, 'an integer from 0 to 255'),
        ('dataset.val', 'x', 'a mapping'),
        ('evaluation.period.interval', '1', 'an integer'),
    ],
)
def test_values_of_the_training_sections_are_checked(raw, path, value, said):
    tree = value
    for key in reversed(path.split('.')[1:]):
        tree = {key: tree}
    first = path.split('.')[0]
    raw[first] = schema._merged(raw[first], tree, 'a')
    with pytest.raises(ConfigurationError) as error:
        schema.check_sections(raw, 'some/configuration.json')
    assert str(error.value).startswith('some/configuration.json: ')
    assert path in str(error.value) and said in str(error.value)


def test_keys_of_a_file_that_are_not_read_are_warned_of_once(raw, warned):
    raw['train']['max_epoch'] = 3
    raw['model']['auxiliary_head'] = {}
    for _ in range(2):
        schema.check_sections(raw, 'one.json')
        read_configuration(raw)
    assert [record.getMessage() for record in warned.records] == [
        'one.json: train.max_epoch is not read (did you mean max_epochs?)',
        'configuration: model.auxiliary_head is not read',
    ]


@pytest.mark.parametrize(
    'content, said',
    [
        ({'model': None}, 'model is missing or null'),
        ({'train': 5}, 'train is 5'),
        ({'train': None}, 'train is missing or null'),
        ({'train': {'hooks': 5}}, 'train.hooks is 5'),
        ({'model': {'type': 'Detector'}}, "model.type is 'Detector'; accepted: 'Segformer'"),
        ({}, 'model.type is missing'),
        ([], 'the file must be a mapping'),
    ],
)
def test_a_file_that_modelscope_s_trainer_would_trip_over(tmp_path, content, said):
    file = tmp_path / 'configuration.json'
    file.write_text(json.dumps({'model': {}, **content} if content != [] else content))
    with pytest.raises(ConfigurationError, match=f'{file}: {said}'):
        schema.check_file(file)


def test_the_options_of_the_published_card_are_known(raw):
    source = (Path(__file__).parents[1] / 'cards' / 'card_finetune.py').read_text()
    options = ast.literal_eval(source[source.index('cfg_options = {') + len('cfg_options = ') : source.index('}') + 1])
    assert schema.merged(raw, options)['train']['max_epochs'] == 31


def test_the_hook_of_a_schedule_is_a_mapping(raw):
    with pytest.raises(ConfigurationError, match='train.lr_scheduler_hook is 5; accepted: a mapping'):
        schema.check_sections(schema.merged(raw, {'train.lr_scheduler_hook': 5}), 'configuration')
