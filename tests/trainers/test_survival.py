"""A run killed at any moment and resumed ends with the weights of an unbroken run; failures say what is safe."""

import contextlib
import errno
import json
import logging
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from modelscope.trainers import build_trainer
from modelscope.trainers.hooks.hook import Hook
from modelscope.trainers.hooks.priority import Priority
from tiny_run import CLASSES, shrink

from ms_segformer.datasets.errors import DatasetError
from ms_segformer.models.checkpoint import read_checkpoint
from ms_segformer.trainers import checkpoint_hooks, run_state, work_dir
from ms_segformer.trainers.errors import TrainingError


def weights(work_dir, name='epoch_3.pth'):
    return torch.load(Path(work_dir) / name, weights_only=True)['state_dict']


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert not [key for key in left if not torch.equal(left[key], right[key])]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory, tiny_data, tiny_model_dir, runs):
    """The run of 3 epochs of 4 iterations that nothing interrupts: its options and its folder."""
    folder = tmp_path_factory.mktemp('unbroken') / 'run'
    options = {
        'model': str(tiny_model_dir),
        'data_root': str(tiny_data),
        'classes': CLASSES,
        'seed': 3,
        'max_epochs': 3,
        'device': 'cpu',
        'work_dir': str(folder),
    }
    codes, output = runs(options)
    assert codes == [0], output
    return options, folder


@pytest.mark.parametrize(
    'kill_at, done',
    [(['iteration', 6], 4), (['saving', 2], 4), (['state', 2], 4), (['evaluating', 4], 8)],
    ids=['in an epoch', 'writing weights', 'writing the state', 'evaluating'],
)
def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(unbroken, tmp_path, runs, kill_at, done):
    options, folder = unbroken
    options = {**options, 'work_dir': str(tmp_path / 'run')}
    codes, output = runs({**options, 'kill_at': kill_at})
    assert codes == [-signal.SIGKILL], output
    codes, output = runs({**options, 'resume': True})
    assert codes == [0], output
    assert f'{done} of 12 iterations done' in output
    assert_same(weights(tmp_path / 'run'), weights(folder))
    assert_same(weights(tmp_path / 'run', 'output/pytorch_model.pt'), weights(folder))
    assert json.loads((tmp_path / 'run' / 'final.json').read_text()) == json.loads((folder / 'final.json').read_text())
    assert not [path.name for path in (tmp_path / 'run').iterdir() if path.name.startswith('.')]


# Checkpoints in the middle of epochs and of accumulations, with loading processes and an average of the weights.
HARD = {
    'train.hooks': [{'type': 'CheckpointHook', 'save_strategy': 'by_step', 'interval': 3}],
    'train.dataloader': {'batch_size_per_gpu': 2, 'workers_per_gpu': 2},
    'train.ema': 0.9,
    'train.optimizer.options': {'cumulative_iters': 2, 'grad_clip': {'max_norm': 1.0}},
    'evaluation.period': None,
}


def test_a_run_resumes_in_the_middle_of_an_epoch(unbroken, tmp_path, runs):
    options = {**unbroken[0], 'cfg_changes': HARD}
    for name, changes in (('whole', {}), ('broken', {'kill_at': ['iteration', 9]}), ('broken', {'resume': True})):
        codes, output = runs({**options, 'work_dir': str(tmp_path / name), **changes})
        assert codes == [-signal.SIGKILL if 'kill_at' in changes else 0], output
    assert '6 of 12 iterations done' in output
    assert_same(weights(tmp_path / 'broken', 'iter_12.pth'), weights(tmp_path / 'whole', 'iter_12.pth'))
    whole, broken = (
        torch.load(tmp_path / name / 'iter_12_trainer_state.pth', weights_only=True) for name in ('whole', 'broken')
    )
    assert_same(whole['model'], broken['model'])
    assert not torch.equal(
        whole['model']['decode_head.conv_seg.bias'],
        weights(tmp_path / 'whole', 'iter_12.pth')['decode_head.conv_seg.bias'],
    )


def test_a_finished_run_resumes_to_itself_without_evaluating_again(unbroken, runs):
    options, folder = unbroken
    before = weights(folder)
    codes, output = runs({**options, 'resume': True, 'kill_at': ['evaluating', 1]})  # would die if it evaluated
    assert codes == [0], output
    assert_same(weights(folder), before)


