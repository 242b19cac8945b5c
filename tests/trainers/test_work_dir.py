"""Several runs in one working directory: nothing of an earlier one is lost, and the newest one goes on."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from modelscope.trainers import build_trainer
from tiny_run import shrink

from ms_segformer.models.checkpoint import read_checkpoint
from ms_segformer.trainers import hooks, resuming, run_state, work_dir
from ms_segformer.trainers.errors import TrainingError

QUICK = {'evaluation.period': None}


@pytest.fixture
def run(options):
    """`run(**changes)` trains once in the same folder and returns the trainer; without evaluation by default."""

    def train(**changes):
        trainer = build_trainer('easycv', {**options, 'cfg_options': QUICK, **changes})
        trainer.train()
        return trainer

    return train


@pytest.fixture
def folder(options):
    return Path(options['work_dir'])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and '.log' not in path.suffixes
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth') if 'trainer_state' not in path.name)


def test_a_fresh_run_moves_the_earlier_one_aside_and_deletes_nothing(run, folder, messages):
    run(max_epochs=3, cfg_options={})
    (folder / 'notes.txt').write_text('mine')
    (folder / 'epoch_final.pth').write_text('mine too')
    before = files(folder)
    run(max_epochs=1, seed=4, cfg_options={**QUICK, 'train.checkpoint.period.max_checkpoint_num': 1})
    assert names(folder) == ['epoch_1.pth', 'epoch_final.pth']
    after = files(folder)
    for name, content in before.items():
        if name in ('notes.txt', 'epoch_final.pth'):
            assert after[name] == content
        else:
            assert after[f'previous/1/{name}'] == content
    assert read_checkpoint(folder / 'output' / 'pytorch_model.pt')[1]['epoch'] == 1
    (said,) = (message for message in messages if 'holds an earlier run' in message)
    assert f'moved to {folder}/previous/1; nothing was deleted' in said


def test_the_newest_run_is_resumed_however_far_an_earlier_one_came(run, folder):
    run(max_epochs=3)
    second = run(max_epochs=1, seed=4)
    output = files(folder / 'output')
    resumed = run(max_epochs=1, seed=4, resume=True)
    assert (resumed.run, resumed.iter, files(folder / 'output')) == (second.run, 4, output)
    longer = run(max_epochs=2, seed=4, resume=True)
    assert longer.run == second.run and names(folder) == ['epoch_1.pth', 'epoch_2.pth']


def test_an_earlier_run_is_gone_on_with_by_its_folder(run, folder, messages):
    first = run(max_epochs=2)
    second = run(max_epochs=1, seed=4)
    third = run(max_epochs=3, resume=str(folder / 'previous' / '1'))
    assert len({first.run, second.run, third.run}) == 3
    assert [message for message in messages if '8 of 12 iterations done' in message]
    assert names(folder) == ['epoch_2.pth', 'epoch_3.pth']  # the moment it began with is its own checkpoint as well
    assert names(folder / 'previous' / '1') == ['epoch_1.pth', 'epoch_2.pth']
    assert names(folder / 'previous' / '2') == ['epoch_1.pth']
    in_place = run(max_epochs=3, resume=True, work_dir=str(folder / 'previous' / '1'))
    assert in_place.run == first.run and names(folder / 'previous' / '1')[-1] == 'epoch_3.pth'


def test_going_back_to_an_earlier_checkpoint_keeps_the_later_ones(run, folder):
    first = run(max_epochs=3)
    before = files(folder)
    second = run(max_epochs=3, resume=str(folder / 'epoch_1.pth'))
    assert second.run != first.run
    assert files(folder / 'previous' / '1') == before
    for name in ('epoch_2.pth', 'epoch_3.pth'):
        left, right = (read_checkpoint(where / name)[0] for where in (folder, folder / 'previous' / '1'))
        assert all(torch.equal(left[key], right[key]) for key in left)


def test_a_run_killed_before_its_first_checkpoint_begins_again_and_not_with_an_earlier_one(
    run, folder, messages, options
):
    run(max_epochs=2)
    trainer = build_trainer('easycv', {**options, 'cfg_options': QUICK, 'seed': 4})
    trainer.train_loop = lambda loader: None  # as if killed at once
    trainer.train()
    resumed = run(max_epochs=1, seed=4, resume=True)
    assert resumed.iter == 4
    (said,) = (message for message in messages if 'has no checkpoint to go on from' in message)
    assert f'Earlier runs lie in {folder}/previous' in said
    assert [path.name for path in (folder / 'previous').iterdir()] == ['1']


def test_a_run_that_began_with_another_s_checkpoint_still_does_after_it_was_killed_at_once(run, folder, options):
    run(max_epochs=2)
    trainer = build_trainer('easycv', {**options, 'cfg_options': QUICK, 'resume': str(folder / 'epoch_1')})
    trainer.train_loop = lambda loader: None
    trainer.train()
    assert names(folder) == []
    resumed = run(max_epochs=2, resume=True)
    assert resumed.run == trainer.run
    left, right = (read_checkpoint(where / 'epoch_2.pth')[0] for where in (folder, folder / 'previous' / '1'))
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_an_attempt_that_wrote_no_checkpoint_is_not_kept(run, folder, options):
    for _ in range(2):
        trainer = build_trainer('easycv', {**options, 'cfg_options': QUICK})
        trainer.train_loop = lambda loader: None
        trainer.train()
    assert not (folder / 'previous').exists()


def kill_after(monkeypatch, done: int) -> None:
    """As if the process were killed after so many renames and records."""
    count = iter(range(100))

    def killed(step):
        def call(*args):
            if next(count) == done:
                raise KeyboardInterrupt
            return step(*args)

        return call

    monkeypatch.setattr(work_dir.os, 'rename', killed(os.rename))
    monkeypatch.setattr(work_dir, '_write_record', killed(work_dir._write_record))


@pytest.mark.parametrize('done', range(10))
def test_moving_may_be_killed_at_any_moment(run, folder, options, monkeypatch, done, earlier):
    shutil.copytree(earlier, folder)
    before = files(folder)
    trainer = build_trainer('easycv', {**options, 'cfg_options': QUICK, 'max_epochs': 1, 'seed': 4})
    kill_after(monkeypatch, done)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    monkeypatch.undo()
    last = run(max_epochs=1, seed=4, resume=bool(done % 2))  # 1, 3, …: the run whose start was interrupted goes on
    assert last.iter == 4 and names(folder) == ['epoch_1.pth']
    assert files(folder / 'previous' / '1') == before
    assert [path.name for path in (folder / 'previous').iterdir()] == ['1']


@pytest.fixture(scope='module')
def earlier(tmp_path_factory, tiny_data, tiny_model_dir):
    """The folder of a run of two epochs, each evaluated."""
    folder = tmp_path_factory.mktemp('earlier') / 'run'
    build_trainer(
        'easycv',
        {
            'model': str(tiny_model_dir),
            'data_root': str(tiny_data),
            'seed': 3,
            'max_epochs': 2,
            'classes': ['sky', 'grass', 'disc'],
            'device': 'cpu',
            'work_dir': str(folder),
            'cfg_modify_fn': shrink,
        },
    ).train()
    for path in folder.glob('*.log*'):
        path.unlink()
    return folder


def test_the_best_is_that_of_the_run(run, folder):
    best = {'train.checkpoint.best': {'metric_key': 'mIoU'}}
    good = run(max_epochs=6, cfg_options=best)
    (kept,) = (path for path in folder.glob('best_*mIoU*') if 'state' not in path.name)
    content = kept.read_bytes()
    run(max_epochs=1, seed=4, cfg_options=best)
    (own,) = (path for path in folder.glob('best_*mIoU*') if 'state' not in path.name)
    assert (folder / 'output_best' / 'pytorch_model.pt').read_bytes() == own.read_bytes() != content
    assert (folder / 'previous' / '1' / kept.name).read_bytes() == content
    assert (folder / 'previous' / '1' / 'output_best' / 'pytorch_model.pt').read_bytes() == content
    assert good.metric_values['mIoU'] > float(own.stem.rpartition('mIoU')[2])


def test_a_run_whose_checkpoints_were_deleted_is_not_written_over(run, folder):
    run(max_epochs=2, cfg_options={'train.checkpoint.best': {'metric_key': 'mIoU'}})
    for path in folder.glob('*.pth'):
        path.unlink()
    outputs = [files(folder / name) for name in ('output', 'output_best')]
    run(max_epochs=1, resume=True, cfg_options={'train.checkpoint.best': {'metric_key': 'mIoU'}})
    assert [files(folder / 'previous' / '1' / name) for name in ('output', 'output_best')] == outputs


def test_files_of_names_of_the_user_s_choice_are_moved_aside_too(run, folder):
    choice = {'train.checkpoint.best': {'metric_key': 'mIoU', 'save_file_name': 'top', 'output_sub_dir': 'models/top'}}
    for seed in (3, 4):
        run(max_epochs=1, seed=seed, cfg_options=choice)
    for where in (folder, folder / 'previous' / '1'):
        assert {'top.pth', 'top_trainer_state.pth', 'models/top/pytorch_model.pt'} <= set(files(where))
    assert (folder / 'top.pth').read_bytes() != (folder / 'previous' / '1' / 'top.pth').read_bytes()


def test_a_limit_that_comes_later_removes_nothing_that_was_to_be_kept(run, folder):
    run(max_epochs=3)
    run(max_epochs=6, resume=True, cfg_options={**QUICK, 'train.checkpoint.period.max_checkpoint_num': 1})
    assert names(folder) == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', 'epoch_6.pth']


def test_a_file_of_the_user_s_in_the_way_is_an_error_before_anything_is_moved(run, folder):
    run(max_epochs=1)
    (folder / 'previous').write_text('mine')
    before = files(folder)
    with pytest.raises(TrainingError, match='previous, but that is a file; rename it'):
        run(max_epochs=1)
    assert files(folder) == before
    assert run(max_epochs=1, resume=True).iter == 4


def test_a_resumed_run_knows_its_own_best(run, folder):
    best = {'train.checkpoint.best': {'metric_key': 'mIoU', 'restore_best': True}}
    run(max_epochs=4, cfg_options=best)
    file = run_state.read_state(folder / 'epoch_4_trainer_state.pth')
    known = file['hooks']['BestCkptSaverHook']
    resumed = run(max_epochs=5, cfg_options={**best, 'train.optimizer.lr': 1e-9}, resume=True)
    (hook,) = (hook for hook in resumed.hooks if type(hook).__name__ == 'BestCkptSaverHook')
    assert hook._best_metric >= known['best_metric']
    weights = read_checkpoint(f'{hook._best_ckpt_file}.pth')[0]
    assert all(torch.equal(weights[key], value) for key, value in resumed.bare_model.state_dict().items())
    assert len(list(folder.glob('best_*mIoU*[0-9].pth'))) == 1


def test_a_model_directory_is_neither_moved_nor_written_over(run, folder, options):
    run(max_epochs=1)
    with pytest.raises(TrainingError, match='is where this run would write its own; choose another work_dir'):
        run(model=str(folder / 'output'))
    assert (folder / 'output' / 'pytorch_model.pt').is_file()
    configuration = folder / 'configuration.json'
    shutil.copy(Path(options['model']) / 'configuration.json', configuration)
    content = configuration.read_bytes()
    run(max_epochs=1, model=None, cfg_file=str(configuration))
    assert configuration.read_bytes() == content and (folder / 'previous' / '1' / 'epoch_1.pth').is_file()


def test_evaluating_leaves_a_used_folder_as_it_is(run, folder, options):
    run(max_epochs=1)
    before = files(folder)
    build_trainer('easycv', options).evaluate()
    assert files(folder) == before


def test_a_record_that_is_none_counts_as_none(tmp_path):
    for content in (
        '',
        '[]',
        '{}',
        '{"run": 3}',
        '{"run": "a", "more": 1}',
        '{"run": "a", "moving": 3}',
        '{"run": "a", "moving_to": 5}',
        '{"run": "a", "moving_to": "previous/1", "moving": ["../a"]}',
        '{"run": "a", "moving_to": "/tmp", "moving": ["x"]}',
        '{"run": "a", "resumed_from": 5}',
        '{"run": "a", "moving_to": "previous/1", "moving": ["/x"]}',
        '{"run": "a", "earlier": "b"}',
    ):
        (tmp_path / work_dir.RECORD).write_text(content)
        assert work_dir.read_record(tmp_path) is None
    (tmp_path / work_dir.RECORD).write_text(json.dumps({'run': 'a'}))
    assert work_dir.read_record(tmp_path) == work_dir.Record('a')


def test_only_this_package_s_temporary_files_are_removed(tmp_path):
    from ms_segformer.files import temporary_prefix

    (tmp_path / f'{temporary_prefix("epoch_1.pth")}abc.pth').write_text('')
    for name in ('.last_backup', '.configuration.json', '.epoch_1'):
        (tmp_path / name).write_text('')
    work_dir.remove_unfinished([tmp_path, tmp_path / 'nowhere'])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.configuration.json', '.epoch_1', '.last_backup']


@pytest.mark.parametrize('name', ['../victim/epoch_9', '/tmp/victim/epoch_9', 'notes', 5, None, 'best_epoch1_/../x'])
def test_a_state_removes_no_file_that_the_run_did_not_write(run, folder, name):
    trainer = run(max_epochs=1, cfg_options={**QUICK, 'train.checkpoint.period.max_checkpoint_num': 1})
    (hook,) = resuming.savers(trainer)
    hook.load_state_dict({'checkpoints': [name, 'epoch_1']})
    assert hook.history_checkpoints == ['epoch_1']


def test_a_best_checkpoint_of_a_strange_name_is_none():
    hook = hooks.BestCkptSaverHook('mIoU', save_file_name='top')
    hook.load_state_dict({'checkpoints': ['top', '../top'], 'best_metric': 0.9, 'best_checkpoint': '../top'})
    assert (hook.history_checkpoints, hook._best_metric, hook._best_name) == (['top'], None, None)


@pytest.mark.parametrize('changes', [{}, {'resume': True}])
def test_two_runs_at_once_do_not_share_a_folder(run, folder, options, changes):
    trainer = build_trainer('easycv', {**options, 'cfg_options': QUICK, 'max_epochs': 1})
    found = []

    def second(loader):
        before = files(folder)
        with pytest.raises(TrainingError, match='another run is writing there'):
            run(max_epochs=1, seed=4, **changes)
        found.append(files(folder) == before)

    trainer.train_loop = second
    trainer.train()
    assert found == [True]
    assert run(max_epochs=1).iter == 4  # the lock went with the run that held it


def test_a_folder_of_checkpoints_is_not_shared_either(run, folder, options, tmp_path):
    shared = {**QUICK, 'train.checkpoint.period.save_dir': str(tmp_path / 'checkpoints')}
    with work_dir.locked(tmp_path / 'checkpoints'), pytest.raises(TrainingError, match='another run is writing there'):
        run(max_epochs=1, cfg_options=shared)


def test_a_process_that_was_forked_does_not_keep_the_lock(tmp_path):
    with work_dir.locked(tmp_path):
        (receives, sends), (started, starts) = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            os.close(sends)
            os.write(starts, b'.')
            os.read(receives, 1)
            os._exit(0)
        os.read(started, 1)
    try:
        with work_dir.locked(tmp_path):
            pass
    finally:
        for descriptor in (receives, sends, started, starts):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_a_model_directory_outside_the_work_dir_is_not_written_over(run, folder, tmp_path):
    elsewhere = {**QUICK, 'train.checkpoint.period.output_dir': str(tmp_path / 'elsewhere')}
    run(max_epochs=1, cfg_options=elsewhere)
    first = (tmp_path / 'elsewhere' / 'pytorch_model.pt').read_bytes()
    run(max_epochs=1, seed=4, cfg_options=elsewhere)
    assert (tmp_path / 'elsewhere' / 'previous' / '1' / 'pytorch_model.pt').read_bytes() == first
    assert (tmp_path / 'elsewhere' / 'pytorch_model.pt').read_bytes() != first
    last = run(max_epochs=2, seed=4, cfg_options=elsewhere, resume=True)
    assert last.iter == 8 and not (tmp_path / 'elsewhere' / 'previous' / '2').exists()


@pytest.mark.parametrize('name', ['../top', '/tmp/top', 'models/top', ''])
def test_a_best_checkpoint_s_name_names_no_folder(name):
    with pytest.raises(TrainingError, match='without a folder'):
        hooks.BestCkptSaverHook('mIoU', save_file_name=name)


@pytest.mark.parametrize('file', ['configuration.json', 'eval_result.txt', 'pytorch_model.pt'])
def test_what_another_program_left_in_output_is_moved_aside(run, folder, file):
    (folder / 'output').mkdir(parents=True)
    for name in (file, 'epoch_50.pth'):
        (folder / 'output' / name).write_text('mine')
    run(max_epochs=1, cfg_options={})
    for name in (file, 'epoch_50.pth'):
        assert (folder / 'previous' / '1' / 'output' / name).read_text() == 'mine'


def test_a_run_that_goes_on_does_not_write_over_another_s_checkpoint(run, folder, tmp_path):
    other = tmp_path / 'other'
    run(max_epochs=2, work_dir=str(other), seed=5)
    own = run(max_epochs=1)
    for path in run_state.pair_of(other / 'epoch_2'):
        shutil.copy(path, folder)
    (folder / 'epoch_3_trainer_state.pth').write_bytes(b'damaged')
    foreign = {name: content for name, content in files(folder).items() if name.startswith(('epoch_2', 'epoch_3'))}
    assert run(max_epochs=3, resume=True).run == own.run
    assert names(folder) == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']
    assert {name: (folder / 'previous' / '1' / name).read_bytes() for name in foreign} == foreign
    assert not any((folder / name).read_bytes() == content for name, content in foreign.items())


def test_a_link_in_a_checkpoint_s_place_is_replaced_and_not_followed(run, folder, tmp_path):
    run(max_epochs=1)
    (tmp_path / 'precious.pth').write_text('mine')
    (folder / 'epoch_2.pth').symlink_to(tmp_path / 'precious.pth')
    run(max_epochs=2, resume=True)
    assert (tmp_path / 'precious.pth').read_text() == 'mine' and not (folder / 'epoch_2.pth').is_symlink()


class TestSeparateFolders:
    """Checkpoints in a folder of their own, `save_dir`."""

    @pytest.fixture
    def apart(self, tmp_path):
        return {**QUICK, 'train.checkpoint.period.save_dir': str(tmp_path / 'checkpoints')}

    def test_the_work_directory_says_which_run_goes_on(self, run, folder, apart, tmp_path, messages):
        first = run(max_epochs=1, cfg_options=apart)
        second = run(max_epochs=1, seed=4, cfg_options=apart, work_dir=str(tmp_path / 'second'))
        assert names(tmp_path / 'checkpoints' / 'previous' / '1') == ['epoch_1.pth']
        resumed = run(max_epochs=2, seed=4, cfg_options=apart, work_dir=str(tmp_path / 'second'), resume=True)
        assert (resumed.run, resumed.iter) == (second.run, 8)
        third = run(max_epochs=1, cfg_options=apart, resume=True)  # the first one's work directory
        assert third.run not in (first.run, second.run)
        assert [message for message in messages if 'are of another run than the one in' in message]
        assert names(tmp_path / 'checkpoints' / 'previous' / '2') == ['epoch_1.pth', 'epoch_2.pth']

    @pytest.mark.parametrize('done', range(0, 10, 2))
    def test_a_run_killed_while_it_takes_the_folders_never_goes_on_with_an_earlier_one(
        self, run, folder, apart, tmp_path, monkeypatch, options, done
    ):
        first = run(max_epochs=2, cfg_options=apart)
        trainer = build_trainer('easycv', {**options, 'cfg_options': apart, 'max_epochs': 1, 'seed': 4})
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            kill_after(context, done)
            trainer.train()
        last = run(max_epochs=1, seed=4, cfg_options=apart, resume=True)
        if done:  # before, nothing said that a new run had begun
            assert last.run != first.run and last.iter == 4
            assert names(tmp_path / 'checkpoints' / 'previous' / '1') == ['epoch_1.pth', 'epoch_2.pth']

    def test_the_pair_that_a_run_began_with_is_found_where_it_was_moved(self, run, folder, apart, tmp_path, options):
        run(max_epochs=2, cfg_options=apart)
        trainer = build_trainer(
            'easycv', {**options, 'cfg_options': apart, 'resume': str(tmp_path / 'checkpoints' / 'epoch_1')}
        )
        trainer.train_loop = lambda loader: None
        trainer.train()
        assert run(max_epochs=2, cfg_options=apart, resume=True).run == trainer.run


@pytest.mark.parametrize('error', [OSError(18, 'Invalid cross-device link'), PermissionError(13, 'Permission denied')])
def test_what_cannot_be_moved_stays_and_can_be_gone_on_with(run, folder, monkeypatch, error):
    first = run(max_epochs=1)
    before = files(folder)
    rename, count = os.rename, iter(range(100))

    def refuse(*args):
        if next(count) == 2:
            raise error
        rename(*args)

    monkeypatch.setattr(work_dir.os, 'rename', refuse)
    with pytest.raises(TrainingError, match='it was left as it is. Choose another work_dir'):
        run(max_epochs=1, seed=4)
    monkeypatch.undo()
    assert files(folder) == before
    resumed = run(max_epochs=2, resume=True)
    assert (resumed.run, resumed.iter) == (first.run, 8)


@pytest.mark.parametrize('name', ['epoch_1.pth', 'output/pytorch_model.pt'])
def test_what_a_run_starts_from_is_not_moved_aside(run, folder, name):
    run(max_epochs=1)
    before = files(folder)
    with pytest.raises(TrainingError, match='which this run starts from, lies where it would write its own'):
        run(load_from=str(folder / name))
    assert files(folder) == before


def test_a_model_directory_with_a_checkpoint_of_a_run_is_no_work_dir(run, folder, options):
    shutil.copytree(options['model'], folder)
    weights = next(path for path in folder.iterdir() if path.name.startswith('pytorch_model'))
    weights.rename(folder / 'epoch_9.pth')
    with pytest.raises(TrainingError, match='which this run starts from, lies where it would write its own'):
        run(model=str(folder))
    assert (folder / 'epoch_9.pth').is_file()


def test_a_run_begun_with_another_s_checkpoint_still_knows_it_when_its_own_are_damaged(run, folder):
    run(max_epochs=2)
    second = run(max_epochs=2, resume=str(folder / 'epoch_1'))
    (folder / 'epoch_2.pth').write_bytes(b'damaged')
    resumed = run(max_epochs=2, resume=True)
    assert (resumed.run, resumed.iter) == (second.run, 8)
    assert (folder / 'previous' / '2' / 'epoch_2.pth').read_bytes() == b'damaged'
    for path in (*folder.glob('epoch_*'), *(folder / 'previous' / '1').glob('epoch_*')):
        path.unlink()
    with pytest.raises(TrainingError, match='the one it began with .*trainer_run.json there says'):
        run(max_epochs=2, resume=True)


def test_half_a_first_checkpoint_is_written_again_by_the_run_that_goes_on(run, folder, options, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    trainer = build_trainer('easycv', {**options, 'cfg_options': QUICK})
    monkeypatch.setattr(run_state, 'write_torch_file', killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    monkeypatch.undo()
    assert names(folder) == ['epoch_1.pth'] and not work_dir.read_record(folder).saved
    resumed = run(max_epochs=1, resume=True)
    assert resumed.run == trainer.run and not (folder / 'previous').exists()
    assert work_dir.read_record(folder).saved
    run(max_epochs=1, seed=4)
    assert (folder / 'previous' / '1' / 'epoch_1.pth').is_file()


def test_a_link_to_nothing_in_the_place_of_output_is_moved_aside(run, folder):
    folder.mkdir()
    (folder / 'output').symlink_to(folder / 'nowhere')
    run(max_epochs=1)
    assert (folder / 'previous' / '1' / 'output').is_symlink() and (folder / 'output' / 'pytorch_model.pt').is_file()


def test_a_folder_in_the_place_of_the_record_is_an_error_in_words(run, folder):
    (folder / work_dir.RECORD).mkdir(parents=True)
    with pytest.raises(TrainingError, match='could not be written.*trainer_run.json.*choose another work_dir'):
        run(max_epochs=1)


@pytest.mark.parametrize('epochs', [1.5, '2', 10**9])
def test_epochs_that_are_no_number_of_them_are_an_error(run, epochs):
    with pytest.raises(TrainingError, match='max_epochs is .*expected an integer from 1 to 1000000'):
        run(max_epochs=epochs)
