"""Both packages in one process, in either order; each test is a process of its own."""

import json
import os
import subprocess
import sys

import pytest

# What EasyCV registers in ModelScope under names that are SegFormer's.
SHARED = {
    ('pipelines', 'image-segmentation', 'easycv-segmentation'),
    ('models', 'image-segmentation', 'Segformer'),
    ('trainers', 'default', 'easycv'),
    ('custom_datasets', 'image-segmentation', 'SegDataset'),
    ('metrics', 'default', 'EasyCVMetric'),
    ('hooks', 'default', 'AddLrLogHook'),
}

PRELUDE = """
import json, sys, warnings
warnings.simplefilter('ignore')
processes = []
STARTS = ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn')
sys.addaudithook(lambda event, args: processes.append(str(args[:2])) if event in STARTS else None)

def show(result):
    print('RESULT' + json.dumps(result))  # after whatever the packages print, progress bars among it

def imported(*packages):
    return [name for name in packages if name in sys.modules]

def registered():
    from modelscope.metrics.builder import METRICS
    from modelscope.models.builder import MODELS
    from modelscope.msdatasets.dataset_cls.custom_datasets.builder import CUSTOM_DATASETS
    from modelscope.pipelines.builder import PIPELINES
    from modelscope.trainers.builder import TRAINERS
    from modelscope.trainers.hooks.builder import HOOKS
    found = {}
    for registry in (METRICS, MODELS, CUSTOM_DATASETS, PIPELINES, TRAINERS, HOOKS):
        for group, names in registry.modules.items():
            for name in names:
                found['/'.join((registry.name, group, name))] = registry.get(name, group).__module__.split('.')[0]
    return found

def segment(model, image):
    from modelscope.pipelines import pipeline
    segmenter = pipeline('image-segmentation', model)
    return {'served by': type(segmenter).__module__.split('.')[0], 'labels': segmenter(image)['labels']}

def detect(model, image):
    from modelscope.pipelines import pipeline
    detector = pipeline('image-object-detection', model)
    result = detector(image)
    return {'served by': type(detector).__module__.split('.')[0], 'scores': [float(s) for s in result['scores']],
            'labels': result['labels'], 'boxes': [[float(x) for x in box] for box in result['boxes']]}
"""
OURS_FIRST = 'import ms_segformer, easycv.toolkit.modelscope'
THEIRS_FIRST = 'import easycv.toolkit.modelscope, ms_segformer'


def run(script, **environment):
    """Run a script in a process of its own; return what it shows."""
    result = subprocess.run(
        [sys.executable, '-c', f'{PRELUDE}\n{script}'],
        capture_output=True,
        text=True,
        env={**os.environ, 'MS_SEGFORMER_DISABLE': '', **environment},
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.rsplit('RESULT', 1)[1])


@pytest.fixture(scope='module')
def segformer(tiny_model_dir):
    plugins = json.loads((tiny_model_dir / 'configuration.json').read_text())['plugins']
    assert plugins == ['pai-easycv']  # what sends ModelScope to pip
    return str(tiny_model_dir)


@pytest.fixture(scope='module')
def image(photographs):
    return str(photographs[0])


@pytest.fixture(scope='module')
def yolox(easycv, tmp_path_factory):
    """A model directory of EasyCV's smallest detector, random weights, in EasyCV's ModelScope schema."""
    import torch
    from easycv.models import build_model

    folder = tmp_path_factory.mktemp('yolox')
    model = {
        'type': 'YOLOX',
        'model_type': 'nano',
        'test_conf': 0.01,
        'nms_thre': 0.65,
        'pretrained': False,
        'head': {'type': 'YOLOXHead', 'model_type': 'nano', 'num_classes': 3},
    }
    (folder / 'configuration.json').write_text(
        json.dumps(
            {
                'task': 'image-object-detection',
                'framework': 'pytorch',
                'preprocessor': {},
                'model': {**model, '__easycv_arch__': {'type': 'YOLOX'}},
                'dataset': {'val': {'pipeline': []}},
                'CLASSES': ['a', 'b', 'c'],
                'img_scale': [64, 64],
                'test_pipeline': [
                    {'type': 'MMResize', 'img_scale': [64, 64], 'keep_ratio': True},
                    {'type': 'MMPad', 'pad_to_square': True, 'pad_val': {'img': 114}},
                    {'type': 'MMNormalize', 'mean': [0, 0, 0], 'std': [255, 255, 255], 'to_rgb': False},
                    {'type': 'DefaultFormatBundle'},
                    {'type': 'Collect', 'keys': ['img']},
                ],
                'pipeline': {
                    'type': 'easycv-detection',
                    'predictor_config': {'type': 'DetectionPredictor', 'score_threshold': 0.0},
                },
                '__easycv_meta__': {'reserved_keys': ['CLASSES', 'img_scale', 'test_pipeline']},
            }
        )
    )
    torch.manual_seed(0)
    torch.save({'state_dict': build_model(model).state_dict(), 'meta': {}}, folder / 'pytorch_model.pt')
    return str(folder)


