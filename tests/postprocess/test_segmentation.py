"""Label maps and scores equal those of the plain two-step form and of the original."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kernel_cases import KINDS, judge, make_case, plain
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ms_segformer.postprocess import kernel as kernels
from ms_segformer.postprocess import segmentation
from ms_segformer.postprocess.resampling import Taps, two_step_taps
from ms_segformer.postprocess.segmentation import LogitsError, label_pixels, masks, segment
from ms_segformer.preprocessors.shapes import ImageShapes

TIE = 1e-3  # logits closer than this may fall either way
COMPILED = kernels._segment


@pytest.fixture
def use():
    """Switches to an implementation of `segment`."""
    yield kernels.use
    kernels.use(kernels.KERNELS[0])


@pytest.fixture(params=['avx512', 'avx2', 'plain', 'torch'])
def kernel(request, use):
    """Each implementation of `segment` in turn."""
    if request.param != 'torch' and COMPILED is None:
        pytest.skip('the C kernel is not built; pip install -e . with a C compiler builds it')
    if request.param not in kernels.KERNELS:
        pytest.skip(f'this processor has no {request.param}')
    use(request.param)


def smooth_logits(classes, height, width, seed=0):
    """Logits with regions, as a trained model gives, and a few classes that never win."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, max(2, height // 6), max(2, width // 6), generator=generator) * 4
    fine = torch.randn(1, classes, height, width, generator=generator) * 0.3
    logits = F.interpolate(coarse, (height, width), mode='bicubic') + fine
    logits[:, 1::3] -= 20
    return logits[0]


SHAPES = [  # classes, logits, network input, valid part, photograph
    (172, (32, 43), (128, 172), (128, 171), (107, 143)),
    (172, (32, 44), (128, 176), (128, 171), (300, 401)),
    (19, (24, 32), (96, 128), (96, 101), (33, 35)),
    (5, (16, 16), (64, 64), (61, 64), (640, 7)),
    (4, (1, 1), (4, 4), (1, 3), (9, 2)),
    (3, (2, 40), (5, 157), (5, 157), (1, 1)),
    (1, (8, 8), (32, 32), (32, 32), (20, 20)),
    (255, (9, 70), (36, 280), (33, 277), (65, 500)),
]


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('classes,size,pad,valid,final', SHAPES)
@pytest.mark.usefixtures('kernel')
def test_equals_two_interpolations_softmax_and_argmax(classes, size, pad, valid, final, align_corners):
    logits = smooth_logits(classes, *size)
    reference = plain(logits, pad, valid, final, align_corners)
    probability, expected = reference.softmax(0).max(0)
    probability = probability.numpy()
    result = segment(logits, ImageShapes(pad, valid, final), classes, align_corners)
    assert result.seg_map.dtype == np.uint8 and result.seg_map.shape == final
    if classes > 1:
        two = reference.topk(2, 0).values
        clear = (two[0] - two[1] > TIE).numpy()
        assert clear.mean() > 0.9
        assert (result.seg_map == expected.numpy())[clear].all()
    for class_id, score, count in zip(result.class_ids, result.scores, result.counts, strict=True):
        chosen = result.seg_map == class_id
        assert count == chosen.sum()
        assert score == pytest.approx(probability[chosen].mean(), abs=2e-5)


HALF = 2.5e-4 + 1e-5  # of rounding to float16, and of float32


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('classes,size,pad,valid,final', SHAPES)
def test_confidence_is_the_probability_of_the_best_class_and_its_lead(classes, size, pad, valid, final, align_corners):
    logits = smooth_logits(classes, *size)
    shapes = ImageShapes(pad, valid, final)
    result = segment(logits, shapes, classes, align_corners, confidence=True)
    probabilities = plain(logits, pad, valid, final, align_corners).softmax(0)
    probabilities = torch.cat([probabilities, torch.zeros(1, *final)])  # a second one for the model of a single class
    best, second = probabilities.topk(2, 0).values.numpy()
    sure = result.confidence
    assert sure.probability.dtype == sure.margin.dtype == np.float16
    assert abs(sure.probability - best).max() <= HALF and abs(sure.margin - (best - second)).max() <= HALF
    assert 0 <= sure.margin.min() and sure.probability.max() <= 1


