"""A result is the dict of ModelScope's contract, and pictures, tables and files can be made of it."""

import copy
import importlib
import io
import json
import math
import pickle
import re
import subprocess
import sys
import textwrap
import time
import types
import weakref

import numpy as np
import pytest
import torch
from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks
from PIL import Image, ImageShow
from pycocotools import mask as coco
from pycocotools.coco import COCO

from ms_segformer import fonts
from ms_segformer.errors import ArgumentError, SegformerError
from ms_segformer.results import ResultError, SegmentationResult, coco_of, segments
from ms_segformer.results.palettes import palette_for
from ms_segformer.results.result import FileThereError

CLASSES = ('sky', 'road', 'car', 'person')
VOID = 4


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def result_of(seg_map, **content):
    ids = [i for i in np.unique(seg_map)[::-1].tolist() if i < len(CLASSES)]
    return SegmentationResult(
        {
            'masks': [(seg_map == i).view(np.uint8) for i in ids],
            'labels': [CLASSES[i] for i in ids],
            'scores': [0.5 + i / 10 for i in ids],
            'seg_map': seg_map,
            **content,
        },
        CLASSES,
        palette_for(CLASSES),
    )


@pytest.fixture
def seg_map():
    """Sky above road, on which there are a car in two parts and a pixel that is no class."""
    seg_map = np.zeros((40, 60), np.uint8)
    seg_map[20:] = 1
    seg_map[25:30, 10:20] = 2
    seg_map[35, 50] = 2
    seg_map[39, 59] = VOID
    return seg_map


@pytest.fixture
def result(seg_map, picture):
    return result_of(seg_map, image=picture)


@pytest.fixture
def bare(seg_map):
    """A result whose picture is not at hand."""
    return result_of(seg_map)


@pytest.fixture(scope='module')
def tiny(tiny_model_dir):
    return pipeline(Tasks.image_segmentation, str(tiny_model_dir), device='cpu', engine='torch')


@pytest.fixture
def file(picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / 'photo.png')
    return tmp_path / 'photo.png'


class TestTheDict:
    def test_it_is_the_plain_one(self, result):
        plain = dict(result)
        assert result == plain and plain == result and isinstance(result, dict) and type(plain) is dict
        assert repr(result) == repr(plain) and str(result) == str(plain) and f'{result}' == f'{plain}'
        assert list(result) == ['masks', 'labels', 'scores', 'seg_map', 'image'] and len(result) == 5
        assert {**result} == plain and type(result.copy()) is dict

    @pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickle_keeps_everything(self, result, protocol):
        self.check(pickle.loads(pickle.dumps(result, protocol)), result)

    @pytest.mark.parametrize('copied', [copy.copy, copy.deepcopy])
    def test_copies_keep_everything(self, result, copied):
        self.check(copied(result), result)

    @staticmethod
    def check(other, result):
        assert type(other) is SegmentationResult and list(other) == list(result)
        assert other['labels'] == result['labels'] and other['scores'] == result['scores']
        assert np.array_equal(other['seg_map'], result['seg_map'])
        assert all(map(np.array_equal, other['masks'], result['masks']))
        assert other.classes == result.classes and other.source == result.source
        assert np.array_equal(other.plot(), result.plot()) and other.to_dicts() == result.to_dicts()

    def test_a_deep_copy_shares_no_pixels(self, result):
        other = copy.deepcopy(result)
        other['seg_map'][:] = 3
        assert result['seg_map'].max() == VOID

    def test_the_pipeline_returns_it_for_one_for_many_and_for_what_failed(self, tiny, picture, file):
        one = tiny(picture)
        several = tiny([picture, b'no image', str(file)])
        streamed = list(tiny(iter([file])))
        assert {type(each) for each in (one, *several, *streamed)} == {SegmentationResult}
        assert one.classes == tiny.classes and np.array_equal(one.palette, tiny.palette)
        assert one.source is None and several[1].source is None
        assert several[2].source == streamed[0].source == str(file)
        assert tiny(str(file), with_image=True).source == str(file)
        assert tiny(str(file), mode='slide').source == str(file)

    def test_modelscope_takes_it_as_the_dict_it_is(self, tiny, picture):
        information = importlib.import_module('modelscope.utils.input_output')
        result = tiny(picture)
        convert = information.pipeline_output_to_service_base64_output
        assert convert('image-segmentation', result) == convert('image-segmentation', dict(result))
        tiny._check_output(result)
        assert json.loads(json.dumps(convert('image-segmentation', result)))['labels'] == result['labels']

    def test_it_costs_next_to_no_time_and_no_memory(self, tiny, picture):
        content = dict(tiny(picture))

        def seconds(make):
            start = time.perf_counter()
            for _ in range(100):
                make()
            return (time.perf_counter() - start) / 100

        more = [
            seconds(lambda: tiny._with_facts(content, 'photo.png')) - seconds(lambda: dict(content)) for _ in range(5)
        ]
        assert min(more) < 0.2e-3
        one, other = tiny(picture), tiny(picture)
        assert one._classes is other._classes and one._palette is other._palette
        held = sum(value.nbytes for value in vars(one).values() if isinstance(value, np.ndarray))
        assert held == 768, 'of the colors, which all results share'


