"""Switching the resolution on and off: what is imported, what is changed, what a changed ModelScope does."""

import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from hub.fixtures import needs_hub_client

import ms_segformer
from ms_segformer.config.recognition import is_segformer
from ms_segformer.integrations.modelscope import autoload, patches
from ms_segformer.integrations.modelscope.shared_names import COMPONENTS


def test_importing_the_package_imports_neither_modelscope_nor_torch(python):
    assert python.result("""
        import json, sys
        before = set(sys.modules)
        import ms_segformer
        new = set(sys.modules) - before
        heavy = ('modelscope', 'modelscope_hub', 'torch', 'numpy', 'cv2', 'requests', 'logging', 'inspect')
        from ms_segformer.integrations.modelscope.autoload import active
        print(json.dumps([active(), [name for name in heavy if name in new]]))
    """) == [True, []]


@pytest.mark.parametrize('order', ['before', 'after', 'between'])
def test_the_trainer_has_its_name_whenever_the_package_is_imported(python, order):
    lines = {
        'before': 'import ms_segformer; from modelscope.metainfo import Trainers',
        'after': 'from modelscope.metainfo import Trainers; import ms_segformer',
        'between': 'import modelscope; import ms_segformer; from modelscope.metainfo import Trainers',
    }[order]
    assert python.result(f'{lines}; import json; print(json.dumps(Trainers.easycv))') == 'easycv'


@needs_hub_client
def test_switching_off_restores_modelscope_and_switching_on_again_works(python):
    assert python.result("""
        import json
        from modelscope.metainfo import Trainers
        from modelscope.utils.config import Config
        from modelscope.utils.import_utils import LazyImportModule
        from modelscope.utils.registry import Registry
        from modelscope.hub.api import HubApi
        from modelscope_hub.api import HubApi as Client

        def state():
            index = LazyImportModule.get_ast_index()['index']
            return [{name: repr(value) for name, value in vars(owner).items() if not name.startswith('__')
                     and name != '_AST_INDEX'} for owner in (Trainers, Config, LazyImportModule, Registry, HubApi,
                                                             Client)] + [sorted(map(str, index))]

        untouched = state()
        import ms_segformer
        from ms_segformer.integrations.modelscope import patches
        changed = state()
        ms_segformer.activate(); ms_segformer.activate()
        again = state()
        ms_segformer.deactivate(); ms_segformer.deactivate()
        off = state()
        ms_segformer.activate()
        on = LazyImportModule.get_ast_index()['index'][('MODELS', 'image-segmentation', 'Segformer')]['module']
        print(json.dumps([changed != untouched, again == changed, off == untouched, on, patches.problems()]))
    """) == [True, True, True, 'ms_segformer.models.segformer', []]


def test_the_variable_hands_segformer_back(python):
    done = python.run(
        code="""
        from ms_segformer.integrations.modelscope.autoload import active
        from modelscope.metainfo import Trainers
        print(active(), hasattr(Trainers, 'easycv'))
    """,
        MS_SEGFORMER_DISABLE='1',
    )
    assert done.stdout.split() == ['False', 'False']


@pytest.mark.parametrize(
    'broken, problems',
    [
        ('from modelscope.utils.config import Config; del Config.from_file', 1),
        pytest.param(
            'from modelscope.utils.import_utils import LazyImportModule; del LazyImportModule.get_ast_index',
            1,
            marks=needs_hub_client,
        ),
        ('from modelscope.utils import registry; registry.Registry.get = lambda self, key: None', 1),
        ('from modelscope import metainfo; del metainfo.Trainers', 1),
        pytest.param(
            'from modelscope import metainfo; del metainfo.Trainers; '
            'import modelscope_hub.api; del modelscope_hub.api.HubApi.download_repo',
            2,
            marks=needs_hub_client,
        ),
    ],
)
def test_a_changed_modelscope_gives_one_clear_warning(python, broken, problems):
    done = python.run(
        code=f"""
        {broken}
        from ms_segformer.integrations.modelscope import patches
        import modelscope.hub.api, modelscope.utils.config
        print(len(patches.problems()))
    """
    )
    assert done.stderr.count('ms-segformer could not connect to ModelScope') == 1
    assert 'pip install modelscope==' in done.stderr
    assert int(done.stdout) == problems


