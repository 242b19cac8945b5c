"""Which checkpoint a run goes on from when some are damaged, foreign or spoiled."""

import random
import re
import shutil
from pathlib import Path

import pytest
import torch
from modelscope.trainers import build_trainer
from tiny_run import CLASSES, shrink

from ms_segformer.models.checkpoint import read_checkpoint
from ms_segformer.models.torch_file import read_torch_file, write_torch_file
from ms_segformer.trainers import run_state
from ms_segformer.trainers.errors import TrainingError


@pytest.fixture(scope='module')
def finished(tmp_path_factory, tiny_data, tiny_model_dir):
    """The folder of a run of three epochs."""
    folder = tmp_path_factory.mktemp('finished') / 'run'
    build_trainer(
        'easycv',
        {
            'model': str(tiny_model_dir),
            'data_root': str(tiny_data),
            'seed': 3,
            'max_epochs': 3,
            'classes': CLASSES,
            'device': 'cpu',
            'work_dir': str(folder),
            'cfg_modify_fn': shrink,
            'cfg_options': {'evaluation.period': None},
        },
    ).train()
    return folder


@pytest.fixture
def folder(finished, options):
    shutil.copytree(finished, options['work_dir'])
    return Path(options['work_dir'])


def truncate(folder, name='epoch_3_trainer_state.pth'):
    path = folder / name
    content = path.read_bytes()
    path.unlink()  # a hard link of it is in output/
    path.write_bytes(content[: len(content) // 2])


def save_as_modelscope_does(folder):
    from collections import OrderedDict

    torch.save(
        {
            'epoch': 3,
            'iter': 12,
            'rng_state': {'random': random.getstate(), 'python': random.Random(1)},
            'optimizer': OrderedDict(),
        },
        folder / 'epoch_3_trainer_state.pth',
    )


def save_without_values(folder):
    write_torch_file(folder / 'epoch_3_trainer_state.pth', {'version': run_state.VERSION, 'weights': ''})


def remove_digest(folder):
    path = folder / 'epoch_3_trainer_state.pth'
    torch.save(read_torch_file(path).content, path)


def other_weights(folder):
    path = folder / 'epoch_3.pth'
    path.unlink()
    shutil.copy(folder / 'epoch_2.pth', path)


def spoil(folder):
    content = read_torch_file(folder / 'epoch_3.pth').content
    content['state_dict']['decode_head.conv_seg.weight'][0, 0] = float('nan')
    (folder / 'epoch_3.pth').unlink()
    state = read_torch_file(folder / 'epoch_3_trainer_state.pth').content
    state['weights'] = write_torch_file(folder / 'epoch_3.pth', content)
    write_torch_file(folder / 'epoch_3_trainer_state.pth', state)


def of_another_run(folder):
    state = read_torch_file(folder / 'epoch_3_trainer_state.pth').content
    write_torch_file(folder / 'epoch_3_trainer_state.pth', {**state, 'run': 'f' * 32})


@pytest.mark.parametrize(
    'damage, said',
    [
        (truncate, 'epoch_3_trainer_state.pth: cannot be read as a trainer state'),
        (lambda folder: truncate(folder, 'epoch_3.pth'), 'epoch_3.pth: a truncated or damaged checkpoint'),
        (
            lambda folder: (folder / 'epoch_3_trainer_state.pth').write_bytes(b''),
            'epoch_3_trainer_state.pth: cannot be',
        ),
        (save_as_modelscope_does, 'epoch_3_trainer_state.pth: not a trainer state that this version reads'),
        (save_without_values, 'epoch_3_trainer_state.pth: not a trainer state that this version reads'),
        (remove_digest, 'epoch_3_trainer_state.pth: .*its digest is gone'),
        (other_weights, 'epoch_3.pth: not the weights that epoch_3_trainer_state.pth was saved with'),
        (spoil, 'epoch_3.pth: decode_head.conv_seg.weight is not finite'),
        (of_another_run, 'epoch_3_trainer_state.pth: of another run'),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_the_newest_whole_pair_wins_and_what_was_skipped_is_named(folder, options, messages, damage, said, finished):
    damage(folder)
    options = {**options, 'cfg_options': {'evaluation.period': None}}
    trainer = build_trainer('easycv', {**options, 'resume': True})
    trainer.train()
    (warning,) = (message for message in messages if message.startswith('skipped: '))
    assert re.search(said, warning)
    assert [message for message in messages if '8 of 12 iterations done' in message]
    left, right = (read_checkpoint(where / 'epoch_3.pth')[0] for where in (folder, finished))
    assert all(torch.equal(left[key], right[key]) for key in left)
    build_trainer('easycv', {**options, 'max_epochs': 1}).train()  # a fresh run is not in its way either


@pytest.mark.parametrize('name', ['epoch_3.pth', 'epoch_3_trainer_state.pth'])
def test_one_flipped_bit_is_always_noticed(folder, name):
    draw, path = random.Random(1), folder / name
    content = path.read_bytes()
    assert run_state.newest_pair(folder)[0].prefix.endswith('epoch_3')
    path.unlink()
    for _ in range(40):
        at = draw.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :])
        pair, skipped = run_state.newest_pair(folder)
        assert pair.prefix.endswith('epoch_2') and len(skipped) == 1 and 'epoch_3' in skipped[str(folder / 'epoch_3')]


def test_a_damaged_checkpoint_that_is_named_is_an_error(folder, options):
    truncate(folder, 'epoch_3.pth')
    for name in ('epoch_3', 'epoch_3.pth'):
        with pytest.raises(TrainingError, match='epoch_3.pth: a truncated or damaged checkpoint'):
            build_trainer('easycv', {**options, 'resume': str(folder / name)}).train()
    spoil_first = folder / 'epoch_2_trainer_state.pth'
    spoil_first.write_bytes(b'x' * 100)
    with pytest.raises(TrainingError, match='cannot be read as a trainer state.*load_from'):
        build_trainer('easycv', options).train(checkpoint_path=str(folder / 'epoch_2.pth'))
    assert not (folder / 'previous').exists()


def test_when_no_pair_is_whole_the_run_starts_anew_and_keeps_them(folder, options, messages):
    for number in (1, 2, 3):
        truncate(folder, f'epoch_{number}_trainer_state.pth')
    trainer = build_trainer('easycv', {**options, 'max_epochs': 1, 'resume': True})
    trainer.train()
    assert len([message for message in messages if message.startswith('skipped: ')]) == 3
    assert [message for message in messages if 'training starts at the beginning' in message]
    assert len(list((folder / 'previous' / '1').glob('epoch_*.pth'))) == 6 and trainer.iter == 4


def test_a_state_of_the_first_version_is_gone_on_from_with_a_warning(folder, options, messages, finished):
    for path in folder.glob('*_trainer_state.pth'):
        state = read_torch_file(path).content
        hooks = {key: value for key, value in state['hooks'].items() if key != 'CheckpointHook'}
        torch.save(
            {
                **{key: value for key, value in state.items() if key not in ('run', 'weights')},
                'hooks': hooks,
                'version': 1,
            },
            path,
        )
    for name in ('epoch_3.pth', 'epoch_3_trainer_state.pth', 'trainer_run.json'):
        (folder / name).unlink()
    trainer = build_trainer(
        'easycv',
        {
            **options,
            'resume': True,
            'cfg_options': {'evaluation.period': None, 'train.checkpoint.period.max_checkpoint_num': 2},
        },
    )
    trainer.train()
    assert [message for message in messages if 'was written by an earlier version, without a digest' in message]
    left, right = (read_checkpoint(where / 'epoch_3.pth')[0] for where in (folder, finished))
    assert all(torch.equal(left[key], right[key]) for key in left)
    # The limit is new, and nothing that was kept before it is removed.
    assert sorted(path.name for path in folder.glob('epoch_?.pth')) == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']
    assert not (folder / 'previous').exists()


def test_only_as_many_files_are_read_as_it_takes(folder, monkeypatch):
    read = []
    monkeypatch.setattr(run_state, 'read_state', lambda path: read.append(path.name) or read_torch_file(path).content)
    assert run_state.newest_pair(folder)[0].prefix.endswith('epoch_3')
    assert read == ['epoch_3_trainer_state.pth']
    for suffix in ('.pth', '_trainer_state.pth'):
        shutil.copy(folder / f'epoch_2{suffix}', folder / f'iter_8{suffix}')
    assert run_state.newest_pair(folder)[0].prefix.endswith('epoch_3')
    assert read == 2 * ['epoch_3_trainer_state.pth']
    truncate(folder, 'iter_8_trainer_state.pth')
    monkeypatch.undo()
    found, skipped = run_state.newest_pair(folder)
    assert found.prefix.endswith('epoch_3') and list(skipped) == [str(folder / 'iter_8')]


def test_a_lower_rate_takes_effect_in_a_resumed_run(folder, options):
    (folder / 'epoch_3.pth').unlink()
    trainer = build_trainer(
        'easycv', {**options, 'resume': True, 'cfg_options': {'evaluation.period': None, 'train.optimizer.lr': 1e-5}}
    )
    trainer.train()
    assert max(group['lr'] for group in trainer.optimizer.param_groups) < 1e-4


def test_a_run_of_a_gpu_goes_on_with_the_same_weights(folder, options, finished):
    """There convolutions, and what the optimizer keeps of them, are channels-last."""
    for path in folder.glob('epoch_3*'):
        path.unlink()
    path = folder / 'epoch_2_trainer_state.pth'
    state = read_torch_file(path).content
    for values in state['optimizer']['state'].values():
        for name, value in values.items():
            values[name] = value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
    path.unlink()  # a hard link of it is in output/
    write_torch_file(path, state)
    build_trainer('easycv', {**options, 'resume': True, 'cfg_options': {'evaluation.period': None}}).train()
    weights, expected = (read_checkpoint(run / 'epoch_3.pth')[0] for run in (folder, finished))
    assert all(torch.equal(value, expected[key]) for key, value in weights.items())


def test_with_an_average_switched_on_or_off_a_run_goes_on_with_the_right_weights(folder, options):
    for path in folder.glob('epoch_3*'):
        path.unlink()
    trainer = build_trainer(
        'easycv', {**options, 'resume': True, 'ema': 0.9, 'max_epochs': 2, 'cfg_options': {'evaluation.period': None}}
    )
    trainer.train()
    weights = read_checkpoint(folder / 'epoch_2.pth')[0]
    for model in (trainer.bare_model, trainer.ema.model):  # nothing was trained: both are what was saved
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_names_the_first_tensor_that_is_not_finite():
    good, counter = torch.ones(3), torch.tensor(1)
    assert run_state.not_finite([('a', good), ('n', counter)]) is None and run_state.not_finite([]) is None
    assert run_state.not_finite([('a', good), ('b', torch.tensor([1.0, float('inf')])), ('c', good / 0)]) == 'b'


def test_a_run_does_not_go_on_under_other_names(folder, options):
    trainer = build_trainer('easycv', {**options, 'classes': ['a', 'b', 'c'], 'max_epochs': 4, 'resume': True})
    with pytest.raises(TrainingError, match=r'3 classes sky, grass, disc, and given are the 3 classes a, b, c\. Go on'):
        trainer.train()