class TestConfidence:
    @pytest.mark.parametrize('mode', ['whole', 'slide'])
    def test_maps_are_there_on_request_and_change_nothing_else(self, tiny, picture, mode):
        plain = tiny(picture, mode=mode)
        result = tiny([picture], mode=mode, confidence=True)[0]
        assert set(result) - set(plain) == {'confidence', 'margin'} and result['scores'] == plain['scores']
        assert np.array_equal(result['seg_map'], plain['seg_map'])
        for name in ('confidence', 'margin'):
            values = result[name]
            assert values.shape == (40, 60) and values.dtype == np.float16 and 0 <= values.min() <= values.max() <= 1
        for mask, score in zip(result['masks'], result['scores'], strict=True):
            assert result['confidence'][mask == 1].mean(dtype=np.float64) == pytest.approx(score, abs=3e-4)
        assert (result['margin'] <= result['confidence']).all()

    def test_no_logits_are_kept(self, tiny, picture):
        result = tiny(picture, confidence=True)
        kept = [*result.values(), *vars(result).values()]
        assert not any(isinstance(value, torch.Tensor) for value in kept)
        assert len(pickle.dumps(result)) < picture[..., 0].size * (len(result['masks']) + 5) + 20_000


class TestPlot:
    def test_without_a_legend_it_has_the_picture_s_size_and_else_is_wider(self, result, picture):
        bare, whole = result.plot(legend=False), result.plot()
        assert bare.shape == picture.shape and bare.dtype == np.uint8
        assert np.array_equal(whole[:40, :60], bare) and whole.shape[1] > 60

    def test_opacity_goes_from_the_picture_to_the_colors(self, result, picture):
        plain = {'legend': False, 'outline': False}
        named = result['seg_map'] != VOID
        assert np.array_equal(result.plot(opacity=0, **plain), picture)
        assert np.array_equal(result.plot(opacity=1, **plain)[named], result.palette[result['seg_map']][named])
        half = result.plot(opacity=0.5, **plain).astype(float)
        expected = (picture[named].astype(float) + result.palette[result['seg_map']][named]) / 2
        assert abs(half[named] - expected).max() <= 0.5

    def test_names_stand_on_segments_on_request(self):
        picture, seg_map = np.full((120, 160, 3), 90, np.uint8), np.zeros((120, 160), np.uint8)
        seg_map[60:] = 2
        large = result_of(seg_map, image=picture)
        plain, named = large.plot(legend=False), large.plot(legend=False, names=True)
        assert (plain[:60] != named[:60]).any() and (plain[60:] != named[60:]).any()
        one = large.plot(legend=False, names=True, classes=CLASSES[2])
        assert np.array_equal(one[:59], picture[:59]) and np.array_equal(one[61:], named[61:])

    def test_names_are_of_the_language_asked_for(self, result):
        english, chinese = result.plot(language='en'), result.plot(language='zh')
        assert np.array_equal(result.plot(), english) and english.shape[0] == chinese.shape[0]
        assert english.shape != chinese.shape or (english != chinese).any() or not fonts._face_for('汽车道路')
        with pytest.raises(ArgumentError, match="language='xx'"):
            result.plot(language='xx')

    def test_what_is_no_segment_stays_as_photographed(self, result, picture):
        assert np.array_equal(result.plot(legend=False, outline=False)[39, 59], picture[39, 59])

    def test_the_outline_runs_between_segments(self, result):
        lines = (result.plot(legend=False) != result.plot(legend=False, outline=False)).any(-1)
        assert lines[20].all() and not lines[:20].any() and lines[25, 10:20].all() and not lines[27, 12:19].any()

    def test_chosen_classes_alone_are_colored_and_outlined(self, result, picture):
        car = result['seg_map'] == 2
        drawn = result.plot(classes=['car'], legend=False)
        assert np.array_equal(drawn, result.plot(classes='car', legend=False))
        assert np.array_equal(drawn[:25], picture[:25]), 'no line between sky and road'
        assert (drawn[car] != picture[car]).any(-1).all()
        assert result.plot(classes='car').shape[1] < result.plot().shape[1] + 1
        assert np.array_equal(result.plot(classes='person', legend=False), picture), 'known, and not there'

    def test_large_pictures_are_drawn_smaller_on_request(self, result):
        assert result.plot(legend=False, max_side=30).shape == (20, 30, 3)
        assert result.plot(legend=False, max_side=100).shape == (40, 60, 3)

    @pytest.mark.parametrize(
        'wrong, message',
        [
            ({'classes': 'cra'}, "'cra' is none of the 4 classes of the model; did you mean 'car'?"),
            ({'classes': ['sky', 'zebra']}, "'zebra' is none of the 4 classes of the model; result.classes lists them"),
            ({'opacity': 55}, 'opacity is 55; accepted: 0'),
            ({'opacity': float('nan')}, 'opacity is nan'),
            ({'max_side': 0}, 'max_side is 0'),
        ],
    )
    def test_nonsense_is_refused(self, result, wrong, message):
        with pytest.raises(ArgumentError, match=re.escape(message)):
            result.plot(**wrong)


