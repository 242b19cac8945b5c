"""The numbers under `data/` are what EasyCV 0.11.7's evaluator reported on three pairs of maps with 171 classes.

The predictions contain 171 (VOID, no class) and the labels 255; classes that occur nowhere were NaN (left out of the
JSON file).
"""

import json
import math
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from modelscope.metrics.builder import METRICS, build_metric
from modelscope.trainers.utils.inference import merge_metrics

from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.metrics.confusion import ConfusionMatrix, MetricError, _joint_counts, _joint_counts_on_device
from ms_segformer.metrics.segmentation import EasyCVMetric, SegmentationEvaluator

DATA = Path(__file__).parent / 'data'
SECTION = {'type': 'SegmentationEvaluator', 'classes': list(CLASSES), 'metric_names': ['mIoU']}


@pytest.fixture(scope='module')
def maps():
    """Three (prediction, label) pairs of uint8 maps of different sizes."""
    golden = np.load(DATA / 'evaluated_maps.npz')
    return [(golden[f'pred{index}'], golden[f'gt{index}']) for index in range(3)]


@pytest.fixture(scope='module')
def reference():
    return json.loads((DATA / 'evaluated_report.json').read_text())


def _filled(maps, count=171):
    matrix = ConfusionMatrix(count)
    for prediction, label in maps:
        matrix.update(prediction, label)
    return matrix


@pytest.mark.parametrize('metrics', ['mIoU', 'mIoU+mDice+mFscore'])
def test_keys_and_values_equal_the_original_evaluator(maps, reference, metrics):
    report = SegmentationEvaluator(CLASSES, metrics.split('+')).evaluate(_filled(maps))
    assert len(report) == {'mIoU': 346, 'mIoU+mDice+mFscore': 1036}[metrics]
    assert {key: value for key, value in report.items() if not math.isnan(value)} == reference[metrics]
    assert list(report)[:4] == (
        ['SegmentationEvaluator_mIoU', 'aAcc', 'mIoU', 'mAcc']
        if metrics == 'mIoU'
        else ['SegmentationEvaluator_mIoU', 'SegmentationEvaluator_mDice', 'SegmentationEvaluator_mFscore', 'aAcc']
    )


def test_the_whole_reference_file_agrees_with_its_order(maps, oracle):
    golden = json.loads((oracle / 'golden/eval_metrics.json').read_text())
    for metrics in ('mIoU', 'mIoU+mDice+mFscore'):
        report = SegmentationEvaluator(CLASSES, metrics.split('+')).evaluate(_filled(maps))
        assert [(key, None if math.isnan(value) else value) for key, value in report.items()] == list(
            golden[metrics].items()
        )


def test_unrounded_values_equal_the_original(maps, reference):
    computed = _filled(maps).compute()
    assert {key: computed[key] for key in reference['unrounded']} == reference['unrounded']


def test_two_classes_by_hand():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 0, 1, 2]]), np.array([[0, 1, 1, 255]]))
    np.testing.assert_array_equal(matrix.matrix, [[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    computed = matrix.compute()
    np.testing.assert_allclose(computed['IoU'], [1 / 2, 1 / 2, np.nan])
    np.testing.assert_allclose(computed['Acc'], [1, 1 / 2, np.nan])
    assert computed['aAcc'] == pytest.approx(2 / 3) and computed['mIoU'] == 0.5 and computed['mAcc'] == 0.75
    filled = SegmentationEvaluator(['a', 'b', 'c'], nan_to_num=0).evaluate(matrix)
    assert filled['IoU.c'] == 0 and filled['mIoU'] == 0.3333


@pytest.mark.parametrize(
    'convert',
    [
        lambda array: array,
        lambda array: array.astype(np.int64),
        torch.from_numpy,
        lambda array: torch.from_numpy(array.astype(np.int32)),
        lambda array: array[None],
    ],
    ids=['uint8', 'int64', 'tensor', 'int32 tensor', 'batch'],
)
def test_any_integer_type_counts_the_same(maps, convert):
    matrix = ConfusionMatrix(171)
    for prediction, label in maps:
        matrix.update(convert(prediction), convert(label))
    np.testing.assert_array_equal(matrix.counts, _filled(maps).counts)


def test_counting_on_an_accelerator_agrees(maps):
    for prediction, label in maps:
        expected = _joint_counts(prediction, label)
        got = np.zeros((257, 257), np.int64)
        _joint_counts_on_device(torch.from_numpy(prediction), torch.from_numpy(label), got)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_tensors_on_a_cuda_device_count_the_same(maps):
    matrix = ConfusionMatrix(171)
    for prediction, label in maps:
        matrix.update(torch.from_numpy(prediction).cuda(), torch.from_numpy(label).cuda())
    np.testing.assert_array_equal(matrix.counts, _filled(maps).counts)


def test_a_prediction_outside_the_classes_is_wrong_but_no_class_s_false_positive():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([171, 1, 300, -1]), np.array([0, 1, 1, 1]))
    np.testing.assert_array_equal(matrix.counts, [[0, 0, 1], [0, 1, 2]])
    np.testing.assert_allclose(matrix.compute()['IoU'], [0, 1 / 3])


def test_several_values_can_be_ignored():
    metric = EasyCVMetric(evaluators=[{'classes': ['a', 'b'], 'ignore_index': 0}])
    metric.update(np.array([0, 1, 1, 0]), np.array([0, 1, 255, 1]))
    np.testing.assert_array_equal(metric.confusion.counts, [[0, 0, 0], [1, 1, 0]])


def test_merging_parts_equals_counting_all(maps):
    parts = [_filled([pair]) for pair in maps]
    for part in parts[1:]:
        parts[0].merge(part)
    np.testing.assert_array_equal(parts[0].counts, _filled(maps).counts)
    parts[0].reset()
    assert not parts[0].counts.any()
    with pytest.raises(MetricError, match='171 classes into one of 3'):
        ConfusionMatrix(3).merge(parts[1])


def test_a_matrix_continues_from_its_state(maps):
    matrix = ConfusionMatrix(171)
    matrix.load_state_dict(_filled(maps[:2]).state_dict())
    matrix.update(*maps[2])
    np.testing.assert_array_equal(matrix.counts, _filled(maps).counts)


def test_memory_does_not_grow_with_images():
    matrix = ConfusionMatrix(171)
    size = len(pickle.dumps(matrix))
    ids = np.random.RandomState(0).randint(0, 171, (100, 100)).astype(np.uint8)
    for _ in range(20):
        matrix.update(ids, ids)
    assert len(pickle.dumps(matrix)) == size < 300_000
    assert matrix.compute()['aAcc'] == 1


@pytest.mark.parametrize(
    ('prediction', 'label', 'message'),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r'shape \(2, 3\) and label \(3, 2\)'),
        (np.zeros(2), np.zeros(2, int), 'float64: pass class ids'),
        (torch.zeros(2), torch.zeros(2, dtype=torch.long), 'argmax'),
        (np.zeros(2, int), np.array([0, 9]), r'the values 9 \(1 pixels\), the 3 classes are 0-2'),
    ],
)
def test_what_cannot_be_counted_is_refused(prediction, label, message):
    matrix = ConfusionMatrix(3)
    with pytest.raises(MetricError, match=message):
        matrix.update(prediction, label)
    assert not matrix.counts.any()


