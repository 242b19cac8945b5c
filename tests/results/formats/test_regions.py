"""Run lengths and polygons give the masks back that they were made of."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.label_file import read_label
from ms_segformer.datasets.regions import MAX_LENGTH, MAX_POINTS, decode_rle, fill_polygons
from ms_segformer.results.formats import SIMPLIFY, encode_rle, polygons, without_small_parts


def noise(seed, height=40, width=61):
    """A mask of blobs with holes, parts that touch at corners, and pixels at the border."""
    random = np.random.default_rng(seed)
    return cv2.GaussianBlur(random.random((height, width)), (0, 0), 1 + seed % 3) > 0.5


def masks():
    ring = np.zeros((9, 9), bool)
    ring[1:8, 1:8] = True
    ring[3:6, 3:6] = False
    ring[4, 4] = True
    diagonal = np.eye(5, dtype=bool)
    return [np.zeros((4, 6), bool), np.ones((4, 6), bool), ring, diagonal, np.ones((1, 1), bool), *map(noise, range(9))]


@pytest.mark.parametrize('mask', masks())
def test_run_lengths_give_a_mask_back(mask):
    rle = encode_rle(mask)
    assert rle['size'] == list(mask.shape)
    np.testing.assert_array_equal(decode_rle(rle, 'test'), mask)
    np.testing.assert_array_equal(coco.decode(rle), mask)
    counts = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.T.ravel(), [2]])))).tolist()
    plain = {'size': rle['size'], 'counts': [0, *counts] if mask[0, 0] else counts}
    np.testing.assert_array_equal(decode_rle(plain, 'test'), mask)


@pytest.mark.parametrize('mask', masks())
def test_outlines_along_pixels_give_a_mask_back(mask):
    found = polygons(mask, simplify=0)
    assert sum(polygon.area for polygon in found) == mask.sum()
    assert [polygon.area for polygon in found] == sorted((polygon.area for polygon in found), reverse=True)
    np.testing.assert_array_equal(fill_polygons([each.ring() for each in found], *mask.shape, 'test'), mask)


def test_holes_turn_the_other_way():
    polygon = polygons(masks()[2], 0)[0]
    assert polygon.area == 49 - 9
    outer, hole = (cv2.contourArea(ring.astype(np.float32), True) for ring in (polygon.outer, *polygon.holes))
    assert {abs(outer), abs(hole)} == {49, 9} and outer * hole < 0
    assert len(polygon.ring()) == 4 + 4 + 2


def test_a_slope_is_a_line():
    """Simplified, a triangle has few points, not a stair of 60 steps."""
    rows, columns = np.mgrid[:60, :60]
    triangle = columns <= rows
    polygon = polygons(triangle, SIMPLIFY)[0]
    assert len(polygon.outer) <= 8
    filled = fill_polygons([polygon.outer], 60, 60, 'test')
    assert (filled != triangle).mean() < 0.02


def test_small_parts_and_holes_are_left_out():
    mask = np.zeros((30, 30), bool)
    mask[2:20, 2:20] = True
    mask[5:7, 5:7] = False
    mask[25:27, 25:27] = True
    assert [polygon.area for polygon in polygons(mask, 0)] == [18 * 18 - 4, 4]
    (polygon,) = polygons(mask, 0, min_area=5)
    assert polygon.area == 18 * 18 and not polygon.holes
    assert without_small_parts(mask, 5).sum() == 18 * 18 - 4
    assert without_small_parts(mask, 0) is mask


def test_polygons_of_real_label_maps_miss_little(shared):
    ious = []
    for path in sorted((shared / 'data' / 'cocostuff_sample' / 'annotations').rglob('*_labelTrainIds.png')):
        label = read_label(path)
        for each in np.unique(label[label != 255]):
            mask = label == each
            if mask.mean() >= 0.01:
                filled = fill_polygons([each.ring() for each in polygons(mask)], *mask.shape, path) > 0
                ious.append((mask & filled).sum() / (mask | filled).sum())
    assert len(ious) > 100
    assert np.mean(ious) >= 0.98


@pytest.mark.parametrize(
    'rle',
    [
        None,
        {'size': [2, 3]},
        {'size': [2, 3], 'counts': None},
        {'size': [2, 3], 'counts': [7]},
        {'size': [2, 3], 'counts': [1, -1, 6]},
        {'size': [2, 3], 'counts': [2**80]},
        {'size': [2, 3], 'counts': 'é'},
        {'size': [2, 3], 'counts': '6P'},
        {'size': [2, 3], 'counts': 'oooooooooooooooo0'},
        {'size': [2, 3], 'counts': '\x7f'},
        {'size': [0, 3], 'counts': []},
        {'size': [2**20, 2**20], 'counts': [2**40]},
        {'size': ['2', 3], 'counts': '6'},
    ],
)
def test_damaged_run_lengths_are_refused(rle):
    with pytest.raises(DatasetError, match='picture 7'):
        decode_rle(rle, 'picture 7')


@pytest.mark.parametrize(
    'points',
    [
        [1, 2, 3],
        [[1, 2]] * 2,
        'text',
        [[1, 2], [3]],
        [[1, 2], [3, 4], [5, float('nan')]],
        [[1, 2], [3, 4], [5, 1e9]],
        [[1, 2], [3, 4], [5, 10**400]],
        [[[1, 2]]],
        None,
    ],
)
def test_damaged_polygons_are_refused(points):
    with pytest.raises(DatasetError, match='picture 7'):
        fill_polygons([points], 10, 20, 'picture 7')


def test_an_outline_without_end_is_refused():
    """pycocotools takes memory by the length of an outline, and the process is gone where there is none."""
    zigzag = np.zeros((1000, 2))
    zigzag[1::2, 0] = 8700
    assert 1000 * 8700 > MAX_LENGTH and len(zigzag) < MAX_POINTS
    with pytest.raises(DatasetError, match='picture 7: the outline of one region is more than 8,388,608 pixels long'):
        fill_polygons([zigzag], 10, 3000, 'picture 7')
    assert fill_polygons([zigzag[:900]], 10, 3000, 'picture 7').shape == (10, 3000)


def test_what_lies_outside_is_cut_off():
    filled = fill_polygons([[-5, -5, 4, -5, 4, 25, -5, 25]], 20, 30, 'test')
    assert filled[:, :4].all() and not filled[:, 4:].any()