@pytest.mark.usefixtures('kernel')
def test_confidence_changes_nothing_else():
    logits, shapes = smooth_logits(172, 32, 44), ImageShapes((128, 176), (128, 171), (300, 401))
    without, with_maps = segment(logits, shapes, 171), segment(logits, shapes, 171, confidence=True)
    assert without.confidence is None
    assert np.array_equal(without.seg_map, with_maps.seg_map)
    assert (without.class_ids, without.scores, without.counts) == (
        with_maps.class_ids,
        with_maps.scores,
        with_maps.counts,
    )
    for i, score in zip(with_maps.class_ids, with_maps.scores, strict=True):
        chosen = with_maps.confidence.probability[with_maps.seg_map == i]
        assert chosen.mean(dtype=np.float64) == pytest.approx(score, abs=HALF)


@pytest.mark.parametrize('band', [1, 1 << 12])
def test_confidence_does_not_depend_on_the_bands(monkeypatch, band):
    logits, shapes = smooth_logits(19, 24, 32), ImageShapes((96, 128), (96, 128), (90, 111))
    whole = segment(logits, shapes, 19, confidence=True).confidence
    monkeypatch.setattr(segmentation, 'BAND_VALUES', band)
    parts = segment(logits, shapes, 19, confidence=True).confidence
    assert abs(whole.probability - parts.probability).max() <= HALF and abs(whole.margin - parts.margin).max() <= HALF


def test_confidence_of_huge_logits_and_of_ties():
    huge = torch.full((3, 4, 4), -3e38)
    huge[1] = 3e38
    shapes = ImageShapes((16, 16), (16, 16), (9, 9))
    sure = segment(huge, shapes, 3, confidence=True).confidence
    assert (sure.probability == 1).all() and (sure.margin == 1).all()
    tied = segment(torch.zeros(4, 4, 4), shapes, 4, confidence=True).confidence
    assert (tied.probability == 0.25).all() and (tied.margin == 0).all()
    with pytest.raises(LogitsError):
        segment(torch.full((3, 4, 4), torch.nan), shapes, 3, confidence=True)


@pytest.mark.usefixtures('kernel')
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'padded', 'sliced', 'numpy', 'bfloat16'])
def test_memory_layout_and_type_do_not_matter(layout):
    logits = smooth_logits(20, 24, 30)
    expected = segment(logits, ImageShapes((96, 120), (96, 120), (80, 100)), 20)
    given = {
        'contiguous': lambda x: x.contiguous(),
        'channels_last': lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        'padded': lambda x: F.pad(x.permute(1, 2, 0), (0, 12), value=1e9)[..., :20].permute(2, 0, 1),
        'sliced': lambda x: torch.cat([x, x], 2)[:, :, :30],
        'numpy': lambda x: x.numpy(),
        'bfloat16': lambda x: x.bfloat16(),
    }[layout](logits)
    result = segment(given, ImageShapes((96, 120), (96, 120), (80, 100)), 20)
    if layout == 'bfloat16':
        assert (result.seg_map == expected.seg_map).mean() > 0.98
    else:
        assert (result.seg_map == expected.seg_map).all()
        assert result.scores == pytest.approx(expected.scores, abs=1e-6)


class Held(TorchDispatchMode):
    """Most bytes that tensors made inside it have at a time."""

    def __init__(self):
        super().__init__()
        self.most, self._storages = 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._storages = {key: each for key, each in self._storages.items() if not each[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._storages.values()))
        return made


@pytest.mark.parametrize('final', [(480, 640), (1600, 1200), (7, 3000)])
@pytest.mark.parametrize('classes', [172, 32, 2, 1])
@pytest.mark.parametrize('confidence', [False, True])
def test_torch_holds_three_bands_at_most(use, monkeypatch, final, classes, confidence):
    use('torch')
    monkeypatch.setattr(segmentation, 'BAND_VALUES', 1 << 20)
    logits = smooth_logits(classes, 128, 160)
    shapes = ImageShapes((512, 640), (512, 640), final)
    segment(logits, shapes, classes, confidence=confidence)  # what is made once
    before = logits.numel() * 4 * 2  # theirs, and with the classes side by side
    with Held() as held:
        segment(logits, shapes, classes, confidence=confidence)
    band = 4 * max(1 << 20, final[1] * classes)
    maps = final[0] * final[1] * (1 + 4 * confidence) * 2  # and their copies for the host
    assert held.most > (band if classes > 100 else 0)
    assert held.most < before + 3 * band + maps