class TestThePicture:
    def test_it_is_read_again_from_its_path(self, tiny, picture, file, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = tiny('photo.png')
        assert 'image' not in result
        monkeypatch.chdir('/')
        assert np.array_equal(result.plot(opacity=0, outline=False, legend=False), picture)

    def test_it_is_given(self, bare, picture):
        assert np.array_equal(bare.plot(picture, opacity=0, outline=False, legend=False), picture)
        given = bare.plot(Image.fromarray(picture), opacity=0, outline=False, legend=False)
        assert np.array_equal(given, picture)

    def test_one_that_is_given_goes_before_the_result_s_own(self, result, picture):
        drawn = result.plot(255 - picture, opacity=0, outline=False, legend=False)
        assert np.array_equal(drawn, 255 - picture)

    def test_it_is_missed_in_words(self, bare, tiny, file):
        with pytest.raises(ResultError, match=r'not given as a path: pass it \(image=…\), or .*with_image=True'):
            bare.plot()
        result = tiny(file)
        file.unlink()
        with pytest.raises(ResultError, match=r'cannot be read again \(.*photo.png.*\): pass it \(image=…\)'):
            result.plot()

    def test_one_of_another_size_is_refused(self, bare, picture, tiny, file):
        with pytest.raises(ResultError, match='the image given has 60×39 pixels and the result 60×40'):
            bare.plot(picture[1:])
        result = tiny(file)
        for size in ((59, 40), (200, 200)):
            Image.new('RGB', size).save(file)
            with pytest.raises(ResultError, match='photo.png'):
                result.plot()

    def test_urls_and_data_are_not_kept_as_paths(self, tiny, picture):
        import base64

        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, 'PNG')
        url = 'data:image/png;base64,' + base64.b64encode(buffer.getvalue()).decode()
        assert tiny(url).source is None
        (failed,) = tiny(['http://127.0.0.1:9/photo.png'])
        assert failed.source is None and 'error' in failed


