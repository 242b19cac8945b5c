"""The small data set to try training with."""

import errno
import os

import pytest

from ms_segformer.datasets import example
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.example import CLASSES, SPLITS, write_example
from ms_segformer.datasets.inspection import inspect
from ms_segformer.datasets.layout import find_data_sources
from ms_segformer.datasets.sources import build_source


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_it_is_a_data_set_in_which_every_picture_shows_every_class(tmp_path):
    folder = write_example(tmp_path / 'shapes')
    sections = find_data_sources(folder)
    for split, count in SPLITS.items():
        found = inspect(build_source(sections[split]), jobs=1)
        assert found.pairs == count and found.usable and not found.problems
        assert found.classes == list(CLASSES) and found.images.tolist() == [count] * 4
        assert (found.pixels > 0.08 * found.pixels.sum()).all() and 96 <= min(min(found.sizes)) <= 160


def test_it_is_always_the_same(tmp_path):
    assert contents(write_example(tmp_path / 'a')) == contents(write_example(tmp_path / 'b'))


def test_nothing_that_is_there_is_touched(tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(DatasetError, match=f'^{tmp_path}/file is a file; choose a folder'):
        write_example(tmp_path / 'file')
    with pytest.raises(DatasetError, match=f'^{tmp_path} holds something already; choose a folder that is empty'):
        write_example(tmp_path)
    with pytest.raises(DatasetError, match=r'cannot be written \(.*Not a directory.*\); make room or choose'):
        write_example(tmp_path / 'file' / 'below')
    assert contents(tmp_path) == {'file': b'mine'}


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path, monkeypatch):
    write = example.Path.write_bytes

    def full(path, content):
        write(path, content[:10])
        if path.name == '02.jpg':
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(example.Path, 'write_bytes', full)
    with pytest.raises(DatasetError, match='a cannot be written .*No space left on device.*; make room'):
        write_example(tmp_path / 'a')
    assert contents(tmp_path) == {}
    monkeypatch.undo()
    assert write_example(tmp_path / 'a')