@pytest.mark.usefixtures('kernel')
def test_void_keeps_its_pixels_but_is_no_segment():
    logits = torch.full((4, 8, 8), -5.0)
    logits[3, :, 4:] = 9
    logits[1, :, :4] = 9
    result = segment(logits, ImageShapes((32, 32), (32, 32), (32, 32)), num_names=3)
    assert set(np.unique(result.seg_map)) == {1, 3}
    assert result.class_ids == [1]
    assert len(masks(result)) == 1


@pytest.mark.usefixtures('kernel')
def test_class_ids_descend_and_masks_are_zero_one_maps_of_them():
    result = segment(smooth_logits(30, 24, 30), ImageShapes((96, 120), (90, 113), (77, 101)), 30)
    assert len(result.class_ids) > 3
    assert result.class_ids == sorted(np.unique(result.seg_map).tolist(), reverse=True)
    for class_id, mask in zip(result.class_ids, masks(result), strict=True):
        assert mask.dtype == np.uint8
        assert (mask == (result.seg_map == class_id)).all()
    assert sum(result.counts) == 77 * 101


@pytest.mark.usefixtures('kernel')
def test_scores_are_bounded_by_even_huge_logits():
    logits = smooth_logits(10, 16, 16) * 1000
    result = segment(logits, ImageShapes((64, 64), (64, 64), (50, 50)), 10)
    assert all(0.3 < score <= 1 for score in result.scores)


