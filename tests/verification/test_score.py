"""What several processes, and killed runs, count adds up to one evaluation."""

import sys

import numpy as np
import pytest

from ms_segformer.metrics import ConfusionMatrix
from ms_segformer.verification import Progress, ScoreError, score

ABC = score.digest_of('abc')


@pytest.fixture
def pairs():
    random = np.random.default_rng(0)
    return [tuple(random.integers(0, 5, (2, 6, 7), np.uint8)) for _ in range(9)]


def test_two_processes_and_a_run_before_add_up(tmp_path, pairs):
    whole = ConfusionMatrix(5)
    for prediction, label in pairs:
        whole.update(prediction, label)
    before = Progress(tmp_path / 'state', ABC, 9, 5)
    assert before.left() == list(range(9))
    for i in (4, 0):
        before.count(i, *pairs[i])
    before.write()
    both = [Progress(tmp_path / 'state', ABC, 9, 5) for _ in range(2)]
    for one, share in zip(both, score.shares(both[0].left(), 2), strict=True):
        for i in share:
            one.count(i, *pairs[i])
        one.write()
    after = Progress(tmp_path / 'state', ABC, 9, 5)
    assert after.left() == [] and len(after.parts()) == 3
    np.testing.assert_array_equal(after.total.counts, whole.counts)
    after.remove()
    assert not after.parts()


def test_progress_of_something_else_is_not_counted_and_goes_with_a_run_that_has_finished(tmp_path, pairs):
    other = Progress(tmp_path, score.digest_of('other'), 9, 5)
    other.count(0, *pairs[0])
    other.write()
    foreign = [tmp_path / name for name in ('notes.npz', f'{ABC}.npz', 'report.json')]
    for path in foreign:
        path.write_text("a user's own")
    ours = Progress(tmp_path, ABC, 9, 5)
    assert len(ours.left()) == 9 and len(other.parts()) == 1
    ours.remove()
    assert sorted(tmp_path.iterdir()) == sorted(foreign)


@pytest.mark.parametrize('statement', range(12))
def test_an_interrupt_at_any_statement_counts_an_image_whole_or_not_at_all(tmp_path, pairs, statement):
    progress, passed = Progress(tmp_path, ABC, 9, 5), []

    def trace(frame, event, _):
        if event != 'line' or frame.f_code is not Progress.count.__code__:
            return trace
        passed.append(frame.f_lineno)
        if len(passed) > statement:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        progress.count(3, *pairs[3])
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    progress.write()
    progress.read()
    assert passed
    assert (int(progress.done.sum()), int(progress.total.counts.sum())) in ((0, 0), (1, 42))


def test_an_image_counted_twice_is_an_error(tmp_path, pairs):
    for _ in range(2):
        one = Progress(tmp_path, ABC, 9, 5)
        one.done[:] = False
        one.count(3, *pairs[3])
        one._file = tmp_path / f'{ABC}-{_}.npz'
        one.write() if _ == 0 else None
    one.write()
    with pytest.raises(ScoreError, match='counts images that another file there counts too'):
        Progress(tmp_path, ABC, 9, 5)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 not a zip', None])
def test_a_file_that_is_not_ours_is_named(tmp_path, content):
    path = tmp_path / f'{ABC}-1.npz'
    if content is None:
        np.savez(path, done=np.zeros(9, np.int8), counts=np.zeros((5, 6), np.int64), engine=np.array('torch'))
    else:
        path.write_bytes(content)
    with pytest.raises(ScoreError, match=f'{ABC}-1.npz'):
        Progress(tmp_path, ABC, 9, 5)


def test_two_runs_do_not_count_in_one_folder(tmp_path):
    pytest.importorskip('fcntl', reason='there are no locks')
    with score.alone(tmp_path / 'state'):
        with pytest.raises(ScoreError, match='another run of verify counts in'), score.alone(tmp_path / 'state'):
            pass
    assert not (tmp_path / 'state').exists()