@pytest.fixture(scope='module')
def alone(yolox, image):
    """What EasyCV does and registers in a process that this package is switched off in."""
    return run(
        f"""
import ms_segformer, easycv.toolkit.modelscope
show({{'detection': detect({yolox!r}, {image!r}), 'registered': registered()}})""",
        MS_SEGFORMER_DISABLE='1',
    )


@pytest.mark.parametrize('imports', [OURS_FIRST, THEIRS_FIRST], ids=['ours first', 'theirs first'])
def test_segformer_is_ours_and_the_rest_is_easycvs_in_either_order(imports, alone, segformer, yolox, image):
    both = run(f"""
{imports}
show({{'segmentation': segment({segformer!r}, {image!r}), 'detection': detect({yolox!r}, {image!r}),
                  'registered': registered(), 'processes': processes}})""")
    assert both['segmentation']['served by'] == 'ms_segformer'
    assert both['detection'] == alone['detection'] and both['detection']['served by'] == 'easycv'
    assert both['detection']['boxes']
    theirs = {name for name, package in alone['registered'].items() if package == 'easycv'}
    assert {'/'.join(names) for names in SHARED} <= theirs and len(theirs) == 29
    for name in theirs - {'/'.join(names) for names in SHARED}:
        assert both['registered'][name] == 'easycv', name
    assert not [process for process in both['processes'] if 'pip' in process]


def test_segmenting_imports_nothing_of_easycv(segformer, image):
    result = run(f"""
import ms_segformer
found = segment({segformer!r}, {image!r})
show({{**found, 'imported': imported('easycv', 'mmcv'), 'processes': processes}})""")
    assert result['served by'] == 'ms_segformer'
    assert result['imported'] == []
    assert not [process for process in result['processes'] if 'pip' in process]


def test_the_switch_hands_segformer_back_to_easycv(alone):
    assert {alone['registered']['/'.join(names)] for names in SHARED} == {'easycv'}
    assert 'ms_segformer' not in alone['registered'].values()


@pytest.mark.parametrize('imports', [OURS_FIRST, THEIRS_FIRST], ids=['ours first', 'theirs first'])
def test_deactivating_hands_segformer_back_to_easycv(imports, segformer, image):
    result = run(f"""
{imports}
found = segment({segformer!r}, {image!r})['served by']
ms_segformer.deactivate()
show({{'before': found, 'after': registered()}})""")
    assert result['before'] == 'ms_segformer'
    assert {result['after']['/'.join(names)] for names in SHARED} == {'easycv'}


@pytest.mark.parametrize('imports', [OURS_FIRST, THEIRS_FIRST], ids=['ours first', 'theirs first'])
def test_a_shared_name_means_ours_inside_our_trainer_and_theirs_outside(imports):
    result = run(f"""
{imports}
import ms_segformer.metrics.segmentation, ms_segformer.datasets.seg_dataset
from modelscope.metrics.builder import METRICS
from modelscope.msdatasets.dataset_cls.custom_datasets.builder import CUSTOM_DATASETS
def packages():
    return [METRICS.get('EasyCVMetric').__module__.split('.')[0],
            CUSTOM_DATASETS.get('SegDataset', 'image-segmentation').__module__.split('.')[0]]
outside = packages()
with ms_segformer.integrations.modelscope.shared_names.own_names():
    inside = packages()
show([outside, inside, packages()])""")
    assert result == [['easycv'] * 2, ['ms_segformer'] * 2, ['easycv'] * 2]
