"""What several processes, and killed runs, count adds up to one evaluation."""
import numpy as np
import pytest

from ms_segformer.metrics import ConfusionMatrix
from ms_segformer.verification import Progress, ScoreError, score


@pytest.fixture
def pairs():
    random = np.random.default_rng(0)
    return [tuple(random.integers(0, 5, (2, 6, 7), np.uint8)) for _ in range(9)]


def test_two_processes_and_a_run_before_add_up(tmp_path, pairs):
    whole = ConfusionMatrix(5)
    for prediction, label in pairs:
        whole.update(prediction, label)
    before = Progress(tmp_path / 'state', 'abc', 9, 5)
    assert before.left() == list(range(9))
    for i in (4, 0):
        before.count(i, *pairs[i])
    before.write()
    both = [Progress(tmp_path / 'state', 'abc', 9, 5) for _ in range(2)]
    for one, share in zip(both, score.shares(both[0].left(), 2), strict=True):
        for i in share:
            one.count(i, *pairs[i])
        one.write()
    after = Progress(tmp_path / 'state', 'abc', 9, 5)
    assert after.left() == [] and len(after.parts()) == 3
    np.testing.assert_array_equal(after.total.counts, whole.counts)
    after.remove()
    assert not after.parts()


def test_progress_of_something_else_is_left_alone(tmp_path, pairs):
    other = Progress(tmp_path, 'other', 9, 5)
    other.count(0, *pairs[0])
    other.write()
    ours = Progress(tmp_path, 'ours', 9, 5)
    assert len(ours.left()) == 9
    ours.remove()
    assert len(other.parts()) == 1


def test_an_image_counted_twice_is_an_error(tmp_path, pairs):
    for _ in range(2):
        one = Progress(tmp_path, 'abc', 9, 5)
        one.done[:] = False
        one.count(3, *pairs[3])
        one._file = tmp_path / f'abc-{_}.npz'
        one.write() if _ == 0 else None
    one.write()
    with pytest.raises(ScoreError, match='counts images that another file there counts too'):
        Progress(tmp_path, 'abc', 9, 5)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 not a zip', None])
def test_a_file_that_is_not_ours_is_named(tmp_path, content):
    path = tmp_path / 'abc-1.npz'
    if content is None:
        np.savez(path, done=np.zeros(9, np.int8), counts=np.zeros((5, 6), np.int64), engine=np.array('torch'))
    else:
        path.write_bytes(content)
    with pytest.raises(ScoreError, match='abc-1.npz'):
        Progress(tmp_path, 'abc', 9, 5)


def test_two_runs_do_not_count_in_one_folder(tmp_path):
    pytest.importorskip('fcntl', reason='there are no locks')
    with score.alone(tmp_path / 'state'):
        with pytest.raises(ScoreError, match='another run of verify counts in'), score.alone(tmp_path / 'state'):
            pass
    assert not (tmp_path / 'state').exists()