def test_the_metric_is_modelscope_s_easycv_metric(maps, reference):
    assert METRICS.get('EasyCVMetric') is EasyCVMetric
    metric = build_metric({'type': 'EasyCVMetric', 'evaluators': [SECTION]})
    metric.add({'seg_pred': [maps[0][0], maps[1][0]]}, {'label': [torch.from_numpy(label) for _, label in maps[:2]]})
    metric.add({'seg_map': maps[2][0]}, {'label': maps[2][1]})
    report = metric.evaluate()
    assert {key: value for key, value in report.items() if not math.isnan(value)} == reference['mIoU']


def test_modelscope_merges_the_metrics_of_all_processes(maps, reference):
    metrics = [EasyCVMetric(evaluators=SECTION) for _ in range(2)]
    metrics[0].add({'seg_pred': [maps[0][0]]}, {'label': [maps[0][1]]})
    for prediction, label in maps[1:]:
        metrics[1].update(prediction, label)
    (merged,) = merge_metrics([[pickle.loads(pickle.dumps(metric))] for metric in metrics])
    assert merged.evaluate()['mIoU'] == reference['mIoU']['mIoU']


@pytest.mark.parametrize(
    ('evaluators', 'message'),
    [
        (None, 'needs one or more evaluators'),
        ([{'type': 'SegmentationEvaluator'}], 'names no classes'),
        ([{'type': 'CocoEvaluator', 'classes': ['a']}], 'CocoEvaluator'),
        ([{'classes': ['a'], 'metric_names': ['AP']}], 'mIoU, mDice, mFscore'),
        ([{'classes': ['a']}, {'classes': ['a', 'b']}], 'same classes'),
        ([{'classes': ['a'], 'color': 'red'}], 'color'),
    ],
)
def test_a_wrong_metric_section_is_refused(evaluators, message):
    with pytest.raises(MetricError, match=message):
        EasyCVMetric(evaluators=evaluators)


def test_a_batch_without_predictions_or_labels_is_refused(maps):
    metric = EasyCVMetric(evaluators=[SECTION])
    with pytest.raises(MetricError, match='outputs have none of the keys'):
        metric.add({'logits': 1}, {'label': maps[0][1]})
    with pytest.raises(MetricError, match='1 predictions and 2 labels'):
        metric.add({'seg_pred': maps[0][0]}, {'label': [maps[0][1]] * 2})


def _count_share(rank, folder, results):
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    golden = np.load(DATA / 'evaluated_maps.npz')
    metric = EasyCVMetric(evaluators=[SECTION])
    for index in range(rank, 3, 2):
        metric.update(golden[f'pred{index}'], golden[f'gt{index}'])
    metric.all_reduce()
    results.put((rank, metric.confusion.counts))
    torch.distributed.barrier()  # destroy_process_group of torch 2.0 hangs now and then, before the queue is flushed


def test_two_processes_reduce_to_the_whole(maps, tmp_path):
    context = multiprocessing.get_context('spawn')
    results = context.Queue()
    processes = [context.Process(target=_count_share, args=(rank, tmp_path, results)) for rank in range(2)]
    for process in processes:
        process.start()
    counts = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(30)
    expected = _filled(maps).counts
    np.testing.assert_array_equal(counts[0], expected)
    np.testing.assert_array_equal(counts[1], expected)


def test_reducing_without_a_process_group_changes_nothing(maps):
    matrix = _filled(maps)
    before = matrix.counts.copy()
    matrix.all_reduce()
    np.testing.assert_array_equal(matrix.counts, before)
