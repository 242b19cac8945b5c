"""Where the checkpoint hooks write, and how many of them there may be."""
from pathlib import Path

import pytest
from modelscope.trainers import build_trainer
from tiny_run import shrink

from ms_segformer.config import read_configuration
from ms_segformer.trainers import hooks
from ms_segformer.trainers.errors import TrainingError


def test_the_output_folders_that_were_asked_for_are_used(options, tmp_path):
    trainer = build_trainer('easycv', {**options, 'max_epochs': 1, 'cfg_options': {
        'train.checkpoint.best': {'metric_key': 'mIoU', 'output_dir': str(tmp_path / 'mine' / 'best')},
        'train.checkpoint.period': {'interval': 1, 'output_dir': str(tmp_path / 'mine' / 'last'),
                                    'save_dir': str(tmp_path / 'mine' / 'checkpoints')}}})
    trainer.train()
    for name in ('best', 'last'):
        assert read_configuration(tmp_path / 'mine' / name).model.head.num_classes == 3
        assert (tmp_path / 'mine' / name / 'pytorch_model.pt').is_file()
        assert (tmp_path / 'mine' / name / 'eval_result.txt').is_file()
    assert (tmp_path / 'mine' / 'checkpoints' / 'epoch_1.pth').is_file()
    assert not list(Path(trainer.work_dir).glob('output*'))


def test_checkpoints_in_a_folder_of_their_own_are_resumed_and_moved_aside_as_well(options, tmp_path, messages):
    folder = tmp_path / 'checkpoints'
    options = {**options, 'cfg_options': {'train.checkpoint.period': {'interval': 1, 'save_dir': str(folder)},
                                          'evaluation.period': None}}
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
        cfg.train.hooks = [*cfg.train.hooks, {'type': 'BestCkptSaverHook', 'metric_key': 'mIoU'},
                           {'type': second, 'metric_key': 'mAcc'}]
        return cfg
    with pytest.raises(TrainingError, match=r"two hooks for train\.checkpoint\.best: .*'mIoU'.*'mAcc'.*keep one"):
        build_trainer('easycv', {**options, 'cfg_modify_fn': modify})


def test_a_second_best_saver_among_the_callbacks_is_an_error(options):
    trainer = build_trainer('easycv', {**options, 'callbacks': [hooks.BestCkptSaverHook('mAcc')], 'cfg_options': {
        'train.checkpoint.best': {'metric_key': 'mIoU'}}})
    with pytest.raises(TrainingError, match='more than one BestCkptSaverHook'):
        trainer.train()


def test_each_hook_of_a_class_has_a_state_of_its_own(options):
    every_third = hooks.CheckpointHook(save_strategy='by_step', interval=3, max_checkpoint_num=1)
    options = {**options, 'max_epochs': 2, 'callbacks': [every_third], 'cfg_options': {
        'evaluation.period': None, 'train.checkpoint.period.max_checkpoint_num': 1}}
    build_trainer('easycv', options).train()
    folder = Path(options['work_dir'])
    kept = ['epoch_2.pth', 'iter_8.pth']
    assert sorted(path.name for path in folder.glob('*.pth') if 'state' not in path.name) == kept
    again = hooks.CheckpointHook(save_strategy='by_step', interval=3, max_checkpoint_num=1)
    build_trainer('easycv', {**options, 'max_epochs': 3, 'resume': True, 'callbacks': [again]}).train()
    assert sorted(path.name for path in folder.glob('*.pth') if 'state' not in path.name) == [
        'epoch_3.pth', 'iter_12.pth']
    assert again.history_checkpoints == ['iter_12']


def test_the_name_of_a_class_leads_nowhere(options):
    names = ['sky', 'grass', '../../../up']
    trainer = build_trainer('easycv', {**options, 'classes': names, 'max_epochs': 1, 'cfg_options': {
        'train.checkpoint.best': {'metric_key': f'IoU.{names[2]}'}}})
    trainer.train()
    assert list(Path(trainer.work_dir).glob('best_epoch1_IoU.*up*.pth'))