class TestSave:
    @pytest.mark.parametrize(
        'suffix, lossy', [('png', 0), ('bmp', 0), ('tif', 0), ('jpg', 20), ('JPEG', 20), ('webp', 20)]
    )
    def test_the_suffix_says_the_format(self, result, tmp_path, suffix, lossy):
        path = result.save(tmp_path / 'new' / f'a.{suffix}')
        assert path == tmp_path / 'new' / f'a.{suffix}'
        written = np.asarray(Image.open(path).convert('RGB')).astype(int)
        assert abs(written - result.plot()).mean() <= lossy and written.shape == result.plot().shape

    def test_it_takes_what_plot_takes(self, bare, picture, tmp_path):
        path = bare.save(str(tmp_path / 'a.png'), image=picture, classes='car', legend=False)
        assert np.array_equal(np.asarray(Image.open(path)), bare.plot(picture, classes='car', legend=False))

    def test_label_maps_keep_the_ids_and_need_no_picture(self, bare, tmp_path):
        path = bare.save(tmp_path / 'a.png', content='labels')
        written = Image.open(path)
        assert written.mode == 'P' and np.array_equal(np.asarray(written), bare['seg_map'])
        assert np.array_equal(np.asarray(written.convert('RGB')), bare.palette[bare['seg_map']])
        with pytest.raises(ArgumentError, match='a label map is kept; accepted: a name that ends in .png, .bmp'):
            bare.save(tmp_path / 'a.jpg', content='labels')

    def test_nothing_is_replaced_unasked(self, result, tmp_path):
        path = tmp_path / 'a.png'
        path.write_text('mine')
        with pytest.raises(FileThereError, match='a.png: the file is there; pass overwrite=True') as caught:
            result.save(path)
        assert path.read_text() == 'mine' and isinstance(caught.value, (SegformerError, FileExistsError))
        result.save(path, overwrite=True)
        assert Image.open(path).format == 'PNG' and list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize('name', ['a', 'a.gif', 'a.png.txt'])
    def test_other_suffixes_are_refused(self, result, tmp_path, name):
        with pytest.raises(ArgumentError, match='the suffix says the format; accepted: a name that ends in .png'):
            result.save(tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_a_label_map_is_not_drawn(self, bare, tmp_path):
        with pytest.raises(ArgumentError, match="opacity, legend: for content='plot'"):
            bare.save(tmp_path / 'a.png', content='labels', opacity=0.3, legend=False)

    def test_what_a_format_cannot_hold_is_said(self, tmp_path):
        wide = result_of(np.zeros((1, 20000), np.uint8), image=np.zeros((1, 20000, 3), np.uint8))
        with pytest.raises(ArgumentError, match='20000×1 pixels cannot be written as WEBP'):
            wide.save(tmp_path / 'a.webp', legend=False)
        assert not list(tmp_path.iterdir())


class TestShow:
    def test_notebooks_get_a_png(self, result):
        shown = np.asarray(Image.open(io.BytesIO(result._repr_png_())))
        assert np.array_equal(shown, result.plot(max_side=1024))

    def test_without_a_picture_they_get_the_colors(self, bare):
        shown = np.asarray(Image.open(io.BytesIO(bare._repr_png_())))
        assert np.array_equal(shown[5, 5], bare.palette[0]) and np.array_equal(shown[39, 20], bare.palette[1])

    def test_an_entry_without_a_result_is_shown_as_text(self, tiny):
        (failed,) = tiny([b'no image'])
        assert failed._repr_png_() is None

    def test_what_only_some_need_is_not_imported(self):
        """In a process of its own: the viewer of pictures brings IPython where it is installed."""
        script = """
            import sys
            from ms_segformer.results import SegmentationResult
            import numpy as np
            seg_map = np.zeros((4, 4), np.uint8)
            content = {'masks': [], 'labels': ['sky'], 'scores': [1.0], 'seg_map': seg_map}
            result = SegmentationResult(content, ['sky'])
            result.to_json(), result.to_coco('a'), result._repr_png_()
            late = 'pandas', 'supervision', 'matplotlib', 'IPython', 'PIL.ImageShow', 'torch', 'modelscope'
            print(sorted(set(late) & set(sys.modules)))
        """
        done = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ('[]\n', '')

    def test_a_viewer_is_opened_or_missed_in_words(self, result, monkeypatch):
        shown = []
        monkeypatch.setattr(ImageShow, 'show', lambda image: not shown.append(np.asarray(image)))
        result.show(legend=False)
        assert np.array_equal(shown[0], result.plot(legend=False))
        monkeypatch.setattr(ImageShow, 'show', lambda image: False)
        with pytest.raises(ResultError, match=r"no viewer .* result.save\('result.png'\)"):
            result.show()

    def test_a_notebook_shows_it_itself(self, result, monkeypatch):
        shown = []
        kernel = types.SimpleNamespace(kernel=object())
        display = types.SimpleNamespace(display=shown.append)
        notebook = types.SimpleNamespace(get_ipython=lambda: kernel, display=display)
        monkeypatch.setitem(sys.modules, 'IPython', notebook)
        monkeypatch.setattr(ImageShow, 'show', lambda image: pytest.fail('a viewer'))
        result.show()
        assert np.array_equal(np.asarray(shown[0]), result.plot())


class TestTables:
    def test_dicts_say_what_is_there_largest_first(self, result):
        sky, road, car = result.to_dicts()
        assert sky == {'id': 0, 'label': 'sky', 'score': 0.5, 'pixels': 1200, 'share': 0.5, 'box': [0, 0, 60, 20]}
        assert road['label'] == 'road' and road['pixels'] == 1148 and road['box'] == [0, 20, 60, 20]
        assert car == {'id': 2, 'label': 'car', 'score': 0.7, 'pixels': 51, 'share': 0.02125, 'box': [10, 25, 41, 11]}
        assert json.loads(json.dumps(result.to_dicts())) == result.to_dicts()

    def test_boxes_of_maps_of_any_form(self):
        random = np.random.default_rng(1)
        for shape in ((1, 1), (1, 300), (300, 1), (1500, 900)):
            seg_map = random.integers(0, 4, shape, np.uint8) * (random.random(shape) < 0.01)
            for row in result_of(seg_map).to_dicts():
                y, x = np.nonzero(seg_map == row['id'])
                assert row['box'] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]

    def test_json_has_the_masks_as_run_lengths(self, result):
        content = json.loads(result.to_json())
        assert {key: content[key] for key in ('image', 'height', 'width')} == {'image': None, 'height': 40, 'width': 60}
        for segment, row in zip(content['segments'], result.to_dicts(), strict=True):
            assert np.array_equal(coco.decode(segment.pop('mask')), result['seg_map'] == row['id'])
            assert segment == row

    def test_json_is_named_by_the_file_or_as_said(self, tiny, file):
        result = tiny(file)
        assert json.loads(result.to_json())['image'] == 'photo.png'
        assert json.loads(result.to_json('\u8857.png'))['image'] == '\u8857.png' and '\u8857' in result.to_json(
            '\u8857.png'
        )
        assert json.loads(result.to_json('\udcff.png').encode())['image'] == '\udcff.png', 'a name that is no text'

    def test_pandas_has_the_same_rows(self, result):
        pytest.importorskip('pandas')
        table = result.to_pandas()
        assert list(table.columns) == ['id', 'label', 'score', 'pixels', 'share', 'left', 'top', 'width', 'height']
        assert table['label'].tolist() == ['sky', 'road', 'car']
        assert table.iloc[2].tolist() == [2, 'car', 0.7, 51, 0.02125, 10, 25, 41, 11]
        assert result.only('person').to_pandas().columns.tolist() == table.columns.tolist()

    def test_pandas_is_missed_in_words(self, result, monkeypatch):
        monkeypatch.setitem(sys.modules, 'pandas', None)
        with pytest.raises(ResultError, match=r'a table needs pandas .*`pip install pandas`, or to_dicts\(\)'):
            result.to_pandas()


