"""Models that are not SegFormer take exactly the way they take without this package."""

import json

import pytest
from hub.fixtures import FOREIGN_ID

pytestmark = pytest.mark.forked_python

# Records every call of a Python function of ModelScope's, its hub client included, during three ways to load a model.
RECORD = """
import json, sys
{activate}
from modelscope.models import Model
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer
from modelscope.preprocessors import Preprocessor
from modelscope.utils import plugins

def install_requirements_by_names(names):  # pip is out of reach here; what comes after it is not
    print('pip', names)

plugins.install_requirements_by_names = install_requirements_by_names
plugins.get_modules_from_package = lambda name: ([], '0', name)
calls = []

def profile(frame, event, argument):
    if event == 'call':
        module = frame.f_globals.get('__name__', '')
        if module.split('.')[0] in ('modelscope', 'modelscope_hub'):
            calls.append(f'{{module}}.{{frame.f_code.co_name}}')

outcomes = []
model = {model!r}
for load in (lambda: pipeline('image-object-detection', model), lambda: Model.from_pretrained(model),
             lambda: build_trainer('easycv', dict(model=model)), lambda: Preprocessor.from_pretrained(model)):
    sys.setprofile(profile)
    try:
        outcome = repr(load())
    except Exception as error:
        outcome = f'{{type(error).__name__}}: {{error}}'
    sys.setprofile(None)
    outcomes.append(outcome)
    calls.append('---')
print(json.dumps([calls, outcomes]))
"""


@pytest.mark.parametrize('local', [False, True], ids=['hub id', 'local copy'])
def test_another_model_of_easycv_makes_the_same_calls_with_and_without_us(python, hub, tmp_path, local):
    model = FOREIGN_ID
    if local:
        model = str(tmp_path / 'copy')
        (tmp_path / 'copy').mkdir()
        for name, content in hub.models[FOREIGN_ID].items():
            (tmp_path / 'copy' / name).write_bytes(content)
    seen = {}
    for activate in ('', 'import ms_segformer'):
        fresh = tmp_path / f'home{len(activate)}'
        python.cache = fresh / 'cache'
        hub.requests.clear()
        done = python.run(code=RECORD.format(activate=activate, model=model), HOME=str(fresh))
        calls, outcomes = json.loads(done.stdout.splitlines()[-1])
        piped = [line for line in done.stdout.splitlines() if line.startswith('pip ')]
        # As a set: files are fetched by several threads, and ModelScope gives its probe for a region 0.2 s.
        seen[activate] = calls, outcomes, piped, set(hub.requests)
    without, ours = seen.values()
    assert len(without[0]) > 40
    assert without[2] == ["pip ['pai-easycv']"] * 3, 'ModelScope asked for the plugin three times'
    # The trainer's name is the one difference on purpose: without us ModelScope knows no trainer `easycv` at all.
    trainer = 2
    assert ours[1][:trainer] + ours[1][trainer + 1 :] == without[1][:trainer] + without[1][trainer + 1 :]
    assert 'easycv is not in the trainers registry' in without[1][trainer]
    assert _sections(ours[0], leave_out=trainer) == _sections(without[0], leave_out=trainer)
    up_to_the_registry = without[0][: _registry_call(without[0], trainer)]
    assert ours[0][: len(up_to_the_registry)] == up_to_the_registry
    assert ours[2:] == without[2:]


def test_other_registry_names_are_looked_up_as_before(python):
    assert python.result("""
        import json
        from modelscope.utils.registry import Registry
        import ms_segformer
        models = Registry('models')

        @models.register_module('image-segmentation', 'Other')
        class Other:
            pass

        try:
            models.register_module('image-segmentation', 'Other')(Other)
            repeated = 'accepted'
        except KeyError as error:
            repeated = str(error)
        mine = type('Segformer', (), {'__module__': 'somebody.else'})
        models.register_module('image-segmentation', 'Segformer')(mine)
        print(json.dumps([models.get('Other', 'image-segmentation') is Other, models.get('Missing'), repeated,
                          models.get('Segformer', 'image-segmentation') is mine]))
    """) == [True, None, "'Other is already registered in models[image-segmentation]'", True]


def test_a_segformer_configuration_keeps_its_other_plugins(python, tmp_path):
    path = tmp_path / 'configuration.json'
    base = {'model': {'type': 'Segformer'}, 'pipeline': {'type': 'easycv-segmentation'}}
    written = [['pai-easycv'], 'pai-easycv', ['pai_easycv>=0.5 ', 'adaseq'], ['adaseq'], []]
    path.write_text(json.dumps([{**base, 'plugins': plugins} for plugins in written]))
    assert python.result(f"""
        import json, pathlib
        import ms_segformer
        from modelscope.utils.config import Config
        found = []
        for number, content in enumerate(json.loads(pathlib.Path({str(path)!r}).read_text())):
            file = pathlib.Path({str(tmp_path)!r}) / f'{{number}}.json'
            file.write_text(json.dumps(content))
            found.append(Config.from_file(str(file)).safe_get('plugins'))
        print(json.dumps(found))
    """) == [None, None, ['adaseq'], ['adaseq'], []]


def _sections(calls, leave_out):
    text = '\n'.join(calls).split('---')
    return text[:leave_out] + text[leave_out + 1 :]


def _registry_call(calls, section):
    start = [number for number, call in enumerate(calls) if call == '---'][section - 1]
    return calls.index('modelscope.utils.registry.build_from_cfg', start)
