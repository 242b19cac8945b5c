"""A GPU gives the label maps of the CPU."""

import warnings

import numpy as np
import pytest
import torch
from kernel_cases import KINDS, make_case

import ms_segformer
from ms_segformer.engines import create_engine
from ms_segformer.metainfo import VARIANTS, configuration_dir, demo_model_dir
from ms_segformer.models.segformer import Segformer
from ms_segformer.postprocess import segmentation
from ms_segformer.postprocess.float32 import exact_float32
from ms_segformer.postprocess.segmentation import LogitsError, label_pixels, segment
from ms_segformer.preprocessors.image import load_image
from ms_segformer.preprocessors.shapes import ImageShapes

pytestmark = pytest.mark.gpu
FLOAT32, HALF = 0.9999, 0.995  # least share of equal pixels
SIZES = [(512, 512), (480, 640), (640, 427), (333, 500)]


@pytest.fixture(scope='module')
def photographs(request):
    """Parts of a photograph, in several sizes."""
    picture = load_image(request.config.rootpath / 'assets' / 'china.jpg')
    return [np.ascontiguousarray(picture[: min(height, len(picture)), :width]) for height, width in SIZES]


@pytest.fixture(scope='module')
def expected(photographs):
    """What the CPU makes of them in float32."""
    return ms_segformer.load('demo', device='cpu', engine='torch')(photographs, confidence=True)


def on(device, **options):
    return ms_segformer.load('demo', device=str(device), engine='torch', **options)


def equal(found, expected):
    """Share of equal pixels over all photographs."""
    pairs = list(zip(found, expected, strict=True))
    same = sum(int((a['seg_map'] == b['seg_map']).sum()) for a, b in pairs)
    return same / sum(b['seg_map'].size for _, b in pairs)


def test_float32_label_maps_and_scores(device, photographs, expected):
    found = on(device)(photographs, batch_size=2, confidence=True)
    assert equal(found, expected) >= FLOAT32
    for one, other in zip(found, expected, strict=True):
        assert abs(one['confidence'].astype(np.float32) - other['confidence'].astype(np.float32)).max() < 0.01
        scores = dict(zip(other['labels'], other['scores'], strict=True))
        large = {
            label for label, share in zip(other['labels'], map(np.mean, other['masks']), strict=True) if share > 0.01
        }
        for label, score in zip(one['labels'], one['scores'], strict=True):
            assert label not in large or abs(score - scores[label]) < 1e-3


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_half_precision_label_maps(device, photographs, expected, precision):
    if device.type == 'cpu' and precision == 'fp16':
        pytest.skip('float16 needs a GPU')
    assert equal(on(device, precision=precision)(photographs), expected) >= HALF


@pytest.mark.parametrize('variant', VARIANTS)
def test_logits_of_every_variant(device, variant):
    """With random weights: a few thousandths of the logits' spread, the rounding of float32 in another order."""
    from ms_segformer.config.reader import read_configuration

    torch.manual_seed(0)
    section = read_configuration(configuration_dir() / VARIANTS[variant].model_name).model_section
    model = Segformer(backbone=section['backbone'], decode_head=section['decode_head'])
    image = torch.randn(1, 3, 96, 128)
    logits = create_engine(model, 'torch')(image)
    for precision, bound in (('float32', 1e-3), ('bf16', 0.2), ('fp16', 0.05)):
        if precision == 'float32' or device.type != 'cpu':
            found = create_engine(model, 'torch', precision, device)(image)
            assert found.device.type == device.type and found.dtype == torch.float32
            assert float((found.cpu() - logits).abs().max() / logits.std()) < bound


def test_batches_and_single_images_are_the_same(device, photographs):
    segmenter = on(device)
    together, alone = (
        segmenter(photographs * 2, batch_size=4),
        [segmenter(photograph) for photograph in photographs * 2],
    )
    assert equal(together, alone) >= FLOAT32


def test_windows(device, photographs):
    options = {'mode': 'slide', 'crop_size': 256, 'stride': 171, 'resize': False}
    expected = ms_segformer.load('demo', device='cpu', engine='torch')(photographs[:2], **options)
    assert equal(on(device)(photographs[:2], **options), expected) >= FLOAT32


def test_compiled(device, photographs, expected):
    pytest.importorskip('triton', reason='torch.compile needs triton on a GPU')
    segmenter = ms_segformer.load('demo', device=str(device), engine='torch-compile')
    with warnings.catch_warnings():
        warnings.simplefilter('error', RuntimeWarning)  # which says that torch runs instead
        assert equal(segmenter(photographs[:1]), expected[:1]) >= FLOAT32


@pytest.mark.parametrize('number', range(40))
def test_postprocessing_of_random_logits(device, number):
    """The label map of the CPU but for near ties, and its scores."""
    case = make_case(7, number, KINDS[number % 3])
    try:
        expected = _label(case, 'cpu')
    except LogitsError:
        with pytest.raises(LogitsError):
            _label(case, device)
        return
    found = _label(case, device)
    assert (found[0] == expected[0]).mean() > 0.999
    assert abs(found[1] - expected[1]).max() <= 1e-5 * max(1, expected[2].max()) + (found[0] != expected[0]).sum()


def _label(case, device):
    if case.shapes is None:
        return label_pixels(case.logits.permute(1, 2, 0).to(device), case.rows, case.cols)
    classes = case.logits.shape[0]
    found = segment(case.logits.to(device), case.shapes, classes, case.align_corners)
    sums, counts = np.zeros(classes), np.zeros(classes, np.int64)
    counts[found.class_ids] = found.counts
    sums[found.class_ids] = np.array(found.scores) * found.counts
    return found.seg_map, sums, counts


def test_nothing_waits_for_the_device_but_the_copy_of_the_result(cuda):
    logits = torch.randn(172, 128, 176, device=cuda)
    shapes = ImageShapes((512, 704), (512, 683), (480, 640))
    segment(logits, shapes, 171)
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter('always')
            segment(logits, shapes, 171)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert len([wait for wait in waits if 'synchroniz' in str(wait.message)]) == 1


def test_memory_of_a_large_image(cuda):
    """Postprocessing takes three bands at most besides the logits and the label map; see postprocess.segmentation."""
    logits = torch.randn(512, 512, 172, device=cuda).permute(2, 0, 1)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    segment(logits, ImageShapes((2048, 2048), (2048, 2048), (4000, 4000)), 171)
    bound = 3 * 4 * segmentation.DEVICE_BAND_VALUES + 3 * 4000 * 4000
    assert torch.cuda.max_memory_allocated() - before < bound


def test_exact_float32_switches_tf32_off_and_back_on(cuda):
    product = torch.backends.cuda.matmul
    name, exact, fast = (
        ('fp32_precision', 'ieee', 'tf32') if hasattr(product, 'fp32_precision') else ('allow_tf32', False, True)
    )
    before = getattr(product, name)
    setattr(product, name, fast)
    try:
        with exact_float32(cuda):
            assert getattr(product, name) == exact
            a, b = torch.randn(2, 512, 512, device=cuda)
            assert float(((a @ b).double() - a.double() @ b.double()).abs().max()) < 1e-3
        assert getattr(product, name) == fast
    finally:
        setattr(product, name, before)


def test_the_model_of_the_pipeline_is_the_one_that_runs(device):
    model = Segformer.from_pretrained(str(demo_model_dir())).to(device)
    engine = create_engine(model, 'torch', 'float32', device)
    assert engine.model is model  # no second copy of the weights
