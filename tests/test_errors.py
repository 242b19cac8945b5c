"""What others say is one short line that a terminal only shows."""
from ms_segformer.errors import LONGEST, one_line


def test_a_text_of_several_lines_becomes_one():
    assert one_line(ValueError('first\r\n  second\tthird\n')) == 'first second third'


def test_what_cannot_be_printed_is_escaped_and_other_scripts_stay():
    assert one_line('\x1b[31m 街 \x00 \udc80') == r'\x1b[31m 街 \x00 \udc80'


def test_a_long_text_is_cut_and_says_so():
    assert one_line('a' * LONGEST) == 'a' * LONGEST
    for letter in ('a', '\x1b'):
        line = one_line(letter * 10**6)
        assert len(line) == LONGEST and line.endswith('…')


def test_an_exception_without_a_text_is_named():
    assert one_line(LookupError()) == 'LookupError'
