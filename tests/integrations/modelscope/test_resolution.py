"""Every way to load a model by id, by revision and from a local copy ends in this package, and pip is never run."""

import json

import pytest
from hub.coco_stuff import make_pairs
from hub.fixtures import MODEL_ID
from hub.server import BY_PROXY

pytestmark = pytest.mark.forked_python

LOAD = """
import json, sys
import ms_segformer
from modelscope.models import Model
from modelscope.pipelines import pipeline
from modelscope.preprocessors import Preprocessor
from modelscope.utils.constant import Tasks

def kind(thing):
    return f'{type(thing).__module__}.{type(thing).__name__}'

found = {}
for model, revision in json.loads(sys.argv[1]):
    options = {'revision': revision} if revision else {}
    segmenter = pipeline(Tasks.image_segmentation, model, **({'model_revision': revision} if revision else {}))
    loaded = Model.from_pretrained(model, **options)
    found[f'{model}@{revision}'] = [
        kind(segmenter), kind(segmenter.model), kind(loaded), kind(Preprocessor.from_pretrained(model, **options)),
        kind(pipeline(Tasks.image_segmentation, loaded)), segmenter.model.model_dir]
print(json.dumps(found))
"""
OURS = [
    'ms_segformer.pipelines.image_segmentation.SegformerPipeline',
    'ms_segformer.models.segformer.Segformer',
    'ms_segformer.models.segformer.Segformer',
    'ms_segformer.preprocessors.segformer.SegformerPreprocessor',
    'ms_segformer.pipelines.image_segmentation.SegformerPipeline',
]


def load(python, models):
    return json.loads(python.run('-c', LOAD, json.dumps(models)).stdout.strip().splitlines()[-1])


def test_the_twelve_ids_and_any_revision_resolve_here(python, hub):
    models = [(model_id, None) for model_id in hub.models if 'segformer' in model_id]
    assert len(models) == 12
    models += [(MODEL_ID, 'v1.0.0'), (MODEL_ID, 'master')]
    found = load(python, models)
    for name, (*kinds, folder) in found.items():
        assert kinds == OURS, name
        assert str(python.cache) in folder
    if not BY_PROXY:  # those releases keep one folder for all revisions
        assert found[f'{MODEL_ID}@v1.0.0'][-1] != found[f'{MODEL_ID}@None'][-1]
    assert python.pip() == []
    assert not hub.asked('openmmlab|pypi|easycv'), 'nothing is fetched but the model'
    assert {request.split('FilePath=')[1] for request in hub.asked('FilePath=')} == {
        'configuration.json',
        'pytorch_model.pt',
    }


def test_a_local_copy_under_any_name_resolves_here(python, hub, tmp_path):
    folder = tmp_path / 'my-model.v2'
    folder.mkdir()
    for name, content in hub.models[MODEL_ID].items():
        (folder / name).write_bytes(content)
    hub.stop()
    ((*kinds, where),) = load(python, [(str(folder), None)]).values()
    assert kinds == OURS and where == str(folder)
    assert python.pip() == [] and hub.requests == []


def test_the_trainer_is_ours_for_an_id_and_for_a_copy(python, hub, tmp_path):
    folder = tmp_path / 'copy'
    folder.mkdir()
    for name, content in hub.models[MODEL_ID].items():
        (folder / name).write_bytes(content)
    assert (
        python.result(f"""
        import json
        import ms_segformer
        from modelscope.metainfo import Trainers
        from modelscope.trainers import build_trainer
        trainers = [build_trainer(Trainers.easycv, dict(model=model, data_root={str(make_pairs(tmp_path / 'pairs'))!r},
                                                        work_dir={str(tmp_path / 'work')!r}))
                    for model in ({MODEL_ID!r}, {str(folder)!r})]
        print(json.dumps([[type(trainer).__module__, type(trainer.model).__module__] for trainer in trainers]))
    """)
        == [['ms_segformer.trainers.easycv_trainer', 'ms_segformer.models.segformer']] * 2
    )
    assert python.pip() == []


@pytest.mark.parametrize(
    'damage, message',
    [
        (
            {
                'configuration.json': b'{"task": "image-segmentation", "model": {"type": "Segformer"}, '
                b'"plugins": ["pai-easycv"], "pipeline": {"type": "easycv-segmentation"}}'
            },
            'backbone',
        ),
        ({'pytorch_model.pt': b''}, 'empty'),
        ({'pytorch_model.pt': None}, 'no checkpoint'),
    ],
)
def test_a_damaged_repository_says_what_is_wrong(python, hub, damage, message):
    files = {**hub.models[MODEL_ID], **damage}
    hub.add_model(MODEL_ID, {name: content for name, content in files.items() if content is not None})
    done = python.run('-c', LOAD, json.dumps([(MODEL_ID, None)]), check=False)
    assert done.returncode and message in done.stderr.splitlines()[-1]
    assert python.pip() == []


@pytest.mark.parametrize(
    'plugin_name, dead',
    [
        ('pai-easycv', True),
        ('pai_easycv', True),
        ('PAI-EasyCV==0.11.7', True),
        ('pai-easycv>=0.3', True),
        ('./external_file/pai_easycv-0.11.7-py3-none-any.whl', True),
        ('easycv', False),
        ('pai-easycv-extra', False),
        ('pai-easynlp', False),
    ],
)
def test_the_dead_plugin_is_known_in_every_spelling(plugin_name, dead):
    from ms_segformer.config.recognition import is_dead_plugin

    assert is_dead_plugin(plugin_name) is dead