def test_a_checkpoint_has_the_original_layout(unbroken, tiny_model_dir):
    file = torch.load(unbroken[1] / 'epoch_3.pth', weights_only=True)
    published, _ = read_checkpoint(tiny_model_dir / 'pytorch_model.pt')
    assert file['meta']['CLASSES'] == CLASSES and len(file['meta']['PALETTE']) == 3
    assert (file['meta']['epoch'], file['meta']['iter']) == (3, 12)
    assert file['state_dict'].keys() == published.keys()


def test_a_loss_that_is_not_finite_stops_with_what_is_safe(options, monkeypatch):
    trainer = build_trainer('easycv', options)
    count = iter(range(100))
    losses = trainer.bare_model.losses

    def spoiled(logits, labels):
        return losses(logits * (float('nan') if next(count) == 5 else 1.0), labels)

    monkeypatch.setattr(trainer.bare_model, 'losses', spoiled)
    with pytest.raises(
        TrainingError,
        match=r'loss is nan at epoch 2, iteration 2 .*00.*\.jpg.*epoch_1\.pth, is safe.*'
        'train.optimizer.lr',
    ):
        trainer.train()


def test_a_full_disk_stops_with_what_is_safe(options, monkeypatch):
    trainer = build_trainer('easycv', options)
    save, count = torch.save, iter(range(100))

    def full(content, target, *args, **kwargs):
        if next(count) == 2:  # weights and state of the first epoch fit
            Path(target).write_bytes(b'half')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(content, target, *args, **kwargs)

    monkeypatch.setattr(torch, 'save', full)
    expected = r'could not write .*epoch_2\.pth .*No space.*MiB free.*epoch_1\.pth is safe'
    with pytest.raises(TrainingError, match=expected):
        trainer.train()
    names = sorted(path.name for path in Path(trainer.work_dir).glob('*epoch*'))
    assert names == ['epoch_1.pth', 'epoch_1_trainer_state.pth']
    assert_same(weights(trainer.work_dir, 'output/pytorch_model.pt'), weights(trainer.work_dir, 'epoch_1.pth'))


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs a file that is always full')
def test_a_log_file_without_room_stops_in_words(options, capsys):
    """`logging` prints a traceback for every line, and training went on."""
    trainer = build_trainer('easycv', options)
    handler = logging.FileHandler(f'{trainer.work_dir}/a.log', delay=True)
    handler.stream = open('/dev/full', 'w')
    trainer.logger.addHandler(handler)
    try:
        with pytest.raises(TrainingError, match=r'could not be written .*No space left on device.*a\.log.*Make room'):
            trainer.train()
        assert 'Logging error' not in capsys.readouterr().err
        trainer.logger.info('after it')
        assert 'Logging error' in capsys.readouterr().err, 'outside of a run logging does as ever'
    finally:
        trainer.logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.stream.close()


