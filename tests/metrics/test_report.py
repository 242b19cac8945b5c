import numpy as np
import pytest
from PIL import Image

from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.metrics import ConfusionMatrix, draw_confusion, per_class_table


@pytest.fixture
def matrix():
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([0, 0, 0, 1, 1, 9]), np.array([0, 0, 1, 1, 2, 2]))
    return matrix


def test_the_table_lists_the_classes_that_occur(matrix):
    table = per_class_table(matrix, ['sky', 'ground', 'a longer name', 'absent'])
    lines = table.splitlines()
    assert [line.split()[0] for line in lines] == ['class', 'sky', 'ground', 'a', '-' * len(lines[0]), 'all', 'all']
    assert lines[1].split() == ['sky', '66.67', '100.00', '2', '3']
    assert lines[2].split() == ['ground', '33.33', '50.00', '2', '2']
    assert lines[-1].split() == ['all', 'pixels', '50.00']
    assert 'absent' in per_class_table(matrix, ['sky', 'ground', 'other', 'absent'], present_only=False)


def test_the_picture_shows_a_dark_diagonal(matrix, tmp_path):
    pixels = draw_confusion(matrix, ['sky', 'ground', 'house', 'absent'], tmp_path / 'confusion.png')
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(tmp_path / 'confusion.png')))
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    full = np.array([8, 48, 107])  # sky is always right: one cell is fully dark
    assert (np.abs(pixels.astype(int) - full).sum(2) == 0).sum() > 100


def test_the_picture_of_171_classes_stays_small():
    matrix = ConfusionMatrix(171)
    ids = np.arange(171, dtype=np.uint8)
    matrix.update(ids, ids)
    height, width = draw_confusion(matrix, CLASSES).shape[:2]
    assert max(height, width) < 2000


def test_an_empty_matrix_can_be_reported():
    matrix = ConfusionMatrix(2)
    assert 'all classes' in per_class_table(matrix, ['a', 'b'])
    assert draw_confusion(matrix, ['a', 'b']).ndim == 3
