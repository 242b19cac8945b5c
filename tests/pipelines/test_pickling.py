"""The pipeline and its model go through pickle, deep copies and to other processes, and say what they take and give."""

import copy
import importlib
import json
import logging
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from modelscope.models import Model
from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks

ENGINES = {'torch': None, 'openvino': 'openvino', 'onnxruntime': 'onnxruntime'}


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    """One for all tests here, so that each network is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MS_SEGFORMER_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(params=ENGINES)
def segmenter(request, tiny_model_dir):
    if ENGINES[request.param]:
        pytest.importorskip(ENGINES[request.param])
    return pipeline(Tasks.image_segmentation, str(tiny_model_dir), device='cpu', engine=request.param)


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


def through_pickle(thing):
    return pickle.loads(pickle.dumps(thing))


def equal(one, other):
    return (
        one['labels'] == other['labels']
        and one['scores'] == other['scores']
        and np.array_equal(one['seg_map'], other['seg_map'])
        and all(map(np.array_equal, one['masks'], other['masks']))
    )


@pytest.mark.parametrize('copied', [through_pickle, copy.deepcopy])
def test_a_copied_pipeline_gives_the_same(segmenter, image, copied):
    before_the_first_call = copied(segmenter)
    expected = segmenter(image)
    for other in (before_the_first_call, copied(segmenter), copied(copied(segmenter))):
        assert all(equal(result, expected) for result in other([image, image], batch_size=2))
        assert other._engine.name == segmenter._engine.name and other._engine is not segmenter._engine
        assert other.model is not segmenter.model and other.model is other.models[0]
    assert equal(other(image, mode='slide', resize=False), segmenter(image, mode='slide', resize=False))


def test_the_copy_goes_its_own_way(segmenter, image):
    segmenter(image)
    before = segmenter(image)
    other = copy.deepcopy(segmenter)
    with torch.no_grad():
        other.model.decode_head.conv_seg.bias[3] += 100
    assert set(np.unique(other(image)['seg_map'])) == {3}
    assert equal(segmenter(image), before)


def test_a_pipeline_is_copied_while_others_use_it(segmenter, image):
    expected = segmenter(image)
    with ThreadPoolExecutor(3) as pool:
        at_work = [pool.submit(segmenter, image) for _ in range(12)]
        copies = [copied(segmenter) for copied in (copy.deepcopy, through_pickle) for _ in range(2)]
        assert all(equal(work.result(), expected) for work in at_work)
        assert all(equal(result, expected) for result in pool.map(lambda other: other(image), copies))


def answer(segmenters, image, results):
    for segmenter in segmenters:
        results.put(segmenter(image))


def test_a_spawned_process_gives_the_same(tiny_model_dir, image):
    """One process for all engines; it imports everything anew."""
    segmenters = [
        pipeline(Tasks.image_segmentation, str(tiny_model_dir), device='cpu', engine=engine)
        for engine, package in ENGINES.items()
        if package is None or find_spec(package)
    ]
    context = multiprocessing.get_context('spawn')
    results = context.Queue()
    process = context.Process(target=answer, args=(segmenters, image, results))
    process.start()
    for segmenter in segmenters:
        assert equal(results.get(timeout=300), segmenter(image))
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize('copied', [through_pickle, copy.deepcopy])
def test_a_copied_model_has_the_same_weights_and_none_of_the_folded_ones(tiny_model_dir, copied):
    model = Model.from_pretrained(str(tiny_model_dir))
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    plain = len(pickle.dumps(model))
    with torch.inference_mode():
        model.prepare_inference()
        expected = model.logits(image)
    other = copied(model)
    assert other.folding._made is None and model.folding._made is not None
    with torch.inference_mode():
        assert torch.equal(other.prepare_inference().logits(image), expected)
    assert len(pickle.dumps(model)) < plain + 200
    assert other.settings == model.settings and other.model_dir == model.model_dir
    other.train()(image, torch.zeros(1, 64, 96, dtype=torch.long))['loss'].backward()
    assert all(value.grad is None for value in model.parameters())


def test_modelscope_describes_the_pipeline(tiny_model_dir, caplog):
    information = importlib.import_module('modelscope.utils.input_output')  # ModelScope before 1.6 has none
    segmenter = pipeline(Tasks.image_segmentation, str(tiny_model_dir), device='cpu', engine='torch')
    with caplog.at_level(logging.ERROR):
        found = information.get_pipeline_information_by_pipeline(segmenter)
    assert found.task_name == 'image-segmentation'
    schema = json.loads(json.dumps(found.schema))
    assert list(schema['input']['properties']) == ['image']
    assert schema['input']['properties']['image']['type'] == 'string'
    assert set(schema['output']['properties']) == {'masks', 'labels', 'scores'}


def test_modelscopes_service_form_goes_in_and_comes_out(tiny_model_dir):
    """What `modelscope server` does with a request."""
    import base64

    import cv2

    information = importlib.import_module('modelscope.utils.input_output')
    segmenter = pipeline(Tasks.image_segmentation, str(tiny_model_dir), device='cpu', engine='torch')
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    text = base64.b64encode(cv2.imencode('.png', image[..., ::-1])[1].tobytes()).decode()
    result = information.call_pipeline_with_json(
        information.get_pipeline_information_by_pipeline(segmenter), segmenter, {'input': {'image': text}}
    )
    expected = segmenter(image)
    answer = json.loads(json.dumps(information.pipeline_output_to_service_base64_output('image-segmentation', result)))
    assert answer['labels'] == expected['labels'] and np.array_equal(answer['masks'], expected['masks'])
