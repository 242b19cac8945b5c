"""A package imports those of its layer and below; the layers are those of the drawing in docs/en/architecture.md."""

import ast
import importlib
import importlib.util
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / 'ms_segformer'
# Each is named in docs/en/architecture.md.
EXCEPTIONS = {('integrations.easycv.bridge', 'models')}
EVERYWHERE = {'version'}


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
