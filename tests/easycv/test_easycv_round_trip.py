"""Training runs side by side, and model directories from one package in the other."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

EPOCHS = 5


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Six training and three validation pairs of 96×64 pixels, in the layout of SegSourceRaw."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.RandomState(0)
    for split, count in (('train', 6), ('val', 3)):
        (root / split / 'images').mkdir(parents=True)
        (root / split / 'labels').mkdir()
        names = [f'{split}_{i}' for i in range(count)]
        for name in names:
            labels = rng.randint(0, 6, (4, 6)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
            image = np.stack([labels * 40, 255 - labels * 30, labels * 15 + 60], -1).astype(np.uint8)
            image = cv2.add(image, rng.randint(0, 20, image.shape).astype(np.uint8))
            labels[:4] = 255
            cv2.imwrite(str(root / split / 'images' / f'{name}.jpg'), image)
            cv2.imwrite(str(root / split / 'labels' / f'{name}.png'), labels)
        (root / f'{split}.txt').write_text('\n'.join(names) + '\n')
    return root


def _configure(images, work_dir, **lr_scheduler):
    """A change of the tiny model's configuration that leaves nothing to chance: whole images, every batch the same."""

    def change(configuration):
        configuration['model'].update(pretrained=False)
        configuration['model']['backbone']['drop_path_rate'] = 0.0
        configuration['model']['decode_head']['dropout_ratio'] = 0.0
        normalize = {
            'type': 'MMNormalize',
            'mean': [123.675, 116.28, 103.53],
            'std': [58.395, 57.12, 57.375],
            'to_rgb': True,
        }
        meta_keys = [
            'filename',
            'ori_filename',
            'ori_shape',
            'img_shape',
            'pad_shape',
            'scale_factor',
            'flip',
            'flip_direction',
            'img_norm_cfg',
        ]
        for split in ('train', 'val'):
            configuration['dataset'][split]['data_source'].update(
                img_root=f'{images}/{split}/images/',
                label_root=f'{images}/{split}/labels/',
                label_suffix='.png',
                split=f'{images}/{split}.txt',
                num_processes=1,
            )
        configuration['dataset']['train']['pipeline'] = [
            {'type': 'MMResize', 'img_scale': (96, 64), 'keep_ratio': True},
            {'type': 'MMRandomFlip', 'flip_ratio': 0.0},
            normalize,
            {'type': 'DefaultFormatBundle'},
            {'type': 'Collect', 'keys': ['img', 'gt_semantic_seg'], 'meta_keys': meta_keys},
        ]
        configuration['dataset']['val']['pipeline'] = [
            {
                'type': 'MMMultiScaleFlipAug',
                'img_scale': (96, 64),
                'flip': False,
                'transforms': [
                    {'type': 'MMResize', 'keep_ratio': True},
                    {'type': 'MMRandomFlip'},
                    normalize,
                    {'type': 'ImageToTensor', 'keys': ['img']},
                    {'type': 'Collect', 'keys': ['img'], 'meta_keys': meta_keys},
                ],
            }
        ]
        train = configuration['train']
        train.update(
            work_dir=str(work_dir), max_epochs=EPOCHS, dataloader={'batch_size_per_gpu': 6, 'workers_per_gpu': 0}
        )
        train['optimizer'] = {'type': 'AdamW', 'lr': 1e-3, 'betas': [0.9, 0.999], 'weight_decay': 0.01, 'options': {}}
        train['lr_scheduler'] = lr_scheduler or {
            'policy': 'poly',
            'warmup': 'linear',
            'warmup_iters': 2,
            'warmup_ratio': 1e-3,
            'power': 1.0,
            'min_lr': 0.0,
            'by_epoch': False,
        }
        train['hooks'] = [
            {'type': 'CheckpointHook', 'interval': 1},
            {'type': 'EvaluationHook', 'interval': 1},
            {'type': 'AddLrLogHook'},
            {'type': 'IterTimerHook'},
            {'type': 'TextLoggerHook', 'interval': 1},
        ]
        # One iteration like an epoch of training: after an evaluation theirs takes the length of the evaluation for
        # that of the training, and sets the next learning rate by it.
        configuration['evaluation']['dataloader'] = {'batch_size_per_gpu': 3, 'workers_per_gpu': 0}

    return change


