"""What a run refuses before a model is loaded or anything is written."""

import math
from pathlib import Path

import pytest
from modelscope.trainers import build_trainer

from ms_segformer.config.messages import ConfigurationError
from ms_segformer.models.segformer import Segformer
from ms_segformer.trainers.checks import require_decay
from ms_segformer.trainers.errors import TrainingError
from ms_segformer.trainers.optimizer import OPTIMIZERS

LIKE_PUBLISHED = {'cfg_modify_fn': None}


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'seed': -1}, 'seed is -1; expected an integer from 0 to 4294967295'),
        ({'seed': 2**32}, 'seed is 4294967296; expected'),
        ({'seed': True}, 'seed is True'),
        ({'seed': None}, 'seed is None'),
        ({'seed': 1.5}, 'seed is 1.5'),
        ({'amp': 'fp16'}, 'train.amp is fp16, which needs a GPU'),
        ({'use_fp16': True}, 'train.amp is fp16, which needs'),
        ({'amp': 'int8'}, "train.amp is 'int8'; accepted: bf16, fp16, or null"),
        ({'amp': ['bf16']}, r"train.amp is \['bf16'\]; accepted"),
        ({'ema': 1}, 'train.ema is 1; expected a decay between 0 and 1'),
        ({'ema': 'x'}, "train.ema is 'x'"),
        ({'ema': math.nan}, 'train.ema is nan'),
    ],
)
def test_arguments(options, arguments, message):
    refused({**options, **arguments}, message)


@pytest.mark.parametrize(
    'key, value, message',
    [
        (
            'train.optimizer.type',
            'Adamm',
            r"train.optimizer.type is 'Adamm' \(did you mean Adam\?\); accepted: ASGD, .*SGD",
        ),
        ('train.optimizer.type', 'Optimizer', "train.optimizer.type is 'Optimizer'"),
        ('train.optimizer.type', 'lr_scheduler', "train.optimizer.type is 'lr_scheduler'"),
        ('train.optimizer.lr', None, 'train.optimizer.lr is missing; expected a number of at least 0'),
        ('train.optimizer', {'_delete_': True, 'type': 'SGD'}, 'train.optimizer.lr is missing; expected'),
        ('train.optimizer.type', 'LBFGS', "train.optimizer.type is 'LBFGS'"),
        (
            'train.lr_scheduler.policy',
            'polly',
            r"train.lr_scheduler.policy is 'polly' \(did you mean poly\?\); accepted: ",
        ),
        (
            'train.lr_scheduler',
            {'_delete_': True, 'type': 'StepLRR'},
            r"names no policy, and type is 'StepLRR' \(did you mean StepLR\?\)",
        ),
        ('train.lr_scheduler', {'_delete_': True, 'by_epoch': True}, 'names no policy, and type is None'),
        ('train.hooks', [{'type': 'SomebodysHook', 'rate': {'of': math.nan}}], 'train.hooks.[0-9].rate.of is NaN'),
        (
            'dataset.train.pipeline',
            [{'type': 'SegRandomCrop', 'crop_size': [8, 8]}],
            r'dataset.train.pipeline\[0\].crop_size is \[8, 8\]; accepted: sides of at least 29 pixels',
        ),
        (
            'dataset.train.pipeline',
            [{'type': 'SegRandomCrop', 'crop_size': 28}],
            r'crop_size is \[28\]; accepted: sides',
        ),
        ('train.amp', 'fp16', 'train.amp is fp16, which needs a GPU'),
        ('train.hooks', [{'type': 'AMPFP16OptimizerHook'}], 'train.amp is fp16, which needs a GPU'),
        ('train.ema', 1.0, 'train.ema is 1.0'),
        ('train.hooks', [{'type': 'EMAHook', 'decay': 7}], 'train.ema is 7'),
    ],
)
def test_what_a_configuration_says(options, key, value, message):
    refused({**options, **LIKE_PUBLISHED, 'cfg_options': {key: value}}, message)


@pytest.mark.parametrize(
    'key, value',
    [
        ('train.optimizer.lr', math.nan),
        ('train.optimizer.lr', -1),
        ('train.dataloader.batch_size_per_gpu', 0),
        ('train.optimizer.betas', [math.nan, 0.9]),
        ('train.hooks', 5),
        ('train.optimizer', 5),
        ('train.lr_scheduler', 'poly'),
        ('train.lr_scheduler.policy', 5),
    ],
)
def test_values_of_another_kind(options, key, value):
    refused(
        {**options, **LIKE_PUBLISHED, 'cfg_options': {key: value}},
        rf'{key} is .*(accepted|expected)',
        (ConfigurationError, TrainingError),
    )


@pytest.mark.parametrize('below', ['', '/below'])
def test_a_work_directory_that_is_a_file(options, tmp_path, below):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(TrainingError, match=rf'work_dir {tmp_path}/file{below} (is a file|cannot be written .*); '):
        build_trainer('easycv', {**options, 'work_dir': f'{tmp_path}/file{below}'})
    assert (tmp_path / 'file').read_text() == 'mine'


def refused(options, message, errors=TrainingError):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segformer, '__init__', lambda *args, **more: pytest.fail('builds a model'))
        with pytest.raises(errors, match=message) as caught:
            build_trainer('easycv', options)
    assert '\n' not in str(caught.value) and not Path(options['work_dir']).exists()


def test_null_is_the_default_for_the_loader_and_for_the_number_of_epochs(options):
    names = ('timeout', 'prefetch_factor', 'workers_per_gpu', 'batch_size_per_gpu', 'drop_last')
    trainer = build_trainer(
        'easycv',
        {
            **options,
            'max_epochs': None,
            'cfg_options': {'train.max_epochs': 7, **{f'train.dataloader.{name}': None for name in names}},
        },
    )
    assert trainer.max_epochs == 7
    loader = trainer.get_train_dataloader()
    assert (loader.timeout, loader.num_workers, loader.batch_size, loader.drop_last) == (0, 0, 1, False)


def test_optimizers_that_are_given_do_not_need_to_be_named(options):
    import torch

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    build_trainer(
        'easycv',
        {
            **options,
            'optimizers': (optimizer, schedule),
            'cfg_options': {'train.optimizer.type': 'Mine', 'train.lr_scheduler.policy': 'mine'},
        },
    )


def test_optimizers_are_optimizers():
    assert {'AdamW', 'SGD', 'RMSprop'} <= set(OPTIMIZERS) and not {'Optimizer', 'lr_scheduler'} & set(OPTIMIZERS)
    for decay in (None, True, False, 0.5, 0.9998):
        require_decay(decay)


def test_data_without_a_validation_split_is_trained_on(options, tiny_data, tmp_path, messages):
    for kind in ('images', 'annotations'):
        (tmp_path / 'data' / kind).mkdir(parents=True)
        (tmp_path / 'data' / kind / 'train').symlink_to(tiny_data / kind / 'train')
    trainer = build_trainer('easycv', {**options, 'data_root': str(tmp_path / 'data'), 'max_epochs': 1})
    trainer.train()
    assert (tmp_path / 'run' / 'output' / 'pytorch_model.pt').is_file() and trainer.metric_values is None
    assert [line for line in messages if 'evaluation' in line] == [
        'there is no evaluation data: this run is trained without evaluations'
    ]
    with pytest.raises(TrainingError, match='there is no evaluation data: pass eval_dataset, or a configuration with'):
        trainer.evaluate()