class TestOthersForms:
    def test_coco_s_own_reader_gives_the_label_map_back(self, result, tmp_path):
        (tmp_path / 'a.json').write_text(json.dumps(result.to_coco('photo.jpg')), encoding='utf-8')
        read = COCO(tmp_path / 'a.json')
        assert read.loadImgs(1)[0] == {'id': 1, 'file_name': 'photo.jpg', 'width': 60, 'height': 40}
        seg_map = np.full((40, 60), VOID, np.uint8)
        for annotation in read.loadAnns(read.getAnnIds(1)):
            assert read.loadCats(annotation['category_id'])[0]['name'] == CLASSES[annotation['category_id'] - 1]
            seg_map[read.annToMask(annotation) == 1] = annotation['category_id'] - 1
        assert np.array_equal(seg_map, result['seg_map'])

    def test_coco_has_polygons_of_the_parts_on_request(self, result):
        def parts(**options):
            found = result.to_coco('a', regions='polygons', **options)['annotations']
            return [each for each in found if each['category_id'] == 3]

        assert sorted(each['area'] for each in parts()) == [1, 50] and len(parts(min_area=2)) == 1
        assert parts(min_area=2, simplify=0)[0]['bbox'] == [10, 25, 10, 5]

    def test_one_coco_document_for_many(self, tiny, picture, file):
        results = tiny([file, b'no image', file])
        document = coco_of(results, ['a.png', 'b.png', 'c.png'])
        assert [image['file_name'] for image in document['images']] == ['a.png', 'c.png']
        assert [each['id'] for each in document['annotations']] == list(range(1, len(document['annotations']) + 1))
        assert {each['image_id'] for each in document['annotations']} == {1, 2}
        assert len(document['categories']) == len(tiny.classes)
        assert [image['file_name'] for image in coco_of(iter(results))['images']] == ['photo.png'] * 2
        assert coco_of([])['images'] == []

    def test_images_of_one_name_in_two_folders_are_told_apart(self, bare, tmp_path):
        files = [tmp_path / name for name in ('a/photo.png', 'b/photo.png')]
        results = [SegmentationResult(bare, CLASSES, source=str(file)) for file in files]
        assert [image['file_name'] for image in coco_of(results)['images']] == ['a/photo.png', 'b/photo.png']
        assert coco_of(results[:1])['images'][0]['file_name'] == 'photo.png'

    def test_results_of_a_generator_are_not_kept(self, seg_map):
        alive = []

        def coming():
            for _ in range(20):
                result = result_of(seg_map.copy())
                alive.append(weakref.ref(result['seg_map']))
                yield result
                del result
                assert sum(each() is not None for each in alive) <= 3

        assert len(coco_of(coming(), map(str, range(20)))['images']) == 20
        for names, said in ((19, '19 names for more results'), (21, '21 names for 20 results')):
            with pytest.raises(ArgumentError, match=said):
                coco_of(coming(), map(str, range(names)))

    @pytest.mark.parametrize(
        'wrong',
        [{'simplify': -1}, {'simplify': math.nan}, {'simplify': math.inf}, {'simplify': '1'}, {'min_area': -1}]
        + [{'min_area': 1.5}, {'min_area': None}],
    )
    def test_numbers_of_polygons_out_of_range_are_refused(self, result, wrong):
        ((name, value),) = wrong.items()
        with pytest.raises(ArgumentError, match=re.escape(f'{name} is {value!r}; accepted:')):
            result.to_coco('a', regions='polygons', **wrong)

    def test_what_coco_lacks_is_said(self, result, tiny, picture):
        with pytest.raises(ResultError, match='it has no name: pass one'):
            result.to_coco()
        with pytest.raises(ArgumentError, match="regions is 'masks'; accepted: 'rle' or 'polygons'"):
            result.to_coco('a', regions='masks')
        with pytest.raises(ArgumentError, match=r'was given one; its own method is to_coco\(\)'):
            coco_of(result, ['a'])
        with pytest.raises(ArgumentError, match='1 names for 2 results'):
            coco_of([result, result], ['a'])
        with pytest.raises(ArgumentError, match='models with different classes'):
            coco_of([result, tiny(picture)], ['a', 'b'])

    def test_supervision_takes_it(self, result):
        supervision = pytest.importorskip('supervision', reason='needs supervision: pip install supervision')
        found = result.to_supervision()
        assert isinstance(found, supervision.Detections) and len(found) == 3
        assert found.data['class_name'].tolist() == ['sky', 'road', 'car'] and found.class_id.tolist() == [0, 1, 2]
        assert np.allclose(found.confidence, [0.5, 0.6, 0.7]) and found.xyxy[2].tolist() == [10, 25, 51, 36]
        assert np.array_equal(found.mask[2], result['seg_map'] == 2)
        assert found.area.tolist() == [1200, 1148, 51]
        drawn = supervision.MaskAnnotator().annotate(result['image'].copy(), found)
        assert drawn.shape == result['image'].shape and (drawn != result['image']).any()
        assert len(result.only('person').to_supervision()) == 0

    def test_supervision_gets_arrays_and_is_missed_in_words(self, result, monkeypatch):
        given = types.SimpleNamespace(Detections=lambda **content: content)
        monkeypatch.setitem(sys.modules, 'supervision', given)
        found = result.to_supervision()
        assert found['xyxy'][2].tolist() == [10, 25, 51, 36] and found['mask'].shape == (3, 40, 60)
        assert result.only('person').to_supervision()['mask'].shape == (0, 40, 60)
        monkeypatch.setitem(sys.modules, 'supervision', None)
        with pytest.raises(ResultError, match='supervision is needed .*pip install supervision'):
            result.to_supervision()