@pytest.mark.usefixtures('kernel')
@pytest.mark.parametrize('classes', [1, 16, 17, 172, 256])
def test_no_score_exceeds_one(classes):
    logits = torch.full((classes, 9, 13), -200.0)
    logits[classes // 2] = 200
    result = segment(logits, ImageShapes((36, 52), (36, 52), (71, 103)), classes)
    assert (result.class_ids, result.scores) == ([classes // 2], [1.0])
    result = segment(smooth_logits(classes, 12, 12) * 9, ImageShapes((48, 48), (48, 48), (60, 60)), classes)
    assert all(0 < score <= 1 for score in result.scores)


@pytest.mark.usefixtures('kernel')
@pytest.mark.parametrize('value', [-1e30, -6.9e29, -1e31, -3.4e38, 1e31, torch.finfo().max])
@pytest.mark.parametrize('classes', [1, 5, 19, 40, 172, 256])
def test_huge_finite_logits_give_the_best_class(classes, value):
    size = ImageShapes((32, 32), (32, 32), (40, 41))
    same = segment(torch.full((classes, 8, 8), value), size, classes)
    assert same.class_ids == [0]
    assert same.scores == pytest.approx([1 / classes], rel=1e-5)
    logits = torch.full((classes, 8, 8), value)
    logits[-1, :, 4:] = value * 0.9 if value < 0 else value
    logits[:-1, :, 4:] *= 0.5 if value > 0 else 1
    found = segment(logits, size, classes)
    assert (found.seg_map[:, 24:] == classes - 1).all()
    assert found.scores[0] == pytest.approx(1, abs=1e-6) or classes == 1


@pytest.mark.usefixtures('kernel')
@pytest.mark.parametrize('threads', [1, 3])
@pytest.mark.parametrize('where', ['all', 'a class', 'a sample', 'the last sample', 'the padding'])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_nan_and_infinity_are_an_error_that_names_the_model(value, where, threads):
    logits = smooth_logits(40, 24, 30)
    logits[
        {'all': ..., 'a class': 7, 'a sample': (7, 11, 13), 'the last sample': (-1, -1, -1), 'the padding': (0, 0, -1)}[
            where
        ]
    ] = value
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(LogitsError, match='NaN' if value != value else 'infinite') as error:
            segment(logits, ImageShapes((96, 120), (96, 101), (300, 200)), 40, model='models/seven')
    finally:
        torch.set_num_threads(before)
    assert 'models/seven' in str(error.value) and 'use an earlier checkpoint' in str(error.value)


@pytest.mark.usefixtures('kernel')
def test_what_lies_between_the_logits_is_not_looked_at():
    logits = smooth_logits(20, 24, 30)
    buffer = torch.full((24, 30, 33), float('nan'))
    buffer[..., :20] = logits.permute(1, 2, 0)
    result = segment(buffer[..., :20].permute(2, 0, 1), ImageShapes((96, 120), (96, 120), (80, 100)), 20)
    assert (result.seg_map == segment(logits, ImageShapes((96, 120), (96, 120), (80, 100)), 20).seg_map).all()


@pytest.mark.parametrize('kind', KINDS)
def test_random_logits_and_maps_equal_the_plain_form_or_are_a_clear_error(kind, use):
    outcomes = {
        str(case): judge(case, use, kernels.KERNELS)
        for case in (make_case(12, number, kind, 200_000) for number in range(40))
    }
    assert set(outcomes.values()) == {'clear error' if kind in ('not finite', 'wrong maps') else 'equal'}, outcomes


def maps():
    """Maps from 8×9 samples to 30×40 pixels."""
    return two_step_taps(8, 32, 32, 30), two_step_taps(9, 36, 36, 40)


@pytest.mark.usefixtures('kernel')
@pytest.mark.parametrize(
    'spoil, said',
    [
        (lambda first, weights: (first + 5, weights), 'do not lie in ascending order within 9 samples'),
        (lambda first, weights: (first - 1, weights), 'do not lie in ascending order'),
        (lambda first, weights: (first[::-1], weights), 'do not lie in ascending order'),
        (lambda first, weights: (first[:0], weights[:0]), 'int32 array of n first samples'),
        (lambda first, weights: (first[1:], weights), 'int32 array of n first samples'),
        (lambda first, weights: (first.astype(np.int64), weights), 'got int64 of'),
        (lambda first, weights: (first, weights.tolist()), 'and list'),
        (lambda first, weights: (first, weights * 2), 'do not add up to 1'),
        (lambda first, weights: (first, weights * np.float32('nan')), 'NaN'),
        (lambda first, weights: (first, np.pad(weights, ((0, 0), (0, 9)))), 'do not lie in ascending order'),
    ],
)
def test_maps_that_read_outside_or_are_no_means_are_refused(spoil, said):
    rows, cols = maps()
    with pytest.raises(ValueError, match=said):
        label_pixels(torch.zeros(8, 9, 5), rows, Taps(*spoil(*cols)))
    label_pixels(torch.zeros(8, 9, 5), rows, cols)


ARGUMENTS = (
    'pixels',
    'height',
    'width',
    'classes',
    'pitch',
    'row_first',
    'row_weights',
    'row_taps',
    'height_out',
    'col_first',
    'col_weights',
    'col_taps',
    'width_out',
    'labels',
    'sums',
    'counts',
    'top',
    'bottom',
    'tile',
)


@pytest.mark.skipif(COMPILED is None, reason='the C kernel is not built')
@pytest.mark.parametrize(
    'wrong',
    [
        {'classes': 0},
        {'classes': 257, 'pitch': 257},
        {'classes': -1},
        {'pitch': 4},
        {'pitch': 2**61},
        {'height': 0},
        {'height': 7},
        {'height': 2**62},
        {'width': -1},
        {'width': 8},
        {'row_taps': 0},
        {'row_taps': 9},
        {'col_taps': -1},
        {'col_taps': 2**62},
        {'height_out': 0, 'bottom': 0},
        {'width_out': 0},
        {'top': -1},
        {'top': 30},
        {'bottom': 31},
        {'bottom': 0},
        {'tile': 0},
        {'tile': -(2**63)},
    ],
    ids=str,
)
def test_the_kernel_itself_refuses_sizes_that_do_not_fit(wrong):
    (row_first, row_weights), (col_first, col_weights) = maps()
    pixels, labels, sums = torch.zeros(8, 9, 5), np.zeros((30, 40), np.uint8), np.zeros(5)
    counts = np.zeros(5, np.int64)
    right = dict(
        zip(
            ARGUMENTS,
            (
                pixels.data_ptr(),
                8,
                9,
                5,
                5,
                row_first.ctypes.data,
                row_weights.ctypes.data,
                row_weights.shape[1],
                30,
                col_first.ctypes.data,
                col_weights.ctypes.data,
                col_weights.shape[1],
                40,
                labels.ctypes.data,
                sums.ctypes.data,
                counts.ctypes.data,
                0,
                30,
                1 << 62,
            ),
            strict=True,
        )
    )
    assert COMPILED.segment_band(*right.values()) is True
    with pytest.raises(ValueError, match='out of range|outside the logits'):
        COMPILED.segment_band(*{**right, **wrong}.values())
    with pytest.raises(ValueError, match="no kernel 'sse9'"):
        COMPILED.use('sse9')


@pytest.mark.usefixtures('kernel')
def test_padding_does_not_reach_the_result():
    logits = smooth_logits(12, 16, 16)
    changed = logits.clone()
    changed[:, :, 13:] += 100  # the valid part ends at column 44 of 64: it reads logits up to column 11
    one = segment(logits, ImageShapes((64, 64), (64, 44), (99, 70)), 12)
    two = segment(changed, ImageShapes((64, 64), (64, 44), (99, 70)), 12)
    assert (one.seg_map == two.seg_map).all()


@pytest.mark.parametrize(
    'size,padded,valid,final',
    [(128, 512, 512, 480), (176, 704, 683, 640), (11, 44, 41, 400), (1, 4, 3, 9), (40, 157, 157, 1), (30, 8, 8, 5)],
)
def test_two_step_taps_compose_both_resizes(size, padded, valid, final):
    first, weights = two_step_taps(size, padded, valid, final)
    unit = torch.eye(size)[None]
    middle = F.interpolate(unit, padded, mode='linear')[..., :valid]
    expected = F.interpolate(middle, final, mode='linear')[0].T.numpy()
    dense = np.zeros((final, size), np.float32)
    np.put_along_axis(dense, first[:, None] + np.arange(weights.shape[1]), weights, 1)
    assert np.abs(dense - expected).max() < 1e-5
    assert (first >= 0).all() and (first + weights.shape[1] <= size).all()


@pytest.mark.parametrize(
    'shapes', [((32, 32), (33, 32), (20, 20)), ((32, 32), (32, 32), (0, 20)), ((32, 32), (0, 32), (20, 20))]
)
def test_contradictory_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match='do not fit together'):
        segment(torch.zeros(3, 8, 8), ImageShapes(*shapes), 3)
    with pytest.raises(ValueError, match='at most 256 classes'):
        segment(torch.zeros(1, 3, 8, 8), ImageShapes((32, 32), (32, 32), (32, 32)), 3)


@pytest.mark.usefixtures('kernel')
def test_threads_do_not_change_the_result():
    logits = smooth_logits(60, 40, 50)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(segment(logits, ImageShapes((160, 200), (160, 199), (333, 402)), 60))
    finally:
        torch.set_num_threads(before)
    assert all((r.seg_map == results[0].seg_map).all() and r.counts == results[0].counts for r in results)
    assert all(r.scores == pytest.approx(results[0].scores, abs=1e-6) for r in results)


def resized(image, short=512):
    import cv2

    height, width = image.shape[:2]
    scale = short / min(height, width)
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    x = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    x = (x - np.float32([123.675, 116.28, 103.53])) / np.float32([58.395, 57.12, 57.375])
    return torch.from_numpy(x.transpose(2, 0, 1)[None].copy())


@pytest.fixture(scope='module')
def trained(shared):
    from ms_segformer.models.segformer import Segformer

    folder = shared / 'oracle' / 'trained_b0'
    model = Segformer.from_pretrained(str(folder)).prepare_inference()
    return model, np.load(folder / 'label_maps.npz')


@pytest.mark.usefixtures('kernel')
@pytest.mark.parametrize('name', ['china', 'flower'])
def test_trained_model_gives_the_originals_label_map_and_scores(trained, shared, name):
    import cv2

    model, reference = trained
    image = cv2.imread(str(shared / 'oracle' / 'golden' / f'{name}.jpg'))[:, :, ::-1]
    x = resized(np.ascontiguousarray(image))
    with torch.inference_mode():
        logits = model.logits(x)[0]
    size = tuple(x.shape[2:])
    result = segment(logits, ImageShapes(size, size, image.shape[:2]), 172)
    clear = reference[f'{name}_margin'] > TIE
    assert (result.seg_map == reference[f'{name}_seg'])[clear].all()
    assert result.class_ids[::-1] == np.unique(reference[f'{name}_seg']).tolist()
    assert result.scores[::-1] == pytest.approx(reference[f'{name}_scores'], abs=1e-4)


@pytest.mark.usefixtures('kernel')
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_torch_s_default_type_changes_nothing(dtype):
    logits = smooth_logits(17, 20, 30)
    arguments = ImageShapes((80, 120), (80, 117), (61, 90)), 17
    expected = segment(logits, *arguments)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = segment(logits, *arguments)
    finally:
        torch.set_default_dtype(before)
    np.testing.assert_array_equal(found.seg_map, expected.seg_map)
    assert found.scores == expected.scores


@pytest.mark.usefixtures('kernel')
def test_torch_s_default_device_changes_nothing():
    logits = smooth_logits(17, 20, 30)
    arguments = ImageShapes((80, 120), (80, 117), (61, 90)), 17
    expected = segment(logits, *arguments)
    with torch.device('meta'):
        found = segment(logits, *arguments)
    np.testing.assert_array_equal(found.seg_map, expected.seg_map)
