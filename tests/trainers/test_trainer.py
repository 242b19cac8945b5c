"""What a user does with the trainer: train on data of their own, choose, log, evaluate, open the result."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from exported import save_exported
from modelscope.metainfo import Trainers
from modelscope.trainers import build_trainer
from tiny_run import CLASSES, shrink

from ms_segformer.config.reader import read_configuration
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.seg_dataset import SegDataset
from ms_segformer.metainfo import VARIANTS, configuration_dir
from ms_segformer.models import bfloat16
from ms_segformer.models.checkpoint import read_checkpoint
from ms_segformer.trainers.errors import TrainingError


def records(trainer, mode='train'):
    lines = next(Path(trainer.work_dir).glob('*.log.json')).read_text().splitlines()
    return [record for line in lines if (record := json.loads(line))['mode'] == mode]


def test_own_classes_are_two_lines_and_the_result_opens_where_the_data_are_not(options, tmp_path, tiny_data, caplog):
    trainer = build_trainer(Trainers.easycv, options)
    dropped = [record.getMessage() for record in caplog.records if 'dropped' in record.getMessage()]
    assert 'dropped decode_head.conv_seg.weight, decode_head.conv_seg.bias (172 outputs)' in dropped[0]
    trainer.train()
    output = tmp_path / 'elsewhere'
    shutil.move(Path(trainer.work_dir) / 'output', output)
    shutil.rmtree(trainer.work_dir)
    text = (output / 'configuration.json').read_text()
    assert str(tiny_data) not in text and str(tmp_path) not in text
    settings = read_configuration(output)
    assert list(settings.classes) == CLASSES and settings.model.head.num_classes == 3 and len(settings.palette) == 3
    image = cv2.imread(str(tiny_data / 'images' / 'val' / '000.jpg'))[:, :, ::-1]
    from modelscope.pipelines import pipeline

    result = pipeline('image-segmentation', str(output), device='cpu', engine='torch')(image)
    assert set(result['labels']) <= set(CLASSES)
    again = build_trainer(Trainers.easycv, {**options, 'model': str(output), 'max_epochs': 1})
    assert again.starting_point == str(output / 'pytorch_model.pt') and not again.completed.new_classes


def test_it_learns(options):
    trainer = build_trainer(
        Trainers.easycv,
        {**options, 'max_epochs': 25, 'cfg_options': {'evaluation.period': None, 'train.checkpoint.period': None}},
    )
    trainer.train()
    losses = [record['loss'] for record in records(trainer)]
    values = trainer.evaluate()
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    assert values['mIoU'] > 0.6 and values['aAcc'] > 0.85


@pytest.mark.parametrize('variant', list(VARIANTS))
def test_published_configurations_train_unmodified_but_for_their_data(variant, tiny_data, tmp_path, messages):
    """Every section is understood: data, optimizer, schedule, hooks and metrics; one step at a small size."""

    def small(cfg):
        shrink(cfg)
        cfg.model.pretrained = None
        cfg.model.backbone.update(embed_dims=8, num_layers=[1, 1, 1, 1])
        cfg.model.decode_head.update(in_channels=[8, 16, 40, 64], channels=24)
        cfg.train.lr_scheduler.warmup = 'linear'
        return cfg

    trainer = build_trainer(
        Trainers.easycv,
        {
            'cfg_file': str(configuration_dir() / VARIANTS[variant].model_name / 'configuration.json'),
            'cfg_modify_fn': small,
            'data_root': str(tiny_data),
            'classes': CLASSES,
            'work_dir': str(tmp_path / 'run'),
            'max_epochs': 1,
            'device': 'cpu',
        },
    )
    trainer.train()
    assert [record['iter'] for record in records(trainer)] == [1, 2, 3, 4]
    assert {'mIoU', 'IoU.sky', 'SegmentationEvaluator_mIoU'} <= trainer.metric_values.keys()
    assert [m for m in messages if '4 iterations, fewer than its warm-up of 1500' in m]
    assert [m for m in messages if 'random weights' in m]
    by_lr = {group['initial_lr']: group['names'] for group in trainer.optimizer.param_groups}
    base = trainer.cfg.train.optimizer.lr
    assert all(name.startswith('decode_head') for name in by_lr[10 * base])


def test_the_log_has_the_original_s_keys_and_null_for_classes_without_a_value(options):
    trainer = build_trainer(Trainers.easycv, {**options, 'max_epochs': 1, 'classes': [*CLASSES, 'unicorn']})
    trainer.train()
    assert list(records(trainer)[0]) == [
        'mode',
        'epoch',
        'iter',
        'lr',
        'data_load_time',
        'decode.loss_ce',
        'decode.acc_seg',
        'loss',
        'iter_time',
    ]
    (evaluation,) = records(trainer, 'eval')
    assert evaluation['evaluation/IoU.unicorn'] is None and evaluation['evaluation/mIoU'] >= 0
    result = (Path(trainer.work_dir) / 'output' / 'eval_result.txt').read_text()
    assert json.loads(result)['IoU.unicorn'] is None and 'NaN' not in result


def test_the_best_checkpoint_is_kept(options):
    trainer = build_trainer(
        Trainers.easycv,
        {
            **options,
            'max_epochs': 4,
            'cfg_options': {
                'train.checkpoint.best': {'metric_key': 'mIoU'},
                'train.checkpoint.period': {'interval': 1, 'max_checkpoint_num': 2},
            },
        },
    )
    trainer.train()
    folder = Path(trainer.work_dir)
    values = [record['evaluation/mIoU'] for record in records(trainer, 'eval')]
    (best,) = (path.name for path in folder.glob('best_*.pth') if 'trainer_state' not in path.name)
    assert best == f'best_epoch{int(np.argmax(values)) + 1}_mIoU{max(values)}.pth'
    assert (folder / 'output_best' / 'pytorch_model.pt').read_bytes() == (folder / best).read_bytes()
    assert sorted(path.name for path in folder.glob('epoch_?.pth')) == ['epoch_3.pth', 'epoch_4.pth']
    assert read_configuration(folder / 'output_best').model.head.num_classes == 3


def test_gradients_accumulate_to_those_of_a_larger_batch(options):
    def run(batch, count):
        def modify(cfg):
            cfg = shrink(cfg)
            cfg.train.dataloader = {'batch_size_per_gpu': batch, 'workers_per_gpu': 0, 'shuffle': False}
            cfg.train.optimizer = {'type': 'SGD', 'lr': 0.01, 'options': {'cumulative_iters': count}}
            cfg.train.lr_scheduler = {'policy': 'fixed'}
            cfg.model.backbone.drop_path_rate = cfg.model.decode_head.dropout_ratio = 0.0
            return cfg

        trainer = build_trainer(
            Trainers.easycv,
            {
                **options,
                'max_epochs': 1,
                'cfg_modify_fn': modify,
                'work_dir': options['work_dir'] + str(batch),
                'cfg_options': {'evaluation.period': None},
            },
        )
        for module in trainer.bare_model.modules():  # whose statistics would be those of the smaller batches
            if isinstance(module, torch.nn.BatchNorm2d):
                module.forward = lambda x: x
        before = trainer.bare_model.decode_head.conv_seg.weight.clone()
        trainer.train()
        return trainer.bare_model.decode_head.conv_seg.weight - before

    large, small = run(8, 1), run(2, 4)
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-6)
    assert large.abs().max() > 1e-4


def test_bf16_trains_and_fp16_says_that_it_needs_a_gpu(options):
    wide = {  # bfloat16 is not right everywhere for networks as narrow as the tiny model
        'model.backbone.embed_dims': 32,
        'model.decode_head.in_channels': [32, 64, 160, 256],
    }
    trainer = build_trainer(
        Trainers.easycv, {**options, 'max_epochs': 1, 'amp': 'bf16', 'load_from': 'scratch', 'cfg_options': wide}
    )
    trainer.train()
    assert all(record['loss'] > 0 for record in records(trainer))
    assert all(p.dtype == torch.float32 for p in trainer.bare_model.parameters())
    with pytest.raises(TrainingError, match='fp16, which needs a GPU; use bf16'):
        build_trainer(Trainers.easycv, {**options, 'amp': 'fp16'})
    with pytest.raises(TrainingError, match="train.amp is 'fp8'; accepted: bf16, fp16"):
        build_trainer(Trainers.easycv, {**options, 'amp': 'fp8'})


def test_bf16_is_refused_where_the_processor_computes_the_network_wrong(options, monkeypatch):
    monkeypatch.setattr(bfloat16, '_difference', lambda channels, *_: 0.9 if channels < 32 else 0.002)
    with pytest.raises(TrainingError, match=r'train.amp is bf16: .*8×8 convolution of 8 channels.*Use float32'):
        build_trainer(Trainers.easycv, {**options, 'amp': 'bf16'})


def test_the_loss_at_the_logits_size_is_asked_for_in_the_training_section(options):
    trainer = build_trainer(
        Trainers.easycv,
        {**options, 'max_epochs': 1, 'cfg_options': {'train.loss_at_logits_size': True, 'evaluation.period': None}},
    )
    trainer.train()
    assert trainer.bare_model.loss_at_logits_size
    plain = build_trainer(
        Trainers.easycv,
        {**options, 'max_epochs': 1, 'work_dir': options['work_dir'] + '2', 'cfg_options': {'evaluation.period': None}},
    )
    plain.train()
    assert records(trainer)[0]['loss'] != records(plain)[0]['loss']


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there_is_an_error(options):
    with pytest.raises(TrainingError, match="'cuda' was asked for, but torch .* sees no CUDA device"):
        build_trainer(Trainers.easycv, {**options, 'device': 'gpu'})


def test_load_from_takes_the_place_of_the_model_s_weights(options, tmp_path, tiny_model_dir):
    torch.manual_seed(5)
    state = {
        key: torch.randn_like(value) if value.is_floating_point() else value
        for key, value in read_checkpoint(tiny_model_dir / 'pytorch_model.pt')[0].items()
    }
    save_exported(tmp_path / 'other.pth', state)
    trainer = build_trainer(Trainers.easycv, {**options, 'load_from': str(tmp_path / 'other.pth')})
    assert torch.equal(
        trainer.bare_model.decode_head.fusion_conv.conv.weight, state['decode_head.fusion_conv.conv.weight']
    )


def test_data_sets_of_every_kind_train(options, tiny_data):
    from datasets import Dataset
    from PIL import Image

    files = sorted((tiny_data / 'images' / 'train').iterdir())
    pairs = [
        (Image.open(file), np.array(Image.open(tiny_data / 'annotations' / 'train' / f'{file.stem}.png')))
        for file in files
    ]
    trainer = build_trainer(Trainers.easycv, {**options, 'max_epochs': 1, 'train_dataset': pairs})
    trainer.train()
    assert isinstance(trainer.train_dataset, SegDataset) and len(records(trainer)) == 4
    table = Dataset.from_dict(
        {
            'image': [str(file) for file in files],
            'label': [str(tiny_data / 'annotations' / 'train' / f'{file.stem}.png') for file in files],
        }
    )
    assert len(build_trainer(Trainers.easycv, {**options, 'train_dataset': table}).train_dataset) == 8


def test_what_is_wrong_with_the_data_reaches_the_user(options, tmp_path):
    with pytest.raises(DatasetError, match='nowhere'):
        build_trainer(Trainers.easycv, {**options, 'data_root': str(tmp_path / 'nowhere')})
    shutil.copytree(options['data_root'], tmp_path / 'data')
    (tmp_path / 'data' / 'annotations' / 'val' / '001.png').unlink()
    with pytest.raises(DatasetError, match=r'001.*this is the evaluation data; to train without'):
        build_trainer(Trainers.easycv, {**options, 'data_root': str(tmp_path / 'data')})
    trainer = build_trainer(
        Trainers.easycv, {**options, 'data_root': str(tmp_path / 'data'), 'cfg_options': {'evaluation.period': None}}
    )
    assert len(trainer.train_dataset) == 8


def test_wrong_arguments_are_named(options, tiny_model_dir):
    def with_hook(section):
        def modify(cfg):
            cfg = shrink(cfg)
            cfg.train.hooks = [*cfg.train.hooks, section]
            return cfg

        return {**options, 'cfg_modify_fn': modify}

    with pytest.raises(TrainingError, match='hook "NoSuchHook" is none of this package'):
        build_trainer(Trainers.easycv, with_hook({'type': 'NoSuchHook'}))
    with pytest.raises(TrainingError, match='neither model nor cfg_file'):
        build_trainer(Trainers.easycv, {'work_dir': options['work_dir']})
    with pytest.raises(TrainingError, match='cfg_modify_fn returned None'):
        build_trainer(Trainers.easycv, {**options, 'cfg_modify_fn': lambda cfg: None})
    trainer = build_trainer(
        Trainers.easycv, {**options, 'cfg_options': {'train.checkpoint.best': {'metric_key': 'mAP'}}}
    )
    with pytest.raises(ValueError, match='metric_key is "mAP", which is none of the evaluation\'s results'):
        trainer.train()


def test_callbacks_and_tensorboard_run(options):
    pytest.importorskip('tensorboard', reason='tensorboard is not installed: pip install ms-segformer[train]')
    from modelscope.trainers.hooks.hook import Hook

    seen = []

    class Callback(Hook):
        def after_train_iter(self, trainer):
            seen.append(trainer.iter)

    def modify(cfg):
        cfg = shrink(cfg)
        cfg.train.hooks = [*cfg.train.hooks, {'type': 'TensorboardHook', 'interval': 1}]
        return cfg

    trainer = build_trainer(
        Trainers.easycv, {**options, 'max_epochs': 1, 'callbacks': [Callback()], 'cfg_modify_fn': modify}
    )
    trainer.train()
    assert seen == [0, 1, 2, 3]
    assert list((Path(trainer.work_dir) / 'tensorboard_output').glob('events*'))
