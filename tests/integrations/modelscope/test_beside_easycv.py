"""pai-easycv installed too: SegFormer is ours, the rest stays EasyCV's, whichever is imported first.

The package here only registers what the real one registers, in the same way: without `force`.
"""

import json

import pytest

EASYCV = """
from modelscope.metrics.builder import METRICS
from modelscope.models.builder import MODELS
from modelscope.msdatasets.dataset_cls.custom_datasets.builder import CUSTOM_DATASETS
from modelscope.pipelines.builder import PIPELINES
from modelscope.trainers.builder import TRAINERS
from modelscope.trainers.hooks.builder import HOOKS


class Built:
    def __init__(self, **arguments):
        self.arguments = arguments


for registry, group, name in [
        (MODELS, 'image-segmentation', 'Segformer'), (PIPELINES, 'image-segmentation', 'easycv-segmentation'),
        (TRAINERS, 'default', 'easycv'), (CUSTOM_DATASETS, 'image-segmentation', 'SegDataset'),
        (METRICS, 'default', 'EasyCVMetric'), (HOOKS, 'default', 'AddLrLogHook'),
        (MODELS, 'image-object-detection', 'YOLOX'), (PIPELINES, 'image-object-detection', 'easycv-detection')]:
    registry.register_module(group, name)(type(f'Their{name}', (Built,), {'__module__': __name__}))
"""

LOOK = '''
import importlib, json, sys
sys.path.insert(0, {folder!r})
import ms_segformer
from ms_segformer.integrations.modelscope.shared_names import COMPONENTS, own_names

def ours():
    for (registry, _, _), module in COMPONENTS.items():
        if registry not in ('EXPORTERS', 'PREPROCESSORS'):  # EasyCV has none
            importlib.import_module(module)

def theirs():
    import easycv.toolkit.modelscope

for load in ({order}):
    load()

from easycv.toolkit.modelscope import CUSTOM_DATASETS, HOOKS, METRICS, MODELS, PIPELINES, TRAINERS
from modelscope.metainfo import Trainers
from modelscope.utils.import_utils import LazyImportModule
from modelscope.utils.registry import build_from_cfg

SHARED = {{'Segformer': (MODELS, 'image-segmentation'), 'easycv-segmentation': (PIPELINES, 'image-segmentation'),
          'easycv': (TRAINERS, 'default'), 'SegDataset': (CUSTOM_DATASETS, 'image-segmentation'),
          'EasyCVMetric': (METRICS, 'default'), 'AddLrLogHook': (HOOKS, 'default')}}

def owner(thing):
    thing = thing if isinstance(thing, type) else type(thing)
    return thing.__module__.split('.')[0]

def build(registry, group, name, model):
    """Build by name for a model; constructors of ours do nothing here."""
    LazyImportModule.import_module((registry.name.upper(), group, name))  # as `build_from_cfg` begins
    cls = registry.modules[group][name]
    if owner(cls) == 'ms_segformer':
        cls._instantiate = classmethod(lambda cls, **arguments: object.__new__(cls))
    return owner(build_from_cfg(dict(type=name, model=model), registry, group_key=group))

def names():
    return {{name: owner(registry.get(name, group)) if name not in ('easycv', 'easycv-segmentation') else
            [build(registry, group, name, {segformer!r}), build(registry, group, name, {other!r})]
            for name, (registry, group) in SHARED.items()}}

plain = names()
with own_names():
    inside = {{name: owner(registry.get(name, group)) for name, (registry, group) in SHARED.items()
              if name in ('SegDataset', 'EasyCVMetric', 'AddLrLogHook')}}
rest = [owner(MODELS.get('YOLOX', 'image-object-detection')),
        owner(PIPELINES.get('easycv-detection', 'image-object-detection'))]
ms_segformer.deactivate()
off = {{name: owner(registry.get(name, group)) for name, (registry, group) in SHARED.items()}}
print(json.dumps([plain, inside, rest, off, hasattr(Trainers, 'easycv')]))
'''


@pytest.fixture
def folder(tmp_path):
    package = tmp_path / 'path' / 'easycv' / 'toolkit' / 'modelscope'
    package.mkdir(parents=True)
    (package.parents[1] / '__init__.py').write_text('')
    (package.parent / '__init__.py').write_text('')
    (package / '__init__.py').write_text(EASYCV)
    return tmp_path / 'path'


@pytest.fixture
def models(tmp_path):
    """A SegFormer directory and another model's that asks for the same pipeline and trainer."""
    from hub.fixtures import published_files

    for name in ('segformer', 'other'):
        (tmp_path / name).mkdir()
        for file, content in published_files().items():
            (tmp_path / name / file).write_bytes(content)
    path = tmp_path / 'other' / 'configuration.json'
    content = json.loads(path.read_text())
    content['model']['type'] = 'UperNet'
    path.write_text(json.dumps(content))
    return str(tmp_path / 'segformer'), str(tmp_path / 'other')


@pytest.mark.parametrize('order', ['theirs, ours', 'ours, theirs', 'theirs, theirs'])
def test_segformer_is_ours_and_the_rest_stays(python, folder, models, order):
    """The last order imports nothing of ours: ModelScope's lazy index has to find it."""
    segformer, other = models
    plain, inside, rest, off, named = python.result(
        LOOK.format(folder=str(folder), order=order, segformer=segformer, other=other)
    )
    for name in ('easycv', 'easycv-segmentation'):
        assert plain[name] == ['ms_segformer', 'easycv']
    assert plain['Segformer'] == ('easycv' if order == 'theirs, theirs' else 'ms_segformer')
    assert {plain[name] for name in inside} == {'easycv'}, 'a trainer of EasyCV must get its own metric'
    if order != 'theirs, theirs':
        assert set(inside.values()) == {'ms_segformer'}
    assert rest == ['easycv', 'easycv']
    assert set(off.values()) == {'easycv'} and not named


def test_the_variable_leaves_segformer_to_easycv(python, folder, models):
    done = python.run(
        code=f"""
        import sys
        sys.path.insert(0, {str(folder)!r})
        import ms_segformer
        from easycv.toolkit.modelscope import MODELS, PIPELINES
        print(MODELS.get('Segformer', 'image-segmentation').__name__,
              PIPELINES.get('easycv-segmentation', 'image-segmentation').__name__)
    """,
        MS_SEGFORMER_DISABLE='1',
    )
    assert done.stdout.split() == ['TheirSegformer', 'Theireasycv-segmentation']
