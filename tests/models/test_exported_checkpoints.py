"""The checkpoints that the real EasyCV 0.11.7 and mmcv 1.7.2 wrote, wherever a checkpoint is taken."""

import shutil

import numpy as np
import pytest
import torch

from ms_segformer.cli import info
from ms_segformer.models.checkpoint import find_checkpoint, read_checkpoint
from ms_segformer.models.convert import convert

FILES = ['easycv_export.pt', 'easycv_export_legacy.pt', 'mmcv_epoch.pth']
PHOTOGRAPHS = {
    'small': 'edge/small.jpg',
    'wide': 'edge/wide.jpg',
    'tall': 'edge/tall.jpg',
    'gray': 'edge/gray.png',
    'china': 'china.jpg',
    'flower': 'flower.jpg',
}


@pytest.fixture(params=FILES)
def exported(request, oracle, tmp_path):
    """A model directory with one of the three files."""
    folder = tmp_path / 'model'
    folder.mkdir()
    shutil.copy(oracle / 'golden' / 'tiny_model' / 'configuration.json', folder)
    shutil.copy(oracle / 'exported' / request.param, folder)
    return folder


@pytest.fixture(scope='module')
def weights(oracle):
    return torch.load(oracle / 'golden' / 'tiny_model' / 'pytorch_model.pt', weights_only=True)['state_dict']


def assert_predicts_as_the_original(directory, oracle):
    from modelscope.pipelines import pipeline

    segmenter = pipeline('image-segmentation', str(directory), device='cpu')
    golden = np.load(oracle / 'golden' / 'tiny_goldens.npz')
    for name, file in PHOTOGRAPHS.items():
        different = segmenter(str(oracle / 'golden' / file))['seg_map'] != golden[f'{name}_seg']
        assert not (different & (golden[f'{name}_margin'] >= 1e-3)).any(), name


def test_the_pipeline_predicts_what_the_original_predicts(exported, oracle):
    assert_predicts_as_the_original(exported, oracle)


def test_the_model_and_the_trainer_start_from_its_weights(exported, weights, tmp_path):
    from modelscope.models import Model
    from modelscope.trainers import build_trainer

    model = Model.from_pretrained(str(exported))
    options = {'work_dir': str(tmp_path / 'run'), 'device': 'cpu', 'train_dataset': Pairs(), 'cfg_modify_fn': unread}
    named = build_trainer('easycv', {**options, 'model': str(exported)})
    loaded = build_trainer(
        'easycv',
        {**options, 'cfg_file': str(exported / 'configuration.json'), 'load_from': str(find_checkpoint(exported))},
    )
    for network in (model, named.bare_model, loaded.bare_model):
        state = network.state_dict()
        assert state.keys() == weights.keys()
        assert not [key for key, value in state.items() if not torch.equal(value, weights[key])]


class Pairs(torch.utils.data.Dataset):
    """Training data that are never read."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise AssertionError


def unread(cfg):
    cfg.evaluation.period = None
    return cfg


def test_it_is_converted_with_the_class_names_in_it(exported, oracle, tmp_path):
    target = convert(find_checkpoint(exported), tmp_path / 'converted')
    assert_predicts_as_the_original(target, oracle)


def test_info_tells_what_it_says(exported):
    about = info.model(str(exported))
    assert about['checkpoint loads'] is True
    if exported.joinpath('mmcv_epoch.pth').exists():
        assert 'epoch 30' in about['checkpoint says'] and 'mmcv_version 1.7.2' in about['checkpoint says']


def test_what_is_plain_of_its_meta_is_there(oracle):
    _, meta = read_checkpoint(oracle / 'exported' / 'mmcv_epoch.pth')
    assert meta['epoch'] == 30 and meta['iter'] == 1000 and len(meta['CLASSES']) == 171 and len(meta['PALETTE']) == 171
    assert type(meta['hook_msgs']['best_score']) is float and meta['hook_msgs']['best_score'] == 35.91
    _, meta = read_checkpoint(oracle / 'exported' / 'easycv_export.pt')
    assert meta['config']['model']['backbone']['embed_dims'] == 8 and len(meta['config']['CLASSES']) == 171
