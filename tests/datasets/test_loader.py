"""Batches, and the errors of a data set as they are."""

import multiprocessing.connection

import pytest
import torch

from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.loader import Loader


class Numbers:
    """0 to 5; `bad` cannot be used, and 7 is not there at all."""

    def __init__(self, bad=None):
        self.bad = bad

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == self.bad:
            raise DatasetError(f'number {index} cannot be used')
        if self.bad == 7:
            raise KeyError('of another kind')
        return torch.tensor(index)


def no_threes(samples):
    if 3 in samples:
        raise DatasetError('threes do not go together with others')
    return torch.stack(samples)


@pytest.mark.parametrize('workers', [0, 1])
def test_batches_are_torch_s(workers):
    loader = Loader(Numbers(), torch.stack, batch_size=4, num_workers=workers)
    assert len(loader) == 2 and loader.batch_size == 4
    for _ in range(2):
        assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize('workers, persistent', [(0, False), (2, False), (1, True)])
@pytest.mark.parametrize(
    'bad, collate, message',
    [(4, torch.stack, 'number 4 cannot be used'), (None, no_threes, 'threes do not go together with others')],
)
def test_an_error_is_the_one_that_was_raised(workers, persistent, bad, collate, message):
    loader = Loader(Numbers(bad), collate, batch_size=1, num_workers=workers, persistent_workers=persistent)
    for _ in range(2):
        batches = iter(loader)
        assert [next(batches).item() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(DatasetError) as caught:
            list(batches)
        assert str(caught.value) == message


def test_other_errors_are_torch_s_to_hand_on():
    with pytest.raises(KeyError, match='Caught KeyError in DataLoader worker'):
        list(Loader(Numbers(7), torch.stack, batch_size=1, num_workers=1))


def test_nothing_is_printed_when_the_reader_ends_in_the_middle_of_a_tensor(monkeypatch, capfd):
    def ends(connection, _):  # where a signal may end it: the loading process waits for a key
        connection.close()
        raise KeyboardInterrupt

    loader = Loader(Numbers(), torch.stack, batch_size=1, num_workers=1, persistent_workers=True)
    batches = iter(loader)
    assert next(batches).item() == 0
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.connection, 'answer_challenge', ends)
        with pytest.raises(KeyboardInterrupt):
            next(batches)
    assert [batch.item() for batch in loader] == list(range(6))  # the same loading process goes on
    assert capfd.readouterr().err == ''