@needs_hub_client
def test_the_index_file_on_disk_stays_as_it_is(python):
    assert python.result("""
        import hashlib, json, pathlib
        import modelscope
        from ms_segformer.integrations.modelscope.shared_names import COMPONENTS
        from modelscope.utils import ast_utils
        file = pathlib.Path(ast_utils.__file__).with_name('ast_index_file.py')
        before = hashlib.sha256(file.read_bytes()).hexdigest()
        from modelscope.utils.import_utils import LazyImportModule
        entries = [key for key, entry in LazyImportModule.get_ast_index()['index'].items()
                   if entry['module'].startswith('ms_segformer')]
        same = before == hashlib.sha256(file.read_bytes()).hexdigest()
        print(json.dumps([len(entries) == len(COMPONENTS), same, b'ms_segformer' in
                          file.read_bytes()]))
    """) == [True, True, False]
    assert not list(python.cache.rglob('ast_indexer*'))


def test_every_component_is_a_module_of_this_package_that_registers_it():
    from importlib import import_module

    registries = {
        'MODELS': 'models.builder',
        'PREPROCESSORS': 'preprocessors.builder',
        'PIPELINES': 'pipelines.builder',
        'TRAINERS': 'trainers.builder',
        'METRICS': 'metrics.builder',
        'CUSTOM_DATASETS': 'msdatasets.dataset_cls.custom_datasets.builder',
        'HOOKS': 'trainers.hooks.builder',
        'EXPORTERS': 'exporters.builder',
    }
    for (registry, group, name), module in COMPONENTS.items():
        assert Path(ms_segformer.__file__).parent.joinpath(*module.split('.')[1:]).with_suffix('.py').is_file()
        import_module(module)
        found = getattr(import_module(f'modelscope.{registries[registry]}'), registry).get(name, group)
        assert found is not None and found.__module__ == module, (registry, group, name)


def test_the_watched_modules_are_the_changed_ones():
    assert {patch.module for patch in patches.PATCHES} == autoload.MODULES


def test_the_names_here_are_those_of_metainfo():
    from ms_segformer import metainfo

    assert {name for _, _, name in COMPONENTS} == {
        metainfo.MODEL,
        metainfo.PIPELINE,
        metainfo.PREPROCESSOR,
        metainfo.TRAINER,
        metainfo.DATASET,
        metainfo.METRIC,
        metainfo.LR_LOG_HOOK,
    }
    assert is_segformer({'model': {'type': metainfo.MODEL}, 'pipeline': {'type': metainfo.PIPELINE}})


@pytest.mark.parametrize(
    'configuration',
    [
        {},
        {'model': None},
        [],
        None,
        {'model': {'type': 'Segformer'}},
        {'pipeline': {'type': 'easycv-segmentation'}},
        {'model': {'type': 'YOLOX'}, 'pipeline': {'type': 'easycv-detection'}},
        {'model': 'Segformer', 'pipeline': 'x'},
    ],
)
def test_anything_else_is_not_segformer(configuration):
    assert not is_segformer(configuration)


def test_importing_the_package_takes_under_two_milliseconds(tmp_path):
    """Processor time after Python's own start; the median of 15, with the byte code in place."""
    code = 'import time; start = time.process_time(); import ms_segformer; print((time.process_time() - start) * 1000)'
    folder = str(Path(ms_segformer.__file__).parents[1])
    environment = {'PYTHONPATH': folder, 'PYTHONPYCACHEPREFIX': str(tmp_path), 'PATH': '/usr/bin'}
    times = [
        float(
            subprocess.run(
                [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(16)
    ][1:]
    assert statistics.median(times) < 2, times