class Run:
    """A finished training run: learning rate and loss of every iteration, metrics of the last evaluation."""

    def __init__(self, trainer, work_dir, hooks=()):
        self.rates, self.losses = [], []
        run = self

        class Record:
            PRIORITY = 45

            def after_train_iter(self, trainer):
                run.rates.append([group['lr'] for group in trainer.optimizer.param_groups])
                run.losses.append(float(trainer.train_outputs['loss']))

        for hook in (Record(), *hooks):
            trainer.register_hook(hook)
        trainer.train()
        self.metrics = trainer.metric_values
        self.output = work_dir / 'output'
        self.trainer = trainer


@pytest.fixture(scope='module')
def train_theirs(easycv, tiny_model_dir, images, tmp_path_factory):
    """Function: trains the tiny model with EasyCV's trainer, all of its classes, and returns the `Run`."""
    from ms_segformer.config.jsonplus import decode_jsonplus

    def train(**lr_scheduler):
        folder = tmp_path_factory.mktemp('theirs')
        model_dir = _copy(tiny_model_dir, folder / 'model', _configure(images, folder / 'work', **lr_scheduler))
        path = model_dir / 'configuration.json'
        configuration = json.loads(path.read_text())
        configuration['load_from'] = str(model_dir / 'pytorch_model.pt')  # the only weights it looks at
        path.write_text(json.dumps(configuration))
        current_device, torch.cuda.current_device = torch.cuda.current_device, lambda: 0  # it asks without CUDA too
        try:
            import ms_segformer

            ms_segformer.deactivate()
            data = {
                split: easycv.SegDataset(**{key: value for key, value in section.items() if key != 'type'})
                for split, section in decode_jsonplus(configuration)['dataset'].items()
            }
            return Run(
                easycv.Trainer(cfg_file=str(path), train_dataset=data['train'], eval_dataset=data['val'], seed=0),
                folder / 'work',
            )
        finally:
            ms_segformer.activate()
            torch.cuda.current_device = current_device

    return train


def _copy(source, target, change):
    from ms_segformer.config.jsonplus import encode_jsonplus

    shutil.copytree(source, target)
    path = target / 'configuration.json'
    configuration = json.loads(path.read_text())
    change(configuration)
    path.write_text(json.dumps(encode_jsonplus(configuration)))
    return target


@pytest.fixture(scope='module')
def train_ours(easycv, tiny_model_dir, images, tmp_path_factory):
    """Function: trains the same with our trainer, from a model directory."""
    from modelscope.metainfo import Trainers
    from modelscope.trainers import build_trainer

    def train(model_dir=tiny_model_dir, hooks=(), registered=(), **lr_scheduler):
        folder = tmp_path_factory.mktemp('ours')
        configure = _configure(images, folder / 'work', **lr_scheduler)

        def change(configuration):
            configure(configuration)
            configuration['train']['hooks'] += list(hooks)

        copy = _copy(model_dir, folder / 'model', change)
        # In code: where a configuration file would have it written, away from the present folder, is not followed.
        trainer = build_trainer(
            Trainers.easycv, {'model': str(copy), 'seed': 0, 'device': 'cpu', 'work_dir': str(folder / 'work')}
        )
        return Run(trainer, folder / 'work', registered)

    return train


@pytest.fixture(scope='module')
def their_run(train_theirs):
    return train_theirs()


@pytest.fixture(scope='module')
def our_run(train_ours):
    return train_ours()


