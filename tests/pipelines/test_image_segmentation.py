"""The registered pipeline, from the file to masks, labels and scores, against the original."""

import copy
import io
import json
import os
import shutil
import weakref

import numpy as np
import pytest
import torch
from exported import save_exported
from modelscope.outputs import OutputKeys
from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks
from PIL import Image
from reference import recipe_weights, reference_shapes

from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.metainfo import VARIANTS, configuration_dir
from ms_segformer.postprocess import kernel
from ms_segformer.postprocess.segmentation import LogitsError
from ms_segformer.preprocessors.image import ImageError, load_image
from ms_segformer.results import SegmentationOutput

PHOTOGRAPHS = {
    'small': 'edge/small.jpg',
    'wide': 'edge/wide.jpg',
    'tall': 'edge/tall.jpg',
    'gray': 'edge/gray.png',
    'china': 'china.jpg',
    'flower': 'flower.jpg',
}


def open_pipeline(directory, **options):
    return pipeline(Tasks.image_segmentation, str(directory), device='cpu', **options)


@pytest.fixture(scope='module')
def tiny(tiny_model_dir):
    return open_pipeline(tiny_model_dir)


def check(result, golden, name, labels=None):
    """The label map equals the original's but for near ties; labels and scores follow from it."""
    expected, margin = golden[f'{name}_seg'], golden[f'{name}_margin']
    different = result['seg_map'] != expected
    assert not (different & (margin >= 1e-3)).any()
    assert different.mean() <= 1e-3
    present = [i for i in np.unique(result['seg_map'])[::-1] if i < len(CLASSES)]
    assert result['labels'] == [CLASSES[i] for i in present]
    for i, mask in zip(present, result['masks'], strict=True):
        assert mask.dtype == np.uint8 and mask.shape == expected.shape
        np.testing.assert_array_equal(mask, result['seg_map'] == i)
    if f'{name}_scores' in golden:
        reference = dict(zip(np.unique(expected).tolist(), golden[f'{name}_scores'], strict=True))
        for i, score in zip(present, result['scores'], strict=True):
            if (expected == i).sum() > 100:  # a near tie moves the mean of a class of a few pixels
                assert abs(score - reference[i]) < 1e-3
    if f'{name}_labels' in golden and not different.any():
        assert result['labels'] == golden[f'{name}_labels'].tolist()


def segmented(segmenter, photograph):
    """The pipeline's result, which torch, in the form that runs on a GPU too, has to give as well."""
    result = segmenter(photograph)
    inputs = segmenter.forward(segmenter.preprocessor(photograph))
    try:
        kernel.use(kernel.TORCH)
        other = segmenter.postprocess(inputs)
    finally:
        kernel.use(kernel.KERNELS[0])
    np.testing.assert_array_equal(other['seg_map'], result['seg_map'])
    assert other['labels'] == result['labels']
    assert other['scores'] == pytest.approx(result['scores'], abs=1e-5)
    return result


@pytest.mark.parametrize('name', PHOTOGRAPHS)
def test_tiny_model_equals_the_original(tiny, oracle, name):
    check(
        segmented(tiny, str(oracle / 'golden' / PHOTOGRAPHS[name])),
        np.load(oracle / 'golden' / 'tiny_goldens.npz'),
        name,
    )


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant_equals_the_original(tmp_path, oracle, variant):
    shapes = reference_shapes(oracle, variant)
    save_exported(tmp_path / 'pytorch_model.pt', recipe_weights(oracle, shapes))
    shutil.copy(oracle / 'configuration' / f'{variant}.json', tmp_path / 'configuration.json')
    segmenter = open_pipeline(tmp_path)
    golden = np.load(oracle / 'golden' / f'recipe_{variant}.npz')
    for name in ('china', 'flower'):
        if f'{name}_seg' in golden:
            check(segmented(segmenter, str(oracle / 'golden' / f'{name}.jpg')), golden, name)


