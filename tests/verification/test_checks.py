"""The single checks, each seen to pass, to fail and to be left out."""

import numpy as np
import pytest

from ms_segformer.metainfo import VARIANTS
from ms_segformer.verification import FAILED, PASSED, SKIPPED, checks, label_maps

B0 = VARIANTS['b0']


def test_files_against_the_hub_s(tmp_path):
    (tmp_path / 'a.bin').write_bytes(b'abc')
    (tmp_path / '.hidden').write_bytes(b'x')
    files = checks.describe_files(tmp_path)
    sha256 = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert files == [{'name': 'a.bin', 'bytes': 3, 'sha256': sha256}]
    assert checks.check_files(files, {'a.bin': sha256}).outcome == PASSED
    assert checks.check_files(files, {'a.bin': sha256, 'b': '0'}).detail == 'not here: b'
    wrong = checks.check_files(files, {'a.bin': '0'})
    assert (wrong.outcome, wrong.detail) == (FAILED, 'another SHA-256: a.bin')
    assert checks.check_files(files, {}).outcome == SKIPPED
    assert checks.check_files(files, None, 'offline') == checks.Check("files equal the hub's", SKIPPED, 'offline')


def test_parameters():
    assert checks.check_parameters(3_759_372, B0).outcome == PASSED
    assert checks.check_parameters(3_759_371, B0).outcome == FAILED
    assert checks.check_parameters(5, None).outcome == SKIPPED


def test_known_pixels():
    seg_map = np.zeros((20, 30), np.uint8)
    seg_map[1, 4:10], seg_map[-1, -10:] = 161, 133
    assert checks.check_known_pixels(seg_map).outcome == PASSED
    seg_map[1, 9] = 3
    found = checks.check_known_pixels(seg_map)
    assert found.outcome == FAILED and found.detail == 'row 1, columns 4 to 9: [3, 161] in place of 161 (wall-other)'


@pytest.mark.parametrize(
    'miou, images, expected',
    [
        (35.91, 5000, PASSED),
        (36.21, 5000, PASSED),
        (35.61, 5000, PASSED),
        (36.22, 5000, FAILED),
        (35.60, 5000, FAILED),
        (35.91, 4999, SKIPPED),
    ],
)
def test_miou_within_three_tenths_of_the_card_is_reproduced(miou, images, expected):
    assert checks.check_score(miou, images, 'val', B0).outcome == expected
    assert checks.check_score(miou, images, 'val', None).outcome == SKIPPED
    assert checks.check_score(miou, images, 'train', B0).outcome == SKIPPED
    assert checks.check_score(None, images, 'val', B0).outcome == SKIPPED


def test_label_maps_of_two_machines():
    random = np.random.default_rng(0)
    seg_map = random.integers(0, 3, (50, 70), np.uint8)
    described = label_maps.describe(seg_map, ['a', 'b'])
    assert set(described['shares']) == {'a', 'b', '2'}
    assert sum(described['shares'].values()) == pytest.approx(1, abs=1e-4)
    assert label_maps.same_cells(described, described) == 1
    other = seg_map.copy()
    other[:25] += 1  # half of the rows of cells
    assert label_maps.same_cells(described, label_maps.describe(other, ['a'])) == 0.5
    assert label_maps.same_cells(described, label_maps.describe(seg_map[:-1], ['a'])) == 0
