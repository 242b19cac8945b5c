"""A package imports those of its layer and below; the layers are those of the drawing in docs/en/architecture.md."""

import ast
import importlib
import importlib.util
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / 'ms_segformer'
# Each is named in docs/en/architecture.md.
EXCEPTIONS = {('integrations.easycv.bridge', 'models')}
EVERYWHERE = {'version'}
# What the command line has imported anyway, for its options.
LIGHT = {'..metainfo', '..files', '..config', '..errors', '..progress', '..version', *sys.stdlib_module_names}


def test_a_package_imports_only_its_layer_and_those_below(monkeypatch):
    monkeypatch.syspath_prepend(str(PACKAGE.parent / 'tools'))
    layers = importlib.import_module('architecture_figure').LAYERS
    depth = {name: number for number, layer in enumerate(layers) for name in layer}
    found = {(module, target) for path in PACKAGE.rglob('*.py') for module, target in imports(path)}
    assert len(found) > 200
    unknown = {target for _, target in found} - set(depth) - EVERYWHERE
    assert not unknown, 'these have no place in tools/architecture_figure.py'
    upwards = {
        (module, target)
        for module, target in found
        if target in depth and depth[target] < depth.get(module.split('.')[0], -1)
    }
    assert upwards == EXCEPTIONS


def test_the_exceptions_are_said():
    text = (PACKAGE.parent / 'docs' / 'en' / 'architecture.md').read_text(encoding='utf-8')
    assert all(f'`{module.replace(".", "/")}.py`' in text for module, _ in EXCEPTIONS)


def test_an_import_inside_a_function_says_why():
    """On its line, on the one above, or, for the command line, in the package's docstring."""
    unexplained = []
    for path in sorted(PACKAGE.rglob('*.py')):
        lines = path.read_text(encoding='utf-8').splitlines()
        tree = ast.parse('\n'.join(lines))
        inside = {
            node
            for function in ast.walk(tree)
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
            for node in ast.walk(function)
            if isinstance(node, (ast.Import, ast.ImportFrom))
        }
        if path.parent.name == 'cli':  # what is heavy
            inside = {node for node in inside if names(node) <= LIGHT}
        unexplained += [
            f'{path.relative_to(PACKAGE)}:{first}'
            for first, last in blocks(sorted((node.lineno, node.end_lineno) for node in inside))
            if not any('#' in line for line in lines[first - 2 : last])
        ]
    assert not unexplained


def names(node):
    """The modules that an import statement names, relative to the package of the command line."""
    if isinstance(node, ast.Import):
        return {alias.name.partition('.')[0] for alias in node.names}
    return {'.' * node.level + (node.module or '').partition('.')[0]}


def blocks(spans):
    """(first, last) lines of import statements, those that follow each other as one."""
    found = []
    for first, last in spans:
        if found and found[-1][1] + 1 == first:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return found


def imports(path):
    """(module, top-level package or module of ours that it imports), the one that it lies in left out."""
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    package = '.'.join(('ms_segformer', *parts[:-1]))
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.ImportFrom):
            continue
        name = importlib.util.resolve_name('.' * node.level + (node.module or ''), package)
        names = [f'{name}.{alias.name}' for alias in node.names] if name == 'ms_segformer' else [name]
        for target in names:
            top, _, rest = target.partition('.')
            if top == 'ms_segformer' and rest and not rest.startswith('__') and rest.split('.')[0] != parts[0]:
                yield '.'.join(parts), rest.split('.')[0]
