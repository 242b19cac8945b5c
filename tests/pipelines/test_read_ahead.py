"""Reading ahead in a thread: bounded, in order, and over when its consumer is."""

import threading
import time

import pytest

from ms_segformer.pipelines.read_ahead import read_ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == 'ms-segformer-read-ahead']


def test_items_come_in_order():
    assert list(read_ahead(iter(range(100)), 3)) == list(range(100))
    assert list(read_ahead(iter([None, None]), 1)) == [None, None]
    assert not threads()


def test_no_more_than_its_depth_is_read_ahead():
    taken = []
    ahead = read_ahead((taken.append(number) or number for number in range(100)), 3)
    assert next(ahead) == 0
    time.sleep(0.3)
    assert len(taken) == 1 + 3 + 1, 'the one given, those that wait, and the one in hand'
    ahead.close()
    assert not threads()


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise KeyError('x')

    ahead = read_ahead(items(), 2)
    assert next(ahead) == 1
    with pytest.raises(KeyError):
        next(ahead)
    assert not threads()


def test_a_consumer_that_stops_closes_the_items():
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    ahead = read_ahead(items(), 1)
    next(ahead)
    ahead.close()
    assert closed == ['ms-segformer-read-ahead'] and not threads()
