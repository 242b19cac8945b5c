"""A SegFormer for whose plugin ModelScope would run pip is refused; what is not EasyCV's goes its old way."""

import json

import pytest
from hub.fixtures import published_files

from ms_segformer.config.messages import ConfigurationError
from ms_segformer.config.reader import read_configuration
from ms_segformer.config.recognition import check_pipeline
from ms_segformer.integrations.modelscope.patches import drop_dead_plugin

pytestmark = pytest.mark.forked_python

LOAD = """
import json, sys
import ms_segformer
from modelscope.models import Model
from modelscope.pipelines import pipeline
from modelscope.preprocessors import Preprocessor
from modelscope.trainers import build_trainer

def attempt(load):
    try:
        return type(load()).__module__
    except Exception as error:
        return f'{type(error).__name__}: {error}'

print(json.dumps([[attempt(load) for load in (
    lambda: pipeline('image-segmentation', model), lambda: Model.from_pretrained(model),
    lambda: build_trainer('easycv', dict(model=model)), lambda: Preprocessor.from_pretrained(model))]
    for model in sys.argv[1:]]))
"""


def configured(folder, **sections):
    """A model directory whose configuration has these sections; None takes one away."""
    folder.mkdir()
    for name, content in published_files().items():
        (folder / name).write_bytes(content)
    path = folder / 'configuration.json'
    content = {**json.loads(path.read_text()), **sections}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


DEAD_FORMS = [
    'pai-easycv',
    ['adaseq', 'pai_easycv==0.11.7'],
    ['./external_file/pai_easycv-0.11.7-py3-none-any.whl'],
    {'pai-easycv': '0.11.7'},
    ('PAI.EasyCV >= 0.6',),
    'pai.-_easycv',
    'pai-easycv[extra]~=0.11',
    'pai-easycv;python_version>"3"',
    'pai-easycv @ git+https://github.com/alibaba/EasyCV',
    'pai-easycv@ file:///tmp/x.whl',
    'git+https://github.com/alibaba/EasyCV.git',
    'git+https://github.com/alibaba/EasyCV.git@v0.11.7',
    'git+ssh://git@github.com/alibaba/EasyCV',
    'https://github.com/alibaba/EasyCV.git/',
    'C:\\wheels\\pai_easycv-0.11.whl',
    'git+https://example.org/fork.git#subdirectory=x&egg=pai_easycv',
]
OTHER_PLUGINS = [
    'easycv',
    'pai-easycv-extra',
    'my-plugin @ https://example.org/pai-easycv/mine.whl',
    'adaseq>=0.6',
    '',
    'git+https://github.com/somebody/EasyCVs.git',
    'mine',
    'git+https://git@example.org/mine.git@pai-easycv',
]
OTHERS = {
    'another': {'type': 'image-segmentation-pipeline'},
    'empty': {},
    'missing': None,
    'a name': 'easycv-segmentation',
}


def test_every_way_to_load_is_refused_and_pip_is_not_run(python, hub, tmp_path):
    models = [str(configured(tmp_path / name, pipeline=section)) for name, section in OTHERS.items()]
    hub.stop()
    outcomes = json.loads(python.run('-c', LOAD, *models).stdout.strip().splitlines()[-1])
    for model, section, ways in zip(models, OTHERS.values(), outcomes, strict=True):
        found = repr(section['type']) if section == OTHERS['another'] else 'missing'
        for outcome in ways:
            assert outcome.startswith(
                f'ConfigurationError: {model}/configuration.json: pipeline.type is {found}; '
                f"accepted: 'easycv-segmentation'"
            ), outcome
    assert python.pip() == []


def test_without_a_model_it_is_refused_and_pip_is_not_run(python, hub, tmp_path):
    models = [str(configured(tmp_path / name, model=section)) for name, section in (('none', None), ('empty', {}))]
    hub.stop()
    outcomes = json.loads(python.run('-c', LOAD, *models).stdout.strip().splitlines()[-1])
    for model, ways in zip(models, outcomes, strict=True):
        for outcome in ways:
            assert outcome.startswith(f'ConfigurationError: {model}/configuration.json: model'), outcome
    assert python.pip() == []


