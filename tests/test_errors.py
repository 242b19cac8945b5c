"""What others say is one short line that a terminal only shows."""

import ast
import builtins
from pathlib import Path

import ms_segformer
from ms_segformer.errors import LONGEST, ArgumentError, SegformerError, one_line


def test_every_error_of_the_package_is_a_segformer_error():
    bases = {}
    for path in Path(ms_segformer.__file__).parent.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]

    def below(name, wanted):
        return wanted(name) or any(below(base, wanted) for base in bases.get(name, ()))

    errors = [
        name
        for name in bases
        if not name.startswith('_') and below(name, lambda each: issubclass(getattr(builtins, each, int), Exception))
    ]
    assert {'ConfigurationError', 'TrainingError', 'HubUnreachable', 'ImageError'} <= set(errors)
    assert [name for name in errors if not below(name, 'SegformerError'.__eq__)] == []
    assert issubclass(SegformerError, Exception) and issubclass(ArgumentError, ValueError)


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
