"""Two processes on a CPU, started with the variables that torchrun sets."""

import json
import os

import pytest
import torch
from tiny_run import CLASSES

from ms_segformer.trainers.data_loading import EpochSampler, ShareSampler


@pytest.fixture
def settings(tiny_data, tiny_model_dir, tmp_path):
    return {
        'model': str(tiny_model_dir),
        'data_root': str(tiny_data),
        'classes': CLASSES,
        'seed': 3,
        'max_epochs': 2,
        'device': 'cpu',
        'work_dir': str(tmp_path / 'run'),
    }


def test_two_processes_train_save_once_and_resume(settings, runs, two, tmp_path):
    codes, output = runs(settings, two)
    assert codes == [0, 0], output
    folder = tmp_path / 'run'
    assert sorted(path.name for path in folder.glob('*.pth')) == [
        'epoch_1.pth',
        'epoch_1_trainer_state.pth',
        'epoch_2.pth',
        'epoch_2_trainer_state.pth',
    ]
    assert len(list(folder.glob('*.log.json'))) == 1
    lines = [json.loads(line) for line in next(folder.glob('*.log.json')).read_text().splitlines()]
    assert [line['iter'] for line in lines if line['mode'] == 'train'] == [1, 2, 1, 2]  # 8 pairs, 2 × 2 a step
    unbroken = torch.load(folder / 'epoch_2.pth', weights_only=True)['state_dict']
    for name in ('epoch_2.pth', 'epoch_2_trainer_state.pth', 'last_evaluation.json', 'final.json'):
        os.unlink(folder / name)
    codes, output = runs({**settings, 'resume': True}, two)
    assert codes == [0, 0], output
    assert '2 of 4 iterations done' in output
    resumed = torch.load(folder / 'epoch_2.pth', weights_only=True)['state_dict']
    assert not [key for key, value in unbroken.items() if not torch.equal(value, resumed[key])]


def test_the_first_process_moves_an_earlier_run_aside_and_its_errors_end_all(settings, runs, two, tmp_path):
    settings = {**settings, 'max_epochs': 1, 'cfg_changes': {'evaluation.period': None}}
    for seed in (3, 4):
        codes, output = runs({**settings, 'seed': seed}, two)
        assert codes == [0, 0], output
    folder = tmp_path / 'run'
    assert output.count('holds an earlier run, which was moved') == 1
    assert [path.name for path in (folder / 'previous').iterdir()] == ['1']
    names = ['epoch_1.pth', 'epoch_1_trainer_state.pth']
    assert [sorted(path.name for path in where.glob('*.pth')) for where in (folder, folder / 'previous' / '1')] == [
        names,
        names,
    ]
    (folder / 'epoch_1.pth').write_bytes(b'damaged')
    codes, output = runs({**settings, 'resume': str(folder / 'epoch_1')}, two)
    assert codes == [1, 1] and 'epoch_1.pth: not a PyTorch checkpoint' in output


def test_evaluation_does_not_depend_on_the_number_of_processes(settings, runs, two, tmp_path):
    found = []
    for name, environments in (('one', [{}]), ('two', two)):  # of 5 images: shares of 3 and 2
        codes, output = runs({**settings, 'work_dir': str(tmp_path / name), 'evaluate_only': True}, environments)
        assert set(codes) == {0}, output
        found.append(json.loads((tmp_path / name / 'final.json').read_text()))
    assert found[0] == found[1] and found[0]['aAcc'] > 0


def test_the_shares_of_an_evaluation_are_disjoint_and_complete():
    shares = [list(ShareSampler(11, rank, 4)) for rank in range(4)]
    assert sorted(sum(shares, [])) == list(range(11))


def test_an_epoch_s_order_follows_from_seed_and_epoch_and_may_begin_anywhere():
    sampler = EpochSampler(10, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_position(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(10)) and len(sampler) == 10
    assert orders[0] != orders[1] != orders[2]
    sampler.set_position(1, 4)
    assert list(sampler) == orders[1][4:]
    shares = [EpochSampler(10, 1, rank, 3) for rank in range(3)]
    assert {len(list(share)) for share in shares} == {4} and set(sum(map(list, shares), [])) == set(range(10))