class TestOnly:
    def test_it_keeps_what_is_named(self, result):
        chosen = result.only('car', 'sky')
        assert chosen['labels'] == ['car', 'sky'] and chosen['scores'] == [0.7, 0.5]
        assert np.array_equal(chosen['masks'][0], result['seg_map'] == 2)
        assert set(np.unique(chosen['seg_map'])) == {0, 2, 255}
        assert np.array_equal(chosen['seg_map'] == 2, result['seg_map'] == 2)
        assert chosen['image'] is result['image'] and chosen.classes == result.classes
        assert [row['label'] for row in chosen.to_dicts()] == ['sky', 'car']
        assert result['labels'] == ['car', 'road', 'sky'], 'the result itself is as before'

    def test_the_rest_stays_as_photographed(self, result):
        assert np.array_equal(result.only('car').plot(), result.plot(classes='car'))

    def test_it_works_without_masks_and_of_a_choice(self, result):
        result['masks'] = []
        chosen = result.only('car', 'sky').only('car', 'road')
        assert chosen['labels'] == ['car'] and chosen['masks'] == []

    def test_what_is_not_in_the_image_gives_nothing(self, result):
        chosen = result.only('person')
        assert chosen['labels'] == chosen['scores'] == chosen['masks'] == chosen.to_dicts() == []
        assert result.only()['labels'] == []

    def test_an_unknown_name_is_refused_with_near_ones(self, result):
        with pytest.raises(
            ArgumentError, match=r"'peson' is none of the 4 classes of the model; did you mean 'person'"
        ):
            result.only('sky', 'peson')