def test_a_whole_run_is_the_same(our_run, their_run):
    """Rates exactly; losses and metrics as far as rounding in AdamW's early steps leaves them."""
    assert type(our_run.trainer).__module__.startswith('ms_segformer')
    assert type(their_run.trainer).__module__.startswith('easycv')
    assert len(our_run.losses) == len(their_run.losses) == EPOCHS
    for ours, theirs in zip(our_run.rates, their_run.rates, strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    assert our_run.losses[0] == pytest.approx(their_run.losses[0], rel=1e-6)
    assert our_run.losses == pytest.approx(their_run.losses, rel=1e-3)
    assert our_run.metrics.keys() == their_run.metrics.keys()


POLICIES = {
    'poly with exponential warm-up': {
        'policy': 'poly',
        'power': 0.9,
        'min_lr': 1e-5,
        'by_epoch': False,
        'warmup': 'exp',
        'warmup_iters': 2,
        'warmup_ratio': 0.1,
    },
    'poly by epoch': {'policy': 'poly', 'power': 1.0, 'min_lr': 0.0, 'by_epoch': True},
    'step': {'policy': 'step', 'step': [2, 4], 'gamma': 0.1},
    'fixed with constant warm-up': {'policy': 'fixed', 'warmup': 'constant', 'warmup_iters': 3, 'warmup_ratio': 0.5},
    'CosineAnnealing': {'policy': 'CosineAnnealing', 'min_lr': 1e-6, 'by_epoch': False},
    'CosineRestart': {'policy': 'CosineRestart', 'periods': [2, 3], 'restart_weights': [1, 0.5], 'min_lr': 1e-6},
    'StepFixCosineAnnealing': {
        'policy': 'StepFixCosineAnnealing',
        'min_lr': 1e-6,
        'by_epoch': False,
        'warmup': 'linear',
        'warmup_iters': 2,
        'warmup_ratio': 1e-3,
    },
}


@pytest.mark.parametrize('policy', POLICIES)
def test_the_learning_rates_of_a_policy_are_the_same(train_ours, train_theirs, policy):
    ours, theirs = train_ours(**POLICIES[policy]), train_theirs(**POLICIES[policy])
    np.testing.assert_allclose([rates[0] for rates in ours.rates], [rates[0] for rates in theirs.rates], rtol=1e-12)


def test_a_hook_of_easycvs_that_a_configuration_names_runs_in_our_trainer(train_ours):
    from easycv.hooks import HOOKS
    from mmcv.runner import Hook

    class CountingHook(Hook):
        """A user's own, registered in EasyCV as its documentation says."""

        def __init__(self, every):
            self.every, self.seen = every, []

        def after_train_iter(self, runner):
            if self.every_n_iters(runner, self.every):
                self.seen.append((runner.epoch, runner.iter, self.is_last_iter(runner)))

    HOOKS.register_module(CountingHook, force=True)
    run = train_ours(hooks=[{'type': 'CountingHook', 'every': 2}, {'type': 'ThroughputHook'}])
    foreign = {type(hook).__name__: hook.foreign for hook in run.trainer.hooks if hasattr(hook, 'foreign')}
    assert foreign.keys() == {'CountingHook', 'ThroughputHook'}
    assert foreign['CountingHook'].seen == [(1, 1, False), (3, 3, False)]
    assert foreign['ThroughputHook']._iter_count == 1  # it starts anew every epoch


def test_easycvs_moving_average_follows_our_model(train_ours):
    from ms_segformer.integrations.easycv import bridge

    run = train_ours(registered=[bridge.build_hook({'type': 'EMAHook', 'decay': 0.9})])
    ema = bridge._runners[run.trainer].ema
    assert ema.updates == EPOCHS
    averaged, trained = ema.model.state_dict(), run.trainer.model.state_dict()
    assert averaged.keys() == trained.keys()
    assert any((averaged[name] != trained[name]).any() for name in trained)


def _agree(ours, theirs, paths):
    for path in paths:
        label_map, margin = theirs.segment(path)
        different = ours(str(path))['seg_map'] != label_map
        assert not (different & (margin >= 1e-3)).any(), path.name


@pytest.fixture
def segment():
    from modelscope.pipelines import pipeline

    return lambda model: pipeline('image-segmentation', str(model))


def test_a_model_trained_here_opens_in_easycv(our_run, segment, open_in_easycv, images):
    paths = sorted((images / 'val' / 'images').iterdir())
    _agree(segment(our_run.output), open_in_easycv(our_run.output), paths)


def test_a_model_trained_by_easycv_opens_here(their_run, segment, open_in_easycv, copy_model, images, tmp_path):
    """EasyCV itself cannot open the configuration it exports (tuples became lists): it gets the one it trained by."""
    usable = copy_model(their_run.output, tmp_path / 'usable')
    shutil.copy(their_run.output.parents[1] / 'model' / 'configuration.json', usable / 'configuration.json')
    theirs = open_in_easycv(usable)
    paths = sorted((images / 'val' / 'images').iterdir())
    _agree(segment(their_run.output), theirs, paths)
    with pytest.raises(AssertionError):
        open_in_easycv(their_run.output).segment(paths[0])


def test_a_model_trained_by_easycv_continues_training_here(their_run, train_ours):
    run = train_ours(model_dir=their_run.output)
    assert run.losses[0] < their_run.losses[-2]
    assert np.isfinite(run.losses).all()
