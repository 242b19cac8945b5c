"""Where the checkpoint hooks write, and how many of them there may be; the live line."""

import io
import logging
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from modelscope.trainers import build_trainer
from tiny_run import shrink

from ms_segformer.config.reader import read_configuration
from ms_segformer.trainers import hooks
from ms_segformer.trainers.errors import TrainingError


def test_the_output_folders_that_were_asked_for_are_used(options, tmp_path):
    trainer = build_trainer(
        'easycv',
        {
            **options,
            'max_epochs': 1,
            'cfg_options': {
                'train.checkpoint.best': {'metric_key': 'mIoU', 'output_dir': str(tmp_path / 'mine' / 'best')},
                'train.checkpoint.period': {
                    'interval': 1,
                    'output_dir': str(tmp_path / 'mine' / 'last'),
                    'save_dir': str(tmp_path / 'mine' / 'checkpoints'),
                },
            },
        },
    )
    trainer.train()
    for name in ('best', 'last'):
        assert read_configuration(tmp_path / 'mine' / name).model.head.num_classes == 3
        assert (tmp_path / 'mine' / name / 'pytorch_model.pt').is_file()
        assert (tmp_path / 'mine' / name / 'eval_result.txt').is_file()
    assert (tmp_path / 'mine' / 'checkpoints' / 'epoch_1.pth').is_file()
    assert not list(Path(trainer.work_dir).glob('output*'))


def test_checkpoints_in_a_folder_of_their_own_are_resumed_and_moved_aside_as_well(options, tmp_path, messages):
    folder = tmp_path / 'checkpoints'
    options = {
        **options,
        'cfg_options': {'train.checkpoint.period': {'interval': 1, 'save_dir': str(folder)}, 'evaluation.period': None},
    }
    build_trainer('easycv', {**options, 'max_epochs': 2}).train()
    build_trainer('easycv', {**options, 'max_epochs': 2, 'resume': True}).train()
    assert [message for message in messages if '8 of 8 iterations done' in message]
    build_trainer('easycv', {**options, 'max_epochs': 1}).train()
    assert [path.name for path in folder.glob('epoch_?.pth')] == ['epoch_1.pth']
    assert len(list((folder / 'previous' / '1').glob('epoch_?.pth'))) == 2


@pytest.mark.parametrize('second', ['BestCkptSaverHook', 'BestCkptSaver'])
def test_a_second_best_saver_in_the_configuration_is_an_error(options, second):
    def modify(cfg):
        cfg = shrink(cfg)
        cfg.train.hooks = [
            *cfg.train.hooks,
            {'type': 'BestCkptSaverHook', 'metric_key': 'mIoU'},
            {'type': second, 'metric_key': 'mAcc'},
        ]
        return cfg

    with pytest.raises(TrainingError, match=r"two hooks for train\.checkpoint\.best: .*'mIoU'.*'mAcc'.*keep one"):
        build_trainer('easycv', {**options, 'cfg_modify_fn': modify})


def test_a_second_best_saver_among_the_callbacks_is_an_error(options):
    trainer = build_trainer(
        'easycv',
        {
            **options,
            'callbacks': [hooks.BestCkptSaverHook('mAcc')],
            'cfg_options': {'train.checkpoint.best': {'metric_key': 'mIoU'}},
        },
    )
    with pytest.raises(TrainingError, match='more than one BestCkptSaverHook'):
        trainer.train()


def test_each_hook_of_a_class_has_a_state_of_its_own(options):
    every_third = hooks.CheckpointHook(save_strategy='by_step', interval=3, max_checkpoint_num=1)
    options = {
        **options,
        'max_epochs': 2,
        'callbacks': [every_third],
        'cfg_options': {'evaluation.period': None, 'train.checkpoint.period.max_checkpoint_num': 1},
    }
    build_trainer('easycv', options).train()
    folder = Path(options['work_dir'])
    kept = ['epoch_2.pth', 'iter_8.pth']
    assert sorted(path.name for path in folder.glob('*.pth') if 'state' not in path.name) == kept
    again = hooks.CheckpointHook(save_strategy='by_step', interval=3, max_checkpoint_num=1)
    build_trainer('easycv', {**options, 'max_epochs': 3, 'resume': True, 'callbacks': [again]}).train()
    assert sorted(path.name for path in folder.glob('*.pth') if 'state' not in path.name) == [
        'epoch_3.pth',
        'iter_12.pth',
    ]
    assert again.history_checkpoints == ['iter_12']


def test_the_name_of_a_class_leads_nowhere(options):
    names = ['sky', 'grass', '../../../up']
    trainer = build_trainer(
        'easycv',
        {
            **options,
            'classes': names,
            'max_epochs': 1,
            'cfg_options': {'train.checkpoint.best': {'metric_key': f'IoU.{names[2]}'}},
        },
    )
    trainer.train()
    assert list(Path(trainer.work_dir).glob('best_epoch1_IoU.*up*.pth'))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=['of no size', 'that has none to ask'])
def terminal(request):
    """A standard error stream that is a terminal, as text: in containers terminals are often of size 0."""
    stream, (ours, theirs) = Terminal(), os.openpty()
    if request.param == 'of no size':
        stream.fileno = lambda: theirs
    yield stream
    os.close(ours)
    os.close(theirs)


def test_a_terminal_shows_where_the_run_is(options, monkeypatch, terminal):
    monkeypatch.setattr('sys.stderr', terminal)
    trainer = build_trainer('easycv', {**options, 'max_epochs': 2})
    handlers = list(trainer.logger.handlers)
    trainer.train()
    lines = [line for line in re.split(r'[\r\n]+', terminal.getvalue()) if line.startswith('epoch ')]
    assert lines[0].strip() == 'epoch 1/2, iteration 0/4'
    assert re.match(r'epoch 2/2, iteration 4/4, loss \d\.\d{4}, \d+\.\d images/s, 0:00:00 left', lines[-1])
    assert trainer.logger.handlers == handlers


def test_a_run_that_fails_ends_the_live_line(options, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr('sys.stderr', terminal)
    trainer = build_trainer('easycv', {**options, 'max_epochs': 2})
    monkeypatch.setattr(trainer, 'require_finite_weights', lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert re.search(r'epoch 1/2, iteration 4/4, .* left *\n[^e]*$', terminal.getvalue())


def test_the_rate_is_without_evaluations_and_a_mean(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(hooks.time, 'monotonic', lambda: now[0])
    trainer = SimpleNamespace(
        epoch=0,
        max_epochs=2,
        iter=0,
        inner_iter=0,
        max_iters=100,
        iters_per_train_epoch=50,
        world_size=2,
        train_dataloader=SimpleNamespace(batch_size=3),
        logger=logging.getLogger('nobody'),
        log_buffer=SimpleNamespace(val_history={'loss': [0.5]}),
    )
    hook = hooks.ProgressHook(show=True)
    hook.before_run(trainer)
    hook.before_train_epoch(trainer)
    for took in (2, 2, 4):
        hook.before_val(trainer)
        now[0] += 1000
        hook.after_val(trainer)
        now[0] += took
        hook.after_train_iter(trainer)
        trainer.iter += 1
        trainer.inner_iter += 1
    assert hook.bar.desc == 'epoch 1/2, iteration 3/50, loss 0.5000, 2.6 images/s, 0:03:43 left'
    hook.close()
    hook.close()
