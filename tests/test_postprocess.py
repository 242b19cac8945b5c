"""Label maps and scores equal those of the plain two-step form and of the original."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ms_segformer import postprocess
from ms_segformer.postprocess import axis_taps, masks, segment

TIE = 1e-3  # logits closer than this may fall either way


@pytest.fixture(params=['compiled', 'torch'])
def kernel(request, monkeypatch):
    """Both implementations of `segment`."""
    if request.param == 'torch':
        monkeypatch.setattr(postprocess, '_segment', None)
    elif postprocess._segment is None:
        pytest.skip('the C kernel is not built; pip install -e . with a C compiler builds it')


def plain(logits, pad_shape, img_shape, ori_shape, align_corners=False):
    """The definition: two resizes of all classes, softmax, argmax. Returns C×H×W logits in float64."""
    x = F.interpolate(logits[None].double(), pad_shape, mode='bilinear', align_corners=align_corners)
    x = x[:, :, :img_shape[0], :img_shape[1]]
    return F.interpolate(x, ori_shape, mode='bilinear', align_corners=align_corners)[0]


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
    result = segment(logits, pad, valid, final, classes, align_corners)
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


@pytest.mark.usefixtures('kernel')
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'padded', 'sliced', 'numpy', 'bfloat16'])
def test_memory_layout_and_type_do_not_matter(layout):
    logits = smooth_logits(20, 24, 30)
    expected = segment(logits, (96, 120), (96, 120), (80, 100), 20)
    given = {
        'contiguous': lambda x: x.contiguous(),
        'channels_last': lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        'padded': lambda x: F.pad(x.permute(1, 2, 0), (0, 12), value=1e9)[..., :20].permute(2, 0, 1),
        'sliced': lambda x: torch.cat([x, x], 2)[:, :, :30],
        'numpy': lambda x: x.numpy(),
        'bfloat16': lambda x: x.bfloat16(),
    }[layout](logits)
    result = segment(given, (96, 120), (96, 120), (80, 100), 20)
    if layout == 'bfloat16':
        assert (result.seg_map == expected.seg_map).mean() > 0.98
    else:
        assert (result.seg_map == expected.seg_map).all()
        assert result.scores == pytest.approx(expected.scores, abs=1e-6)


@pytest.mark.usefixtures('kernel')
def test_void_keeps_its_pixels_but_is_no_segment():
    logits = torch.full((4, 8, 8), -5.0)
    logits[3, :, 4:] = 9
    logits[1, :, :4] = 9
    result = segment(logits, (32, 32), (32, 32), (32, 32), num_names=3)
    assert set(np.unique(result.seg_map)) == {1, 3}
    assert result.class_ids == [1]
    assert len(masks(result)) == 1


@pytest.mark.usefixtures('kernel')
def test_class_ids_descend_and_masks_are_zero_one_maps_of_them():
    result = segment(smooth_logits(30, 24, 30), (96, 120), (90, 113), (77, 101), 30)
    assert len(result.class_ids) > 3
    assert result.class_ids == sorted(np.unique(result.seg_map).tolist(), reverse=True)
    for class_id, mask in zip(result.class_ids, masks(result), strict=True):
        assert mask.dtype == np.uint8
        assert (mask == (result.seg_map == class_id)).all()
    assert sum(result.counts) == 77 * 101


@pytest.mark.usefixtures('kernel')
def test_scores_are_bounded_by_even_huge_logits():
    logits = smooth_logits(10, 16, 16) * 1000
    result = segment(logits, (64, 64), (64, 64), (50, 50), 10)
    assert all(0.3 < score <= 1 for score in result.scores)


@pytest.mark.usefixtures('kernel')
def test_padding_does_not_reach_the_result():
    logits = smooth_logits(12, 16, 16)
    changed = logits.clone()
    changed[:, :, 13:] += 100  # the valid part ends at column 44 of 64: it reads logits up to column 11
    one = segment(logits, (64, 64), (64, 44), (99, 70), 12)
    two = segment(changed, (64, 64), (64, 44), (99, 70), 12)
    assert (one.seg_map == two.seg_map).all()


@pytest.mark.parametrize('size,padded,valid,final', [(128, 512, 512, 480), (176, 704, 683, 640), (11, 44, 41, 400),
                                                     (1, 4, 3, 9), (40, 157, 157, 1), (30, 8, 8, 5)])
def test_axis_taps_compose_both_resizes(size, padded, valid, final):
    first, weights = axis_taps(size, padded, valid, final)
    unit = torch.eye(size)[None]
    middle = F.interpolate(unit, padded, mode='linear')[..., :valid]
    expected = F.interpolate(middle, final, mode='linear')[0].T.numpy()
    dense = np.zeros((final, size), np.float32)
    np.put_along_axis(dense, first[:, None] + np.arange(weights.shape[1]), weights, 1)
    assert np.abs(dense - expected).max() < 1e-5
    assert (first >= 0).all() and (first + weights.shape[1] <= size).all()


@pytest.mark.parametrize('shapes', [((32, 32), (33, 32), (20, 20)), ((32, 32), (32, 32), (0, 20)),
                                    ((32, 32), (0, 32), (20, 20))])
def test_contradictory_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match='do not fit together'):
        segment(torch.zeros(3, 8, 8), *shapes, 3)
    with pytest.raises(ValueError, match='at most 256 classes'):
        segment(torch.zeros(1, 3, 8, 8), (32, 32), (32, 32), (32, 32), 3)


@pytest.mark.usefixtures('kernel')
def test_threads_do_not_change_the_result():
    logits = smooth_logits(60, 40, 50)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(segment(logits, (160, 200), (160, 199), (333, 402), 60))
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
    result = segment(logits, size, size, image.shape[:2], 172)
    clear = reference[f'{name}_margin'] > TIE
    assert (result.seg_map == reference[f'{name}_seg'])[clear].all()
    assert result.class_ids[::-1] == np.unique(reference[f'{name}_seg']).tolist()
    assert result.scores[::-1] == pytest.approx(reference[f'{name}_scores'], abs=1e-4)