def test_a_trained_model_equals_the_original(oracle, shared):
    golden = np.load(oracle / 'trained_b0' / 'label_maps.npz')
    segmenter = open_pipeline(oracle / 'trained_b0')
    files = {path.stem: path for path in (shared / 'data').rglob('*.jpg')}
    for name in [key.removesuffix('_seg') for key in golden.files if key.endswith('_seg')]:
        check(segmented(segmenter, str(files[name])), golden, name)


def test_inputs_the_original_handled_give_the_same_map_and_the_others_are_right_now(tiny, oracle):
    folder = oracle / 'golden' / 'edge'
    reference = tiny(str(folder / 'small.jpg'))['seg_map']
    array = load_image(folder / 'small.jpg')
    forms = {
        'path jpg': str(folder / 'small.jpg'),
        'bytes': (folder / 'small.jpg').read_bytes(),
        'pathlib.Path': folder / 'small.jpg',
        'ndarray RGB uint8': array,
        'ndarray int64': array.astype(np.int64),
        'ndarray RGBA': np.dstack([array, array[:, :, :1]]),
        'ndarray float64 0-1': array / 255,
        'PIL ImageFile (Image.open)': Image.open(folder / 'small.jpg'),
        'PIL Image.Image (converted)': Image.fromarray(array),
        'torch tensor': torch.tensor(array),
        'ndarray non-contiguous': np.repeat(array, 2, axis=0)[::2],
        'dict img': {'img': array},
    }
    known = json.loads((oracle / 'edge_inputs.json').read_text())
    assert forms.keys() <= known.keys()
    for name, form in forms.items():
        np.testing.assert_array_equal(tiny(form)['seg_map'], reference, err_msg=name)
    np.testing.assert_array_equal(tiny(array[:, :, ::-1], channel_order='BGR')['seg_map'], reference)
    for name in ('rgba.png', 'small.webp', 'small.bmp'):  # the original: the same map as the JPEG's
        np.testing.assert_array_equal(tiny(str(folder / name))['seg_map'], reference, err_msg=name)
    for name in ('gray.png', 'la.png', 'gray16.png'):
        expected = np.load(oracle / 'golden' / 'tiny_goldens.npz')['gray_seg']
        assert (tiny(str(folder / name))['seg_map'] == expected).mean() > 0.999, name
    upright = tiny(str(folder / 'exif6.jpg'))['masks']
    assert all(mask.shape == (160, 107) for mask in upright)
    for name, error in (
        ('truncated.jpg', ImageError),
        ('empty.jpg', ImageError),
        ('notimage.jpg', ImageError),
        ('nope.jpg', FileNotFoundError),
    ):
        with pytest.raises(error, match=name):
            tiny(str(folder / name))
    with pytest.raises(ImageError, match='NoneType'):
        tiny(None)


