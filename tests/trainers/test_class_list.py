"""What of a configuration goes with its class list."""

import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from modelscope.trainers import build_trainer
from PIL import Image
from tiny_run import CLASSES, shrink

from ms_segformer.datasets.errors import DatasetError
from ms_segformer.trainers import configuration
from ms_segformer.trainers.errors import TrainingError

NEW = ['circle', 'square']


def old():
    """A configuration that says of its three classes all that one can say."""
    return {
        'CLASSES': ['road', 'sky', 'car'],
        'PALETTE': [[0, 0, 0]] * 3,
        'model': {
            'decode_head': {
                'num_classes': 3,
                'ignore_index': 1,
                'loss_decode': {'type': 'CrossEntropyLoss', 'class_weight': [1.0, 2.0, 3.0]},
            },
            'auxiliary_head': [{'loss_decode': [{'class_weight': (1.0, 2.0, 3.0)}]}],
        },
        'dataset': {
            split: {'ignore_index': 0, 'data_source': {'palette': [[0, 0, 0]] * 3, 'reduce_zero_label': True}}
            for split in ('train', 'val')
        },
        'train': {'hooks': [{'type': 'BestCkptSaverHook', 'metric_key': 'IoU.car'}]},
        'evaluation': {
            'metrics': {
                'type': 'EasyCVMetric',
                'evaluators': [{'type': 'SegmentationEvaluator', 'classes': ['road', 'sky', 'car'], 'ignore_index': 1}],
            }
        },
    }


def prepared(raw, classes, written=None, **arguments):
    configuration.prepare(raw, classes, written=written, **arguments)
    return raw


def test_what_belongs_to_the_old_list_goes_with_it_and_one_line_says_so(caplog):
    with caplog.at_level('INFO', 'modelscope'):
        raw = prepared(old(), NEW)
    (line,) = [record.getMessage() for record in caplog.records if 'former' in record.getMessage()]
    head, best = raw['model']['decode_head'], raw['train']['checkpoint']['best']
    assert head['num_classes'] == 2 and 'ignore_index' not in head and 'PALETTE' not in raw
    assert head['loss_decode'] == {'type': 'CrossEntropyLoss'}
    assert raw['model']['auxiliary_head'] == [{'loss_decode': [{}]}] and best == {'metric_key': 'mIoU'}
    assert raw['evaluation']['metrics']['evaluators'] == [{'type': 'SegmentationEvaluator', 'classes': NEW}]
    assert all('palette' not in raw['dataset'][split]['data_source'] for split in ('train', 'val'))
    for name in (
        'PALETTE',
        'model.decode_head.loss_decode.class_weight',
        'model.decode_head.ignore_index',
        'model.auxiliary_head.0.loss_decode.0.class_weight',
        'dataset.train.data_source.palette',
        'dataset.val.data_source.palette',
        'evaluation.metrics.evaluators.0.ignore_index',
        'train.checkpoint.best.metric_key (mIoU now, for IoU.car)',
    ):
        assert name in line, name


@pytest.mark.parametrize('elsewhere', [False, True])
def test_what_the_label_maps_mean_stays_with_the_label_maps(tmp_path, elsewhere):
    raw = old()
    if elsewhere:
        for part in ('images', 'annotations'):
            (tmp_path / part / 'train').mkdir(parents=True)
    section = prepared(raw, NEW, data_root=str(tmp_path) if elsewhere else None)['dataset']['train']
    assert section['data_source'].get('reduce_zero_label', False) == (not elsewhere)
    assert section.get('ignore_index', 255) == (255 if elsewhere else 0)


def test_the_same_list_keeps_everything(caplog):
    raw, expected = old(), old()
    prepared(raw, list(expected['CLASSES']))
    assert raw['PALETTE'] == expected['PALETTE'] and raw['model'] == expected['model']
    assert raw['train']['checkpoint']['best']['metric_key'] == 'IoU.car' and not caplog.records


def test_what_was_set_in_code_stays():
    raw = old()
    raw['model']['decode_head']['loss_decode']['class_weight'] = [1.0, 5.0]
    raw['PALETTE'] = [[1, 1, 1], [2, 2, 2]]
    raw = prepared(raw, NEW, old())
    assert raw['model']['decode_head']['loss_decode']['class_weight'] == [1.0, 5.0] and len(raw['PALETTE']) == 2
    assert 'ignore_index' not in raw['model']['decode_head']


@pytest.mark.parametrize('weights, kept', [([1.0, 5.0], True), ([1.0, 2.0, 3.0], False)])
def test_a_file_that_brings_its_own_list_means_what_fits_it(weights, kept):
    raw = {**old(), 'classes': NEW}
    raw['model']['decode_head']['loss_decode']['class_weight'] = weights
    loss = prepared(raw, None, deepcopy(raw))['model']['decode_head']['loss_decode']
    assert ('class_weight' in loss) == kept


def test_a_model_with_weights_and_colors_trains_on_other_classes(options, tmp_path):
    import json
    from pathlib import Path

    folder = tmp_path / 'model'
    folder.mkdir()
    content = json.loads((Path(options['model']) / 'configuration.json').read_text())
    content['model']['decode_head']['loss_decode']['class_weight'] = [1.0] * 172
    content['dataset']['train']['data_source']['palette'] = [[0, 0, 0]] * 171
    (folder / 'configuration.json').write_text(json.dumps(content))
    (folder / 'pytorch_model.pt').symlink_to(Path(options['model']) / 'pytorch_model.pt')
    trainer = build_trainer('easycv', {**options, 'model': str(folder), 'max_epochs': 1})
    trainer.train()
    exported = json.loads((tmp_path / 'run' / 'output' / 'configuration.json').read_text())
    assert exported['CLASSES'] == CLASSES and len(exported['PALETTE']) == 3
    assert 'class_weight' not in exported['model']['decode_head']['loss_decode']


