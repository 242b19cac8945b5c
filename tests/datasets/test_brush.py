"""Label Studio's brush masks, there and back, and damaged ones."""

import numpy as np
import pytest

from ms_segformer.datasets.brush import decode_brush, encode_brush
from ms_segformer.datasets.errors import DatasetError

LABEL_STUDIO = [0, 0, 0, 24, 57, 27, 252, 96, 17, 255, 223, 0, 0]


@pytest.mark.parametrize('shape', [(1, 1), (5, 7), (64, 99), (300, 400)])
@pytest.mark.parametrize('density', [0, 0.001, 0.1, 0.5, 1])
def test_a_mask_comes_back(shape, density):
    mask = np.random.default_rng(3).random(shape) < density
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), *shape, 'test'), mask)


def test_the_stream_is_the_one_of_label_studio():
    """Made by label_studio_sdk 2.1.2, `converter.brush.mask2rle`, of a mask with one pixel inside."""
    mask = np.zeros((2, 3), np.uint8)
    mask[0, 1] = 255
    assert decode_brush(LABEL_STUDIO, 2, 3, 'test').tolist() == [[0, 1, 0], [0, 0, 0]]
    assert decode_brush(encode_brush(mask), 2, 3, 'test').tolist() == [[0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    'stream',
    [
        None,
        'text',
        [],
        [1, 2],
        [256],
        [-1],
        ['a'],
        [0.5],
        [[1]],
        [255] * 40,
        [0, 0, 0, 96, 57, 27, 207],
        encode_brush(np.ones((5, 4), bool)),
        encode_brush(np.eye(4, 6, dtype=bool))[:-3],
    ],
)
def test_a_damaged_stream_is_refused(stream):
    with pytest.raises(DatasetError, match='picture 7'):
        decode_brush(stream, 4, 6, 'picture 7')