def random_images(sizes=((40, 60), (33, 17), (40, 60), (64, 64), (1, 1), (20, 90)), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def same(a, b):
    assert a['labels'] == b['labels']
    for one, other in zip(a['masks'], b['masks'], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(a['scores'], b['scores'], atol=1e-5)


@pytest.mark.parametrize('batch_size', [None, 1, 2, 4, 100])
def test_a_list_equals_one_by_one_in_any_order(tiny, batch_size):
    images = random_images()
    alone = [tiny(image) for image in images]
    for order in (range(len(images)), reversed(range(len(images)))):
        order = list(order)
        together = tiny([images[i] for i in order], batch_size=batch_size)
        for i, result in zip(order, together, strict=True):
            same(result, alone[i])


def test_images_of_one_shape_share_a_run_where_runs_are_shared(tiny_model_dir):
    segmenter = open_pipeline(tiny_model_dir, engine='torch')
    images = random_images()
    alone = [segmenter(image) for image in images]
    runs = []

    engine = segmenter.prepare_model()
    segmenter._engine = lambda batch: runs.append(len(batch)) or engine(batch)
    segmenter._share_runs = True
    for result, expected in zip(segmenter(images, batch_size=6), alone, strict=True):
        assert (result['seg_map'] == expected['seg_map']).mean() > 0.999
    assert sorted(runs, reverse=True)[0] > 1 and sum(runs) == len(images)


def test_generators_give_generators_lazily(tiny):
    asked = []

    def photographs():
        for i, image in enumerate(random_images() * 3):
            asked.append(i)
            yield image

    results = tiny(photographs())
    first = next(results)
    assert len(asked) < 8, 'the whole generator was read ahead'
    same(first, tiny(random_images()[0]))
    assert len(list(results)) == 17


def test_data_sets_are_iterated(tiny):
    from datasets import Dataset

    images = [Image.fromarray(image) for image in random_images()[:3]]
    results = list(tiny(Dataset.from_dict({'image': images}, features=_image_feature())))
    assert len(results) == 3
    same(results[1], tiny(images[1]))


def _image_feature():
    from datasets import Features
    from datasets import Image as ImageFeature

    return Features({'image': ImageFeature()})


def test_an_empty_list_gives_an_empty_list(tiny):
    assert tiny([]) == [] and tiny((), batch_size=4) == []


@pytest.mark.parametrize('batch_size', [None, 3])
def test_a_bad_item_is_reported_with_its_position_and_the_others_are_returned(tiny, tmp_path, caplog, batch_size):
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    good = random_images()[:2]
    results = tiny([good[0], str(tmp_path / 'broken.jpg'), good[1], 'nowhere.jpg'], batch_size=batch_size)
    same(results[0], tiny(good[0]))
    same(results[2], tiny(good[1]))
    assert results[1]['index'] == 1 and 'broken.jpg' in results[1]['error'] and results[1]['masks'] == []
    assert results[3]['index'] == 3 and 'nowhere.jpg' in results[3]['error']
    assert 'image 1' in caplog.text and 'image 3' in caplog.text


class Odd:
    """What a list may hold too: something that fails in a way of its own."""

    name = 'odd'

    def read(self):
        raise LookupError('no content')

    def __array__(self, *_, **__):
        raise LookupError('no array')


def test_a_list_of_anything_gives_a_result_or_an_error_for_each(tiny):
    odd = [
        None,
        3,
        1.5,
        object(),
        Odd(),
        Odd,
        [],
        (),
        {},
        {'image': None},
        set(),
        b'',
        'http://[',
        'http://a b/',
        '',
        '\0',
        'data:x',
        'file:///nowhere',
        np.zeros(0),
        np.array(None),
        np.zeros((3, 4), 'M8[s]'),
        torch.float32,
        np.zeros((2, 2), object),
        np.ma.masked_array(np.zeros((4, 4), np.uint8)),
        torch.zeros(4, 4).to_sparse(),
        torch.empty(4, 4, device='meta'),
        torch.zeros(4, 4, dtype=torch.bfloat16, requires_grad=True),
        io.StringIO('text'),
        Image.new('I', (3, 3), 10**6),
        Image.new('RGB', (0, 5)),
        random_images()[0],
    ]
    for results in (tiny(odd), tiny(odd, batch_size=7), list(tiny(iter(odd)))):
        assert len(results) == len(odd)
        for index, result in enumerate(results):
            assert result['index'] == index and result['error'] if 'error' in result else 'seg_map' in result
        assert ['seg_map' in result for result in results].count(True) == 3


def test_a_foreign_exception_is_named_in_its_entry(tiny):
    def fail(*_, **__):
        raise LookupError('no content')

    segmenter = copy.copy(tiny)
    segmenter.preprocessor = fail
    (result,) = segmenter([random_images()[0]])
    assert result['error'] == 'LookupError: no content' and not result['damaged']


class NoPath(os.PathLike):
    def __fspath__(self):
        raise LookupError('no path')


def test_a_path_like_object_that_fails_has_an_entry(tiny):
    good = random_images()[0]
    first, second = tiny([NoPath(), good])
    assert 'no path' in first['error'] and 'seg_map' in second


@pytest.mark.parametrize('batch_size', [1, 3])
def test_an_image_that_the_network_fails_on_fails_alone(tiny, monkeypatch, batch_size):
    """As on a GPU without the memory for it."""
    images = random_images([(40, 60), (33, 17), (40, 60)])
    of_now = tiny.segment

    def segment(prepared, options):
        if any(inputs['ori_shape'][:2] == (33, 17) for inputs in prepared):
            raise torch.cuda.OutOfMemoryError('out of memory\nTried to allocate')  # torch's own name since 2.5
        return of_now(prepared, options)

    monkeypatch.setattr(tiny, 'segment', segment)
    results = tiny(images, batch_size=batch_size)
    assert ['error' in result for result in results] == [False, True, False]
    assert results[1]['index'] == 1 and not results[1]['damaged'] and 'out of memory Tried' in results[1]['error']


def test_what_a_batch_held_is_free_when_its_images_are_tried_one_by_one(tiny, monkeypatch):
    of_now, held = tiny.segment, []

    def segment(prepared, options):
        if len(prepared) > 1:
            logits = torch.zeros(1000)
            held.append(weakref.ref(logits))
            raise torch.cuda.OutOfMemoryError('out of memory')
        assert held[0]() is None
        return of_now(prepared, options)

    monkeypatch.setattr(tiny, 'segment', segment)
    assert all('seg_map' in result for result in tiny(random_images()[:2], batch_size=2))


def test_a_list_of_one_model_is_that_model(tiny_model_dir):
    image = random_images()[0]
    segmenter = pipeline(Tasks.image_segmentation, [str(tiny_model_dir)], device='cpu')
    same(segmenter(image), open_pipeline(tiny_model_dir)(image))


def test_the_keys_of_a_result_are_modelscopes(tiny):
    result = tiny(random_images()[0], with_image=True, confidence=True)
    assert list(result)[:3] == [OutputKeys.MASKS, OutputKeys.LABELS, OutputKeys.SCORES]
    (failed,) = tiny([b'no image'])
    assert {*result, *failed, 'time'} == {*SegmentationOutput.__required_keys__, *SegmentationOutput.__optional_keys__}


def test_nonsense_arguments_are_refused(tiny, tiny_model_dir):
    with pytest.raises(ValueError, match='batch_size is 0'):
        tiny([], batch_size=0)
    with pytest.raises(ValueError, match='channel_order'):
        tiny(random_images()[0], channel_order='HSV')
    with pytest.raises(AssertionError, match='device should be'):
        pipeline(Tasks.image_segmentation, str(tiny_model_dir), device='tpu')


def test_numpy_s_integers_are_integers(tiny):
    images = random_images([(40, 60)] * 3)
    for one, other in zip(tiny(images, batch_size=np.uint8(200), max_pixels=np.int64(2400)), tiny(images), strict=True):
        same(one, other)
    plain = tiny(images[0], mode='slide', crop_size=(64, 64), stride=32, resize=False)
    for crop_size, stride in ((np.array([64, 64]), np.int64(32)), ((np.int16(64), 64), [np.uint8(32), 32])):
        same(plain, tiny(images[0], mode='slide', crop_size=crop_size, stride=stride, resize=False))


@pytest.mark.parametrize(
    'options',
    [
        {'batch_size': True},
        {'batch_size': 2.0},
        {'batch_size': np.float32(2)},
        {'max_pixels': True},
        {'max_pixels': np.array(2.5)},
        {'mode': 'slide', 'crop_size': True},
        {'mode': 'slide', 'crop_size': (True, 64)},
        {'mode': 'slide', 'crop_size': np.array([64.5, 64])},
        {'mode': 'slide', 'stride': np.array(2.5)},
        {'mode': 'slide', 'stride': np.zeros((2, 2), int)},
    ],
)
def test_what_is_no_integer_is_refused(tiny, options):
    with pytest.raises(ValueError, match=f'^{list(options)[-1]} is .*; accepted: '):
        tiny(random_images()[0], **options)


def test_unknown_arguments_are_refused_with_the_nearest_name(tiny, tiny_model_dir):
    image = random_images()[0]
    for name, near in (
        ('batchsize', "; did you mean 'batch_size'"),
        ('croop_size', "; did you mean 'crop_size'"),
        ('xyz', '$'),
    ):
        with pytest.raises(TypeError, match=f"a call of the pipeline takes no argument '{name}'{near}"):
            tiny(image, **{name: 2})
    for name, near in (('engin', "; did you mean 'engine'"), ('precison', "; did you mean 'precision'"), ('xyz', '$')):
        with pytest.raises(TypeError, match=f"the pipeline takes no argument '{name}'{near}"):
            open_pipeline(tiny_model_dir, **{name: 'torch'})


def test_modelscope_s_own_arguments_are_taken(tiny_model_dir):
    """What its `pipeline` and its server pass, and what a model object brings from its configuration."""
    from modelscope.models import Model

    open_pipeline(tiny_model_dir, external_engine_for_llm=True, llm_framework=None, auto_collate=False)
    open_pipeline(tiny_model_dir, trust_remote_code=True, model_revision='master', compile=False, compile_options={})
    open_pipeline(tiny_model_dir, torch_dtype='auto', config=None)
    model = Model.from_pretrained(str(tiny_model_dir))
    assert pipeline(Tasks.image_segmentation, model, device='cpu').model is model


def test_arguments_that_an_earlier_modelscope_passes_without_declaring_them_are_taken(tiny_model_dir, monkeypatch):
    """ModelScope 1.18 hands `trust_remote_code` on through `**kwargs`."""
    from modelscope.models import Model

    from ms_segformer.pipelines.image_segmentation import SegformerPipeline

    of_now = Model.from_pretrained
    monkeypatch.setattr(Model, 'from_pretrained', lambda model_name_or_path, **kwargs: of_now(model_name_or_path))
    SegformerPipeline(str(tiny_model_dir), device='cpu', trust_remote_code=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without CUDA')
@pytest.mark.parametrize(
    'device, said', [('cpu', False), ('CPU', False), ('cpu:0', False), ('gpu', False), ('cuda', True), ('gpu:1', True)]
)
def test_a_gpu_that_is_asked_for_and_missing_is_said(tiny_model_dir, device, said, caplog):
    pipeline(Tasks.image_segmentation, str(tiny_model_dir), device=device)
    assert (f"device '{device}' was asked for, but torch" in caplog.text) is said


@pytest.mark.parametrize('device', ['cpu', 'gpu', 'cuda:0'])
def test_devices_are_named_as_in_modelscope(tiny_model_dir, device):
    segmenter = pipeline(Tasks.image_segmentation, str(tiny_model_dir), device=device)
    assert segmenter.device.type == ('cuda' if torch.cuda.is_available() and device != 'cpu' else 'cpu')
    assert segmenter(random_images()[0])['labels']


def test_extreme_sizes(tiny):
    for size in ((1, 1), (1, 700), (700, 1), (2, 3000), (4000, 6000)):
        result = tiny(np.full((*size, 3), 127, np.uint8))
        assert result['seg_map'].shape == size
        assert sum(mask.sum(dtype=np.int64) for mask in result['masks']) == (result['seg_map'] < 171).sum()


def test_padding_never_reaches_the_result(tiny_model_dir, tmp_path):
    """Logits that shout in the padded part are not heard in the result."""
    shutil.copy(tiny_model_dir / 'pytorch_model.pt', tmp_path)
    raw = json.loads((tiny_model_dir / 'configuration.json').read_text())
    transforms = raw['dataset']['val']['pipeline'][0]['transforms']
    transforms.insert([t['type'] for t in transforms].index('MMNormalize') + 1, {'type': 'MMPad', 'size_divisor': 320})
    (tmp_path / 'configuration.json').write_text(json.dumps(raw))
    segmenter = open_pipeline(tmp_path)
    image = random_images([(97, 150)])[0]
    prepared = segmenter.preprocessor(image)
    assert prepared['img_shape'] == (512, 792) and prepared['pad_shape'] == (640, 960)
    quiet = torch.zeros(1, 172, 160, 240)
    quiet[:, 5] = 1
    loud = quiet.clone()
    loud[:, 9, 129:] = loud[:, 9, :, 199:] = 50  # one cell of a quarter beyond the valid 128×198 is interpolated from
    segmenter._engine = lambda batch: loud
    result = segmenter(image)
    assert result['labels'] == [CLASSES[5]]
    assert result['masks'][0].shape == (97, 150) and result['masks'][0].all()
    np.testing.assert_allclose(result['scores'], [np.e / (np.e + 171)], rtol=1e-5)


def test_the_bundled_configuration_and_a_checkpoint_make_a_model_directory(tmp_path, oracle):
    shutil.copy(configuration_dir() / VARIANTS['b0'].model_name / 'configuration.json', tmp_path)
    shutil.copy(oracle / 'trained_b0' / 'pytorch_model.pt', tmp_path)
    labels = open_pipeline(tmp_path)(str(oracle / 'golden' / 'china.jpg'))['labels']
    assert 'sky-other' in labels


def test_one_window_over_everything_is_the_whole_image(tiny):
    image = random_images([(50, 60)])[0]
    whole, slid = tiny(image), tiny(image, mode='slide', crop_size=(2048, 2048), stride=2048)
    assert (whole['seg_map'] == slid['seg_map']).mean() > 0.999
    np.testing.assert_allclose(whole['scores'], slid['scores'], atol=1e-3)


def test_slide_averages_the_logits_of_overlapping_windows(tiny_model_dir):
    """Against the plain form: every window's logits scaled to the window, summed, divided by the count."""
    segmenter = open_pipeline(tiny_model_dir, engine='torch')
    image = random_images([(70, 110)])[0]
    result = segmenter(image, mode='slide', crop_size=(48, 64), stride=(30, 40), resize=False)
    whole = segmenter.preprocessor(image, resize=False)['img']
    total, count = torch.zeros(1, 172, 70, 110), torch.zeros(70, 110)
    for top in (0, 22):
        for left in (0, 40, 46):
            window = whole[:, :, top : top + 48, left : left + 64]
            logits = segmenter.prepare_model()(window)
            scaled = torch.nn.functional.interpolate(logits, (48, 64), mode='bilinear')
            total[:, :, top : top + 48, left : left + 64] += scaled
            count[top : top + 48, left : left + 64] += 1
    assert (result['seg_map'] == (total / count).argmax(1)[0].numpy()).mean() > 0.999


def test_the_configuration_may_ask_for_slide(tmp_path, tiny_model_dir, tiny):
    shutil.copy(tiny_model_dir / 'pytorch_model.pt', tmp_path)
    raw = json.loads((tiny_model_dir / 'configuration.json').read_text())
    raw['model']['test_cfg'] = {'mode': 'slide', 'crop_size': [256, 256], 'stride': [171, 171]}
    (tmp_path / 'configuration.json').write_text(json.dumps(raw))
    image = random_images([(40, 60)])[0]
    asked = tiny(image, mode='slide', crop_size=256, stride=171)['seg_map']
    np.testing.assert_array_equal(open_pipeline(tmp_path)(image)['seg_map'], asked)


@pytest.mark.parametrize('engine', ['torch', 'openvino', 'onnxruntime'])
def test_a_model_that_diverged_is_an_error_that_names_it(engine, tiny_model_dir, monkeypatch, tmp_path):
    if engine != 'torch':
        pytest.importorskip(engine, reason=f'needs {engine}')
    monkeypatch.setenv('MS_SEGFORMER_CACHE', str(tmp_path))
    segmenter = open_pipeline(tiny_model_dir, engine=engine)
    with torch.no_grad():
        segmenter.model.decode_head.conv_seg.bias[3] = float('nan')
    said = f'logits of {tiny_model_dir} are not finite .*NaN.*use an earlier checkpoint.*float32'
    for options in ({}, {'mode': 'slide', 'crop_size': 48, 'stride': 30}):
        with pytest.raises(LogitsError, match=said):
            segmenter(random_images([(64, 80)])[0], resize=False, **options)
    assert segmenter.prepare_model().name == engine


@pytest.mark.parametrize(
    'options, said',
    [
        ({'mode': 'tile'}, "'whole' or 'slide'"),
        ({'mode': 'slide', 'crop_size': 8}, 'at least 29'),
        ({'mode': 'slide', 'crop_size': (64, 64, 3)}, 'crop_size'),
        ({'mode': 'slide', 'crop_size': 64, 'stride': 65}, 'gaps'),
        ({'mode': 'slide', 'stride': 0}, 'stride is 0'),
        ({'mode': 'slide', 'crop_size': 64.5}, 'crop_size is 64.5'),
        (
            {'mode': 'slide', 'crop_size': 512, 'stride': 1},
            'up to 262,144 times; accepted: .* at least 1/8 of the window',
        ),
        ({'mode': 'slide', 'crop_size': 9999, 'stride': 9999}, '16,777,216 pixels at most'),
    ],
)
def test_nonsense_windows_are_refused(tiny, options, said):
    with pytest.raises(ValueError, match=said):
        tiny(random_images()[0], **options)


def test_what_is_too_large_for_one_piece_is_refused_before_it_is_made_a_tensor(tiny, monkeypatch):
    image = np.zeros((4097, 4096, 3), np.uint8)
    monkeypatch.setattr(tiny.preprocessor, 'window', lambda *_: pytest.fail('a tensor was made'))
    with pytest.raises(ImageError, match="the image: 4096×4097 pixels are more than 16,777,216.*mode='slide'"):
        tiny(image, resize=False)
    (result,) = tiny([image], resize=False)
    assert 'in one piece' in result['error']


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_the_picture_that_was_read_is_handed_on(tiny, tmp_path, mode):
    """A file object can be read once."""
    images = random_images()[:3]
    files = []
    for image in images:
        files.append(io.BytesIO())
        Image.fromarray(image).save(files[-1], 'png')
        files[-1].seek(0)
    files.insert(1, str(tmp_path / 'nowhere.png'))
    results = tiny(files, mode=mode, batch_size=2, with_image=True)
    assert 'image' not in results.pop(1)
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result['image'], image)
        np.testing.assert_array_equal(result['seg_map'], tiny(image, mode=mode)['seg_map'])
    np.testing.assert_array_equal(
        tiny(images[0][:, :, ::-1], mode=mode, channel_order='BGR', with_image=True)['image'], images[0]
    )
    assert 'image' not in tiny(images[0], mode=mode)


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_images_above_a_limit_are_refused(tiny, tmp_path, mode):
    Image.fromarray(random_images()[0]).save(tmp_path / 'a.png')
    with pytest.raises(ImageError, match='a.png: 60×40 pixels are more than 2,399'):
        tiny(str(tmp_path / 'a.png'), mode=mode, max_pixels=2399)
    assert tiny(str(tmp_path / 'a.png'), mode=mode, max_pixels=2400)['labels']
    with pytest.raises(ValueError, match='max_pixels'):
        tiny([], max_pixels=0)


def test_masks_may_be_left_out(tiny):
    image = random_images()[0]
    result, full = tiny(image, with_masks=False), tiny(image)
    assert result['masks'] == [] and result['labels'] == full['labels'] and result['scores'] == full['scores']
