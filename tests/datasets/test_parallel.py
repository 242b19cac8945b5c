import os

import pytest

from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.parallel import map_in_processes


def _squares(offset, numbers):
    return [(number + offset) ** 2 for number in numbers]


def _die(_, numbers):
    if 40 in numbers:
        os._exit(9)  # what the kernel does to a process when memory runs out
    return []


def _fail(_, numbers):
    raise DatasetError(f'no room for {numbers[0]}')


@pytest.mark.parametrize('jobs', [1, 2, None])
def test_every_item_is_worked_on_once(jobs):
    results = map_in_processes(_squares, 1, range(100), jobs)
    assert sorted(value for chunk in results for value in chunk) == [number**2 for number in range(1, 101)]
    assert list(map_in_processes(_squares, 1, [], jobs)) == []


def test_a_killed_process_ends_in_a_message():
    with pytest.raises(DatasetError, match='a worker process was killed.*fewer --jobs'):
        list(map_in_processes(_die, None, range(100), 2))


@pytest.mark.parametrize('jobs', [1, 2])
def test_an_error_in_a_process_comes_out_as_it_is(jobs):
    with pytest.raises(DatasetError, match='no room for'):
        list(map_in_processes(_fail, None, range(100), jobs))