def test_the_demonstration_model_learns_the_example(tmp_path):
    from ms_segformer.datasets.example import write_example
    from ms_segformer.metainfo import find_model

    data = write_example(tmp_path / 'shapes')
    trainer = build_trainer(
        'easycv',
        {
            'model': find_model('demo'),
            'data_root': str(data),
            'classes': str(data / 'classes.txt'),
            'max_epochs': 4,
            'work_dir': str(tmp_path / 'run'),
            'device': 'cpu',
            'cfg_modify_fn': shrink,
        },
    )
    trainer.train()
    assert trainer.metric_values['mIoU'] > 0.6 and len(trainer.cfg.CLASSES) == 4


@pytest.mark.parametrize('classes', [['disc', 'grass', 'sky'], ['sky', 'grass', 'ball']])
def test_a_list_of_the_same_length_gets_a_classifier_of_its_own(options, caplog, classes):
    first = build_trainer('easycv', {**options, 'max_epochs': 1})
    first.train()
    learned = first.bare_model.decode_head.conv_seg.weight
    output = f'{options["work_dir"]}/output'
    with caplog.at_level('WARNING', 'ms_segformer'):
        caplog.clear()
        for source in ({'model': output}, {'load_from': output}, {'load_from': f'{options["work_dir"]}/epoch_1.pth'}):
            arguments = {**options, **source, 'work_dir': options['work_dir'] + '2'}
            same = build_trainer('easycv', dict(arguments)).bare_model.decode_head.conv_seg.weight
            assert torch.equal(same, learned) and 'starts anew' not in caplog.text, source
            other = build_trainer('easycv', {**arguments, 'classes': classes}).bare_model.decode_head.conv_seg.weight
            assert not torch.equal(other, learned), source
            assert '(3 outputs); the classifier starts anew with 3 outputs, for the classes are others' in caplog.text
            caplog.clear()


def test_what_an_option_says_stays_when_the_file_says_the_same():
    options = {'model.decode_head.loss_decode.class_weight': [1.0, 2.0, 3.0]}
    loss = prepared(old(), ['a', 'b', 'c'], old(), options=options)['model']['decode_head']['loss_decode']
    assert loss['class_weight'] == [1.0, 2.0, 3.0]
    assert 'class_weight' not in prepared(old(), ['a', 'b', 'c'], old())['model']['decode_head']['loss_decode']


@pytest.mark.parametrize(
    'number, said',
    [
        (7, r'num_classes is 7; accepted with 3 classes: 3, or 4 for one output'),
        (172, 'num_classes is 172'),
        (4, None),
        (3, None),
    ],
)
def test_a_number_of_outputs_that_was_set_fits_the_classes(options, number, said):
    arguments = {**options, 'cfg_options': {'model.decode_head.num_classes': number}}
    if said is None:
        assert build_trainer('easycv', arguments).bare_model.decode_head.conv_seg.out_channels == number
        return
    with pytest.raises(TrainingError, match=said):
        build_trainer('easycv', arguments)


@pytest.mark.parametrize('key', ['CLASSES', 'dataset.train.data_source.classes'])
def test_classes_that_an_option_names_count_before_those_of_the_data(options, tiny_data, tmp_path, key):
    folder = tmp_path / 'data'
    shutil.copytree(tiny_data, folder)
    (folder / 'classes.txt').write_text('one\ntwo\nthree\n')
    arguments = {**options, 'data_root': str(folder), 'cfg_options': {key: ['a', 'b', 'c']}}
    with pytest.raises(DatasetError, match=rf'{key} is set to .*a.*, and the classes that are given besides are .*sky'):
        build_trainer('easycv', dict(arguments))
    arguments['classes'] = None
    trainer = build_trainer('easycv', arguments)
    assert trainer.cfg.CLASSES == trainer.train_dataset.CLASSES == trainer.eval_dataset.CLASSES == ['a', 'b', 'c']
    assert trainer.completed.new_classes


def test_label_maps_to_evaluate_on_count_as_those_to_train_on_where_nothing_in_them_shows_how(tiny_model_dir, tmp_path):
    for split, values in (('train', [0, 12, 180, 255]), ('val', [0, 12, 111, 255])):
        for folder in ('images', 'annotations'):
            (tmp_path / folder / split).mkdir(parents=True)
        Image.new('RGB', (96, 64)).save(tmp_path / 'images' / split / 'a.jpg')
        Image.fromarray(np.resize(np.array(values, np.uint8), (64, 96))).save(
            tmp_path / 'annotations' / split / 'a.png'
        )
    trainer = build_trainer(
        'easycv',
        {
            'model': str(tiny_model_dir),
            'data_root': str(tmp_path),
            'max_epochs': 1,
            'work_dir': str(tmp_path / 'run'),
            'device': 'cpu',
        },
    )
    assert np.unique(trainer.train_dataset.load_label(0)).tolist() == [0, 11, 169, 255]
    assert np.unique(trainer.eval_dataset.load_label(0)).tolist() == [0, 11, 100, 255]