@pytest.mark.parametrize('section', OTHERS.values(), ids=OTHERS)
def test_our_reader_refuses_it_too(tmp_path, section):
    folder = configured(tmp_path / 'model', pipeline=section)
    with pytest.raises(ConfigurationError, match='configuration.json: pipeline.type is .*easycv-segmentation'):
        read_configuration(folder)


@pytest.mark.parametrize(
    'sections',
    [
        {'pipeline': {'type': 'my-own'}, 'plugins': None},
        {'pipeline': None, 'plugins': None},
        {'pipeline': {}, 'plugins': []},
        {'pipeline': {'type': 'my-own'}, 'plugins': ['my-plugin']},
        {'pipeline': {'type': 'easycv-segmentation'}, 'plugins': ['pai-easycv']},
    ],
)
def test_without_the_dead_plugin_any_pipeline_is_read(tmp_path, sections):
    folder = configured(tmp_path / 'model', **sections)
    assert len(read_configuration(folder).classes) == 171


@pytest.mark.parametrize(
    'configuration',
    [
        [],
        None,
        'text',
        {},
        {'model': {'type': 'Segformer'}},
        {'model': {'type': 'YOLOX'}, 'pipeline': {'type': 'easycv-detection'}, 'plugins': ['pai-easycv']},
        {'model': {'type': 'UperNet'}, 'pipeline': {}, 'plugins': 'pai-easycv'},
        {'plugins': ['pai-easycv']},
        {'model': {'type': 'Segformer'}, 'plugins': 7},
        {'model': {'type': 'Segformer'}, 'plugins': OTHER_PLUGINS},
    ],
)
def test_what_is_not_easycvs_segformer_is_not_refused(configuration):
    check_pipeline(configuration, 'any.json')


@pytest.mark.parametrize('plugins', DEAD_FORMS, ids=str)
def test_the_plugin_is_known_in_every_form(plugins):
    with pytest.raises(ConfigurationError, match='ModelScope would now run pip'):
        check_pipeline({'model': {'type': 'Segformer'}, 'plugins': plugins}, 'any.json')


@pytest.mark.parametrize('plugins', DEAD_FORMS, ids=str)
def test_no_form_of_it_reaches_modelscope(plugins):
    configuration = {'plugins': plugins}
    drop_dead_plugin(configuration)
    assert configuration in ({}, {'plugins': ['adaseq']})


def test_other_plugins_stay():
    configuration = {'plugins': OTHER_PLUGINS}
    drop_dead_plugin(configuration)
    assert configuration == {'plugins': OTHER_PLUGINS}


def test_a_foreign_model_that_is_called_segformer_goes_its_old_way(python, hub, tmp_path):
    """Another library's model under the same name and without EasyCV's plugin: ModelScope sees what is written."""
    folder = configured(tmp_path / 'model', pipeline={'type': 'another-pipeline'}, plugins=None)
    without, ours = python.result(f"""
        import json
        from modelscope.pipelines import pipeline
        from modelscope.utils.config import Config

        def look():
            configuration = Config.from_file({str(folder / 'configuration.json')!r})
            try:
                pipeline('image-segmentation', {str(folder)!r})
            except KeyError as error:
                return [configuration.to_dict(), str(error)]

        without = look()
        import ms_segformer
        print(json.dumps([without, look()]))
    """)
    assert ours[0] == without[0]
    for _, error in (without, ours):
        assert 'another-pipeline is not in the pipelines registry' in error


def test_a_relative_directory_of_two_names_is_no_question_to_the_hub(python, hub, tmp_path):
    """`run/output` looks like a hub id, and ModelScope asks for its publisher."""
    (tmp_path / 'run').mkdir()
    configured(tmp_path / 'run' / 'output')
    done = python.run(
        cwd=tmp_path,
        code="""
        from modelscope.pipelines import pipeline
        import ms_segformer
        print(type(pipeline('image-segmentation', 'run/output')).__module__)
    """,
    )
    assert done.stdout.split()[-1] == 'ms_segformer.pipelines.image_segmentation'
    assert hub.requests == []