class TestCutout:
    def test_the_class_is_opaque_and_the_rest_empty(self, result, picture):
        cut = result.cutout('car')
        car = result['seg_map'] == 2
        assert cut.shape == (40, 60, 4) and cut.dtype == np.uint8
        assert np.array_equal(cut[car][:, :3], picture[car]) and (cut[car][:, 3] == 255).all() and not cut[~car].any()

    def test_it_is_cut_to_the_class(self, result):
        left, top, width, height = 10, 25, 41, 11
        whole = result.cutout('car')
        assert np.array_equal(result.cutout('car', crop=True), whole[top : top + height, left : left + width])

    def test_the_picture_is_given(self, bare, picture):
        assert np.array_equal(bare.cutout('sky', picture)[:20, :, :3], picture[:20])

    def test_what_is_not_there_is_said(self, result):
        with pytest.raises(ResultError, match="there is no 'person' in this image; it shows car, road, sky"):
            result.cutout('person')
        with pytest.raises(ArgumentError, match='none of the 4 classes'):
            result.cutout('dog')


@pytest.mark.parametrize(
    'use',
    [
        lambda result: result.plot(),
        lambda result: result.save('never.png'),
        lambda result: result.save('never.png', content='labels'),
        lambda result: result.show(),
        lambda result: result.to_dicts(),
        lambda result: result.to_pandas(),
        lambda result: result.to_json(),
        lambda result: result.to_coco(),
        lambda result: result.to_supervision(),
        lambda result: result.only('person'),
        lambda result: result.cutout('person'),
    ],
)
def test_an_image_without_a_result_says_why(tiny, picture, use):
    failed = tiny([picture, b'no image'])[1]
    with pytest.raises(ResultError, match='image 1 of the list has no result: .*8 bytes'):
        use(failed)


def test_segments_are_listed_as_before(result):
    assert [{**row, 'box': None} for row in segments(result, CLASSES)] == [
        {**row, 'box': None} for row in result.to_dicts()
    ]
