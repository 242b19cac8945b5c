"""Bars and live lines on terminals of any size."""

import fcntl
import os
import re
import struct
import sys
import termios

import pytest
from tqdm import __version__ as tqdm_version
from tqdm import tqdm

from ms_segformer.progress import LINE, screen


@pytest.mark.parametrize('rows, columns, seen', [(0, 0, 79), (24, 0, 79), (24, 100, 99), (24, 11, 10)])
def test_a_line_is_seen_on_a_terminal_of_any_size(rows, columns, seen, monkeypatch):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
    with open(theirs, 'w', closefd=True) as terminal:
        monkeypatch.setattr(sys, 'stderr', terminal)
        with tqdm(total=1, bar_format=LINE, **screen()) as bar:
            bar.set_description_str('x' * 200)
        written = ''
        while '\n' not in written:  # which ends the line; a terminal hands on a part at a time
            written += os.read(ours, 10_000).decode()
    os.close(ours)
    if tuple(map(int, tqdm_version.split('.')[:2])) < (4, 69):  # those take the last column, too
        seen = columns or seen
    assert max(map(len, re.split(r'[\r\n]+', written))) == seen


def test_a_stream_that_is_no_terminal(monkeypatch, tmp_path):
    with open(tmp_path / 'log', 'w') as log:
        monkeypatch.setattr(sys, 'stderr', log)
        assert screen() == {'dynamic_ncols': True}
    monkeypatch.setattr(sys, 'stderr', None)
    assert screen() == {'dynamic_ncols': True}