def test_a_work_dir_that_cannot_be_written_is_refused_at_once(options, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(TrainingError, match='file/run cannot be written .*work_dir='):
        build_trainer('easycv', {**options, 'work_dir': str(tmp_path / 'file' / 'run')})


def test_a_loading_process_that_dies_is_named(options):
    class Deadly(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            os.kill(os.getpid(), signal.SIGKILL)

    def workers(cfg):
        cfg = options['cfg_modify_fn'](cfg)
        cfg.train.dataloader['workers_per_gpu'] = 1
        return cfg

    trainer = build_trainer('easycv', {**options, 'train_dataset': Deadly(), 'cfg_modify_fn': workers})
    expected = 'data loading process died .*No checkpoint was written yet.*workers_per_gpu'
    with pytest.raises(TrainingError, match=expected):
        trainer.train()


def test_an_empty_split_is_refused(options, tmp_path):
    for folder in ('images/train', 'annotations/train'):
        (tmp_path / 'empty' / folder).mkdir(parents=True)
    with pytest.raises((TrainingError, DatasetError), match='no image'):
        build_trainer('easycv', {**options, 'data_root': str(tmp_path / 'empty')}).train()


def test_a_damaged_state_is_not_resumed(options, tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / 'epoch_1.pth').write_bytes(b'x')
    (folder / 'epoch_1_trainer_state.pth').write_bytes(b'x' * 10)
    with pytest.raises(TrainingError, match='cannot be read as a trainer state.*load_from'):
        run_state.read_state(folder / 'epoch_1_trainer_state.pth')
    with pytest.raises(TrainingError, match='no such file'):
        build_trainer('easycv', {**options, 'resume': str(tmp_path / 'nowhere' / 'epoch_1')}).train()


@pytest.mark.parametrize(
    'changes, said',
    [
        ({'max_epochs': 0}, 'max_epochs is 0'),
        ({'max_epochs': -2}, 'max_epochs is -2'),
        (
            {'cfg_options': {'train.dataloader.batch_size_per_gpu': 9, 'train.dataloader.drop_last': True}},
            r'8 samples in batches of 9 without the last, smaller one \(drop_last\)',
        ),
    ],
)
def test_training_on_nothing_is_an_error_that_names_what_is_safe(options, changes, said):
    with pytest.raises(TrainingError, match=f'nothing to train: .*{said}.*No checkpoint was written yet'):
        build_trainer('easycv', {**options, **changes}).train()
    build_trainer('easycv', {**options, 'max_epochs': 1}).train()
    for resume in (True, None):
        with pytest.raises(TrainingError, match=f'nothing to train: .*{said}.*epoch_1.pth, is safe'):
            build_trainer('easycv', {**options, **changes, 'resume': resume}).train()
    assert not (Path(options['work_dir']) / 'previous').exists()


def test_data_that_give_no_batch_are_an_error(options):
    class Nothing(torch.utils.data.Sampler):
        def __init__(self):
            pass

        def __iter__(self):
            return iter(())

        def __len__(self):
            return 8

    trainer = build_trainer('easycv', {**options, 'samplers': {'train': Nothing()}})
    with pytest.raises(TrainingError, match='gave no batch in epoch 1'):
        trainer.train()


@pytest.mark.parametrize('ema', [None, 0.9])
def test_weights_that_are_not_finite_are_not_saved(options, ema):
    trainer = build_trainer('easycv', {**options, 'ema': ema})
    trainer.register_hook(Spoiler(lambda trainer: trainer.iter == 7, lambda model: model.decode_head.conv_seg.bias))
    with pytest.raises(
        TrainingError,
        match=r'weights \(decode_head.conv_seg.bias\) are not finite after epoch 2, '
        r'iteration 4.*epoch_1\.pth, is safe.*train.optimizer.lr',
    ):
        trainer.train()
    folder = Path(trainer.work_dir)
    assert sorted(path.name for path in folder.glob('*.pth')) == ['epoch_1.pth', 'epoch_1_trainer_state.pth']
    assert_same(weights(folder, 'output/pytorch_model.pt'), weights(folder, 'epoch_1.pth'))


def test_a_run_without_checkpoints_does_not_end_well_with_weights_that_are_not_finite(options):
    trainer = build_trainer(
        'easycv',
        {**options, 'max_epochs': 1, 'cfg_options': {'train.checkpoint.period': None, 'evaluation.period': None}},
    )
    trainer.register_hook(Spoiler(lambda trainer: trainer.iter == 3, lambda model: model.decode_head.conv_seg.bias))
    with pytest.raises(TrainingError, match='not finite.*No checkpoint was written yet'):
        trainer.train()


def test_logits_that_are_not_finite_at_an_evaluation_name_what_is_safe(options):
    trainer = build_trainer('easycv', {**options, 'cfg_options': {'train.checkpoint.period.interval': 2}})
    trainer.register_hook(
        Spoiler(lambda trainer: trainer.iter == 11, lambda model: model.decode_head.conv_seg.weight, 3e38)
    )  # finite weights, whose products are not
    with pytest.raises(TrainingError, match=r'evaluating at epoch 3.*epoch_3\.pth, is safe.*train.optimizer.lr'):
        trainer.train()


class Spoiler(Hook):
    """Writes a value into a parameter after a step, as an optimizer does that diverges."""

    PRIORITY = Priority.ABOVE_NORMAL

    def __init__(self, when, parameter, value=float('nan')):
        self.when, self.parameter, self.value = when, parameter, value

    def after_train_iter(self, trainer):
        if self.when(trainer):
            self.parameter(trainer.model_to_save).data.fill_(self.value)


def test_infinite_gradients_under_a_scaler_are_no_error(options):
    """A scaler of float16 leaves out the steps of gradients that overflow; here without the GPU it is made for."""
    trainer = build_trainer('easycv', {**options, 'max_epochs': 1, 'cfg_options': {'evaluation.period': None}})
    skipped = []

    class Scaler:
        def scale(self, loss):
            return loss * (float('inf') if trainer.iter == 1 else 1.0)

        def step(self, optimizer):
            gradients = [p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
            if all(gradient.isfinite().all() for gradient in gradients):
                optimizer.step()
            else:
                skipped.append(trainer.iter)

        def update(self):
            pass

    trainer.prepare()
    (hook,) = (hook for hook in trainer.hooks if type(hook).__name__ == 'OptimizerHook')
    hook.scaler = Scaler()
    trainer.train()
    assert skipped == [1] and trainer.iter == 4


class TestWithinOneProcess:
    """What goes wrong between the checkpoints, and what changes between two attempts."""

    @pytest.fixture
    def run(self, options):
        def train(**changes):
            trainer = build_trainer('easycv', {**options, 'max_epochs': 1, **changes})
            trainer.train()
            return trainer

        return train

    def test_another_batch_size_goes_on_at_the_end_of_an_epoch(self, run):
        run(max_epochs=2)
        for batch, epochs in ((4, 3), (1, 4)):
            resumed = run(max_epochs=epochs, resume=True, cfg_options={'train.dataloader.batch_size_per_gpu': batch})
            assert (resumed.epoch, resumed.iter) == (epochs, epochs * 8 // batch)

    def test_a_full_disk_beside_the_checkpoints_says_which_one_is_safe(self, run, monkeypatch):
        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, 'No space left on device')

        for module, name in ((checkpoint_hooks, 'publish'), (work_dir, 'write_results')):
            monkeypatch.setattr(module, name, full)
            with pytest.raises(TrainingError, match='No space left.*epoch_1.pth, is safe.*Make room'):
                run()
            monkeypatch.undo()

    def test_results_beside_a_model_are_its_own(self, run, options):
        output = Path(options['work_dir']) / 'output'
        run(max_epochs=3, cfg_options={'evaluation.period': {'interval': 2}})
        assert read_checkpoint(output / 'pytorch_model.pt')[1]['epoch'] == 3
        assert not (output / 'eval_result.txt').exists()
        run(max_epochs=4, resume=True, cfg_options={'evaluation.period': {'interval': 2}})
        assert (output / 'eval_result.txt').is_file()

    def test_what_the_next_step_is_made_of_is_finite(self, run, options):
        trainer = run()
        prefix = Path(options['work_dir']) / 'epoch_1'
        state = dict(run_state.read_state(f'{prefix}_trainer_state.pth'))
        state['gradients'] = {'decode_head.conv_seg.bias': torch.full((3,), math.nan)}
        run_state.write_torch_file(f'{prefix}_trainer_state.pth', state)
        with pytest.raises(TrainingError, match='gradient of decode_head.conv_seg.bias is not finite'):
            run_state.read_pair(prefix)
        next(iter(trainer.optimizer.state.values()))['exp_avg'].fill_(math.inf)
        with pytest.raises(TrainingError, match="the optimizer's exp_avg of parameter 0.* not finite"):
            trainer.require_finite_weights()

    def test_a_best_checkpoint_that_is_gone_is_none(self, run, options):
        best = {'train.checkpoint.best': {'metric_key': 'mIoU', 'restore_best': True}}
        run(max_epochs=2, cfg_options=best)
        for path in Path(options['work_dir']).glob('best_*'):
            path.unlink()
        resumed = run(max_epochs=3, cfg_options=best, resume=True)
        assert resumed.epoch == 3 and list(Path(options['work_dir']).glob('best_*mIoU*'))

    @pytest.mark.parametrize('names', [['mDice'], ['mIoU']])
    def test_a_metric_that_no_evaluation_reports_is_an_error_before_training(self, options, names):
        def modify(cfg):
            cfg = shrink(cfg)
            cfg.evaluation.metrics.evaluators[0].metric_names = names
            return cfg

        arguments = {**options, 'cfg_modify_fn': modify}
        with pytest.raises(TrainingError, match='metric_key is "mWrong".*choose one'):
            build_trainer(
                'easycv', {**arguments, 'cfg_options': {'train.checkpoint.best': {'metric_key': 'mWrong'}}}
            ).train()
        assert not list(Path(options['work_dir']).glob('*.pth'))
        by_default = build_trainer('easycv', {**arguments, 'keep_checkpoints': 3, 'max_epochs': 1})
        by_default.train()
        assert bool(list(Path(options['work_dir']).glob('best_*'))) == (names == ['mIoU'])

    def test_a_folder_is_resumed_when_the_checkpoints_go_elsewhere(self, run, tmp_path):
        run(work_dir=str(tmp_path / 'first'))
        resumed = run(
            max_epochs=2,
            resume=str(tmp_path / 'first'),
            cfg_options={'train.checkpoint.period.save_dir': str(tmp_path / 'run' / 'points')},
        )
        assert resumed.iter == 8 and (tmp_path / 'run' / 'points' / 'epoch_2.pth').is_file()
