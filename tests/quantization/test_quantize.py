"""`quantize`: what it writes and refuses, that nothing of the user is lost, and how `precision=int8` runs it."""

import hashlib
import json
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hub.fixtures import hub, python  # noqa: F401

import ms_segformer
from ms_segformer.cli import info
from ms_segformer.cli.main import main
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.engines import EngineError, create_engine
from ms_segformer.engines.int8 import FILES, FOLDERS, engines_with_int8, read_record
from ms_segformer.errors import ArgumentError
from ms_segformer.metainfo import photographs
from ms_segformer.models.checkpoint import find_checkpoint
from ms_segformer.preprocessors.image import ImageError
from ms_segformer.quantization import quantize as making
from ms_segformer.quantization.nncf_int8 import QuantizationError

pytestmark = pytest.mark.skipif(
    not find_spec('nncf') or not find_spec('openvino'),
    reason="needs NNCF and OpenVINO: pip install 'ms-segformer[quantize]'",
)
needs_onnx = pytest.mark.skipif(
    not find_spec('onnx') or not find_spec('onnxruntime'), reason="needs ONNX Runtime: pip install 'ms-segformer[onnx]'"
)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Six crops of a photograph, of several sizes."""
    folder = tmp_path_factory.mktemp('photos')
    image = cv2.imread(str(photographs()[0]))
    for i, (height, width) in enumerate([(96, 128), (128, 96), (100, 131), (96, 128), (90, 160), (96, 128)]):
        cv2.imwrite(str(folder / f'{i}.png'), image[40 * i : 40 * i + height, 60 * i : 60 * i + width])
    return folder


@pytest.fixture(scope='module')
def model_dir(tiny_model_dir, tmp_path_factory):
    """The tiny model, with a small test size, so that each image costs little."""
    folder = tmp_path_factory.mktemp('model') / 'tiny'
    shutil.copytree(tiny_model_dir, folder)
    path = folder / 'configuration.json'
    path.write_text(path.read_text().replace('512', '64'))
    return folder


@pytest.fixture(scope='module')
def quantized(model_dir, photos, tmp_path_factory):
    output = tmp_path_factory.mktemp('output') / 'quantized'
    before = contents(model_dir)
    ms_segformer.quantize(model_dir, photos, output)
    assert contents(model_dir) == before
    return output


@pytest.fixture
def copied(quantized, tmp_path):
    return Path(shutil.copytree(quantized, tmp_path / 'copied'))


def contents(folder):
    """Relative path to digest of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).rglob('*')
        if path.is_file()
    }


def logits(folder, precision='float32', **options):
    model = ms_segformer.load(folder, device='cpu').model
    image = torch.randn(1, 3, 75, 64, generator=torch.Generator().manual_seed(0))
    return create_engine(model, precision=precision, **options)(image)


def difference(exact, rounded):
    """Of two tensors, relative to the spread of the first."""
    return float((exact - rounded).square().mean().sqrt() / exact.std())


def test_a_complete_model_directory_is_written_with_the_network_in_a_folder_of_its_own(quantized, model_dir):
    files = contents(quantized)
    own = {f'openvino_int8/{name}' for name in (*FILES['openvino'], 'record.json')}
    assert {name: digest for name, digest in files.items() if name not in own} == contents(model_dir)
    assert own <= set(files)
    assert find_checkpoint(quantized).name == find_checkpoint(model_dir).name
    assert engines_with_int8(quantized) == ['openvino'] and engines_with_int8(model_dir) == []


def test_the_record_says_how_it_was_made_and_how_close_it_is(quantized):
    record = read_record(quantized, 'openvino')
    assert len(record.calibration) == 5 and record.held_back == ['4.png']
    assert record.agreement > 0.5 and 0 < record.error < 0.4 and record.pixels == 90 * 160 and record.miou is None
    assert {'ms-segformer', 'nncf', 'openvino'} <= set(record.versions)
    text = (quantized / 'openvino_int8' / 'record.json').read_text()
    assert json.loads(text) == record.to_dict() and str(quantized.parent) not in text


def test_images_of_any_shape_are_segmented_much_as_in_float32(quantized):
    float32, int8 = (ms_segformer.load(quantized, device='cpu', precision=each) for each in ('float32', 'int8'))
    assert (int8.prepare_model().name, int8.prepare_model().precision) == ('openvino', 'int8')
    image = cv2.imread(str(photographs()[0]))
    for height, width in ((64, 64), (37, 201), (300, 90), (64, 64)):
        crop = np.ascontiguousarray(image[:height, :width])
        prepared = int8.preprocessor(crop)['img']
        assert 0 < difference(*(each.prepare_model()(prepared) for each in (float32, int8))) < 0.4
        expected, found = float32(crop), int8(crop)
        assert found['seg_map'].shape == (height, width)
        assert (expected['seg_map'] == found['seg_map']).mean() > 0.5  # of 172 classes, from random weights
    several = [np.ascontiguousarray(image[:64, : 64 + i]) for i in range(3)]
    for one, of_many in zip(map(int8, several), int8(several, batch_size=2), strict=True):
        np.testing.assert_array_equal(one['seg_map'], of_many['seg_map'])
    windows = {'mode': 'slide', 'crop_size': 96, 'stride': 64, 'resize': False}
    slid = [each(np.ascontiguousarray(image[:200, :200]), **windows)['seg_map'] for each in (float32, int8)]
    assert (slid[0] == slid[1]).mean() > 0.5


def test_int8_is_not_float32_and_float32_is_as_before(quantized, model_dir):
    assert torch.equal(logits(quantized), logits(model_dir))
    assert not torch.equal(logits(quantized, 'int8'), logits(quantized))
    assert torch.equal(logits(quantized, 'int8', name='openvino'), logits(quantized, 'int8'))


@pytest.mark.parametrize(
    'engine, device, said',
    [
        (
            'auto',
            'cpu',
            r"no int8 network for engine 'openvino'; make one: ms-segformer quantize .*tiny --images FOLDER -o .*tiny$",
        ),
        ('onnxruntime', 'cpu', r'no int8 network.*--format onnx$'),
        ('torch', 'cpu', r"'torch' has no int8; use engine='auto', 'openvino' or 'onnxruntime'"),
        ('auto', 'meta', r"int8 runs on the CPU, device is 'meta'"),
    ],
)
def test_what_cannot_run_in_int8_names_the_way(model_dir, engine, device, said):
    model = ms_segformer.load(model_dir, device='cpu').model
    with pytest.raises(EngineError, match=said):
        create_engine(model, engine, 'int8', device)


def test_a_network_for_another_engine_is_mentioned(quantized):
    with pytest.raises(EngineError, match=r"there is one for engine 'openvino'"):
        logits(quantized, 'int8', name='onnxruntime')


def test_a_model_without_a_directory_says_so(quantized):
    from ms_segformer.config.reader import read_configuration
    from ms_segformer.models.segformer import Segformer

    model = Segformer(**read_configuration(quantized).model_section)
    with pytest.raises(EngineError, match='opened from a directory, and this one was not'):
        create_engine(model, precision='int8')


def test_weights_that_changed_in_the_file_or_in_memory_are_refused(copied):
    model = ms_segformer.load(copied, device='cpu').model
    engine = create_engine(model, precision='int8')
    engine(torch.zeros(1, 3, 64, 64))
    with torch.no_grad():
        model.decode_head.conv_seg.bias.add_(1)
    with pytest.raises(EngineError, match=r'made from other weights .* ms-segformer quantize'):
        engine(torch.zeros(1, 3, 64, 64))
    from ms_segformer.models.checkpoint import save_checkpoint

    save_checkpoint(find_checkpoint(copied), model)
    with pytest.raises(EngineError, match='made from other weights'):
        logits(copied, 'int8')
    assert 'made from other weights' in info.model(str(copied))['int8, openvino']


@pytest.mark.parametrize(
    'name, content, said',
    [
        ('network.bin', b'', r'network\.bin is damaged: its SHA-256'),
        ('network.xml', None, r'openvino_int8 is incomplete'),
        ('record.json', b'{', r'record\.json cannot be read'),
        ('record.json', b'[]', r'not the record of an int8 network'),
        ('record.json', b'{"format": "ms-segformer int8 network, 1"}', r'record\.json is damaged'),
        ('record.json', b'{"format": "ms-segformer int8 network, 9"}', r'that this version'),
    ],
)
def test_a_damaged_network_is_refused_with_the_command(copied, name, content, said):
    path = copied / 'openvino_int8' / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=f'{said}.* anew: ms-segformer quantize'):
        logits(copied, 'int8')


@pytest.mark.parametrize(
    'key, value',
    [('files', []), ('files', {'network.xml': ''}), ('calibration', 5), ('agreement', 'x'), ('miou', {'a': 1})],
)
def test_a_record_of_other_values_is_refused(copied, key, value):
    path = copied / 'openvino_int8' / 'record.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(EngineError, match='record.json is damaged'):
        read_record(copied, 'openvino')
    assert 'is damaged' in info.model(str(copied))['int8, openvino']


def test_the_network_can_be_added_to_the_model_itself_and_is_replaced_only_when_asked(model_dir, photos, tmp_path):
    own = Path(shutil.copytree(model_dir, tmp_path / 'own'))
    ms_segformer.quantize(own, photos, own)
    before = contents(own)
    assert {name: before[name] for name in contents(model_dir)} == contents(model_dir)
    with pytest.raises(ArgumentError, match='is there already; pass overwrite'):
        ms_segformer.quantize(own, photos, own)
    assert contents(own) == before
    ms_segformer.quantize(own, photos, own, limit=3, overwrite=True)
    assert len(read_record(own, 'openvino').calibration) == 2
    assert sorted(path.name for path in own.iterdir()) == sorted({Path(name).parts[0] for name in before})


@pytest.mark.parametrize('what', ['a folder with a file', 'a file', 'the parent is a file'])
def test_what_stands_in_the_way_is_left_alone(model_dir, photos, tmp_path, what):
    output = tmp_path / 'there'
    if what == 'a folder with a file':
        output.mkdir()
        (output / 'mine.txt').write_text('mine')
    else:
        output.write_text('mine')
    before = contents(tmp_path)
    with pytest.raises((ArgumentError, OSError)):
        ms_segformer.quantize(model_dir, photos, output / 'below' if what == 'the parent is a file' else output)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    'error', [QuantizationError('no'), KeyboardInterrupt(), OSError(28, 'No space left on device')]
)
@pytest.mark.parametrize('inside', [False, True], ids=['new', 'in the model'])
def test_what_fails_leaves_nothing_behind(model_dir, photos, tmp_path, monkeypatch, error, inside):
    own = Path(shutil.copytree(model_dir, tmp_path / 'own'))
    before = contents(tmp_path)

    def fail(engine, model, inputs, folder):
        (folder / 'network.xml').write_text('half')
        raise error

    monkeypatch.setattr(making, 'write_int8', fail)
    with pytest.raises(type(error)):
        ms_segformer.quantize(own, photos, own if inside else tmp_path / 'output')
    assert contents(tmp_path) == before and [path.name for path in tmp_path.iterdir()] == ['own']
    assert sorted(path.name for path in own.iterdir()) == sorted(path.name for path in model_dir.iterdir())


def test_a_network_that_is_off_is_not_left_behind(model_dir, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(making, 'TOLERANCE', 1e-9)
    with pytest.raises(QuantizationError, match=r'differs from float32 by .* nothing was written'):
        ms_segformer.quantize(model_dir, photos, tmp_path / 'output')
    assert list(tmp_path.iterdir()) == []


def test_photographs_that_cannot_be_read_are_left_out(model_dir, photos, tmp_path, caplog):
    mixed = Path(shutil.copytree(photos, tmp_path / 'mixed'))
    (mixed / '0.png').write_bytes(b'no image')
    (mixed / 'notes.txt').write_text('no image either')
    record = ms_segformer.quantize(model_dir, mixed, tmp_path / 'output')
    assert len(record.calibration) == 4 and '0.png' not in record.calibration and '0.png' in caplog.text
    for path in mixed.glob('*.png'):
        path.write_bytes(b'no image')
    with pytest.raises(ImageError, match='0 of 6 photographs can be read; at least 2'):
        ms_segformer.quantize(model_dir, mixed, tmp_path / 'output2')


@pytest.mark.parametrize(
    'arguments, error, said',
    [
        ({'format': 'tflite'}, ArgumentError, "accepted: 'openvino' or 'onnx'"),
        ({'images': 'nowhere'}, FileNotFoundError, 'nowhere: no such folder'),
        ({'images': 'one'}, ArgumentError, 'has 1 images; at least 2'),
        ({'annotations': 'nowhere'}, FileNotFoundError, 'nowhere: no such folder'),
        ({'annotations': 'one'}, DatasetError, 'no label map for any of the 1 held-back'),
        ({'annotations': 'wrong'}, DatasetError, r'holds the values 200; the model has the classes 0-'),
        ({'annotations': 'small'}, DatasetError, r'is 3×2, the photograph 160×90'),
    ],
)
def test_mistakes_are_told_before_anything_is_made(model_dir, photos, tmp_path, monkeypatch, arguments, error, said):
    monkeypatch.chdir(tmp_path)
    for name, value, size in (('one', 0, None), ('wrong', 200, (160, 90)), ('small', 0, (3, 2))):
        Path(name).mkdir()
        file = Path(name, '0.png' if size is None else '4.png')
        width, height = size or (160, 90)
        cv2.imwrite(str(file), np.full((height, width), value, np.uint8))
    monkeypatch.setattr(making, 'write_int8', lambda *_: pytest.fail('it went on'))
    with pytest.raises(error, match=said):
        ms_segformer.quantize(**{'model': model_dir, 'images': photos, 'output': 'output', **arguments})
    assert not Path('output').exists()


def test_without_nncf_the_message_says_what_to_install(model_dir, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'nncf', None)
    with pytest.raises(QuantizationError, match=re.escape("pip install 'ms-segformer[quantize]'")):
        ms_segformer.quantize(model_dir, photos, tmp_path / 'output')


def test_label_maps_give_the_miou_before_and_after(model_dir, photos, tmp_path):
    segmenter = ms_segformer.load(model_dir, device='cpu', engine='torch')
    for path in photos.iterdir():
        cv2.imwrite(str(tmp_path / path.name), np.minimum(segmenter(str(path))['seg_map'], 170))
    record = ms_segformer.quantize(model_dir, photos, tmp_path / 'output', annotations=tmp_path)
    assert record.miou['images'] == 1 and record.miou['float32'] > 99 > record.miou['int8'] > 10
    assert re.search(r'mIoU \d+\.\d\d % in float32, \d+\.\d\d % in int8', record.summary())


@needs_onnx
def test_onnx_has_qdq_nodes_and_runs_in_onnx_runtime(copied, photos, capsys):
    import onnx

    assert main(['quantize', str(copied), '--images', str(photos), '--format', 'onnx', '-o', str(copied)]) == 0
    network = onnx.load(copied / FOLDERS['onnxruntime'] / 'network.onnx')
    assert {'QuantizeLinear', 'DequantizeLinear'} <= {node.op_type for node in network.graph.node}
    model = ms_segformer.load(copied, device='cpu').model
    exact, int8 = create_engine(model), create_engine(model, 'onnxruntime', 'int8')
    for shape in ((1, 3, 64, 64), (1, 3, 75, 64), (2, 3, 33, 100)):
        image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        assert 0 < difference(exact(image), int8(image)) < 0.4
    assert engines_with_int8(copied) == ['openvino', 'onnxruntime']


def test_on_the_command_line(model_dir, photos, tmp_path, capsys):
    output = str(tmp_path / 'quantized')
    assert main(['quantize', str(model_dir), '--images', str(photos), '-o', output, '--limit', '4']) == 0
    printed = capsys.readouterr()
    assert 'calibrated with 3 photographs' in printed.out and '--precision int8' in printed.out
    assert 'nncf' not in (printed.out + printed.err).lower()
    photo = str(photos / '0.png')
    words = ['predict', photo, '--model', output, '--precision', 'int8', '-o', str(tmp_path / 'results'), '--quiet']
    assert main(words) == 0
    assert any((tmp_path / 'results').rglob('*.json'))
    assert main(['predict', photo, '--model', str(model_dir), '--precision', 'int8', '-o', str(tmp_path / 'none')]) == 1
    assert 'ms-segformer quantize' in capsys.readouterr().err
    assert main(['info', output]) == 0
    assert 'int8, openvino: calibrated with 3 photographs' in capsys.readouterr().out
    assert main(['verify', output, '-o', str(tmp_path / 'verify.json')]) == 0
    assert '| int8 network, openvino | ok | calibrated with 3' in capsys.readouterr().out
    (Path(output) / 'openvino_int8' / 'network.bin').write_bytes(b'')
    assert main(['verify', output, '-o', str(tmp_path / 'verify.json')]) == 1
    assert '| int8 network, openvino | FAILED | ' in capsys.readouterr().out


def test_a_damaged_onnx_network_names_its_own_command(copied):
    (copied / 'onnx_int8').mkdir()
    (copied / 'onnx_int8' / 'record.json').write_text('{')
    with pytest.raises(EngineError, match=r'--format onnx --overwrite$'):
        logits(copied, 'int8', name='onnxruntime')


@pytest.mark.parametrize('how', ['empty', 'current', 'link'])
def test_an_empty_folder_is_filled(model_dir, photos, tmp_path, monkeypatch, how):
    (tmp_path / 'empty').mkdir()
    output = 'empty'
    if how == 'link':
        (tmp_path / 'link').symlink_to('empty')
        output = 'link'
    monkeypatch.chdir(tmp_path / 'empty' if how == 'current' else tmp_path)
    ms_segformer.quantize(model_dir, photos, '.' if how == 'current' else output)
    assert engines_with_int8(tmp_path / 'empty') == ['openvino']
    assert set(contents(model_dir)) < set(contents(tmp_path / 'empty'))
    assert not [path for path in (tmp_path / 'empty').iterdir() if path.name.startswith('.')]


def test_a_class_file_in_a_folder_below_and_files_that_are_links_are_taken_along(model_dir, photos, tmp_path):
    store = Path(shutil.copytree(model_dir, tmp_path / 'store'))
    configuration = json.loads((store / 'configuration.json').read_text())
    (store / 'lists').mkdir()
    (store / 'lists' / 'classes.txt').write_text('\n'.join(configuration['CLASSES']) + '\n')
    configuration['CLASSES'] = 'lists/classes.txt'
    (store / 'configuration.json').write_text(json.dumps(configuration))
    linked = tmp_path / 'linked'
    (linked / 'lists').mkdir(parents=True)
    for name in contents(store):
        (linked / name).symlink_to(Path(*['..'] * len(Path(name).parts), 'store', name))
    ms_segformer.quantize(linked, photos, tmp_path / 'output')
    assert (tmp_path / 'output' / 'lists' / 'classes.txt').is_file()
    ms_segformer.quantize(linked, photos, linked)
    assert len(ms_segformer.load(linked, device='cpu', precision='int8').classes) == 171


def test_label_maps_of_photographs_in_folders_lie_in_such_folders(model_dir, photos, tmp_path):
    for i, path in enumerate(sorted(photos.iterdir())):
        (tmp_path / 'images' / str(i)).mkdir(parents=True)
        shutil.copy(path, tmp_path / 'images' / str(i) / 'same.png')
        (tmp_path / 'labels' / str(i)).mkdir(parents=True)
        height, width = cv2.imread(str(path)).shape[:2]
        cv2.imwrite(str(tmp_path / 'labels' / str(i) / 'same.png'), np.full((height, width), i, np.uint8))
    record = ms_segformer.quantize(model_dir, tmp_path / 'images', tmp_path / 'output', annotations=tmp_path / 'labels')
    assert record.miou['images'] == 1


def test_photographs_beside_their_label_maps_are_told_apart(model_dir, photos, tmp_path):
    for path in photos.iterdir():
        image = cv2.imread(str(path))
        cv2.imwrite(str(tmp_path / f'{path.stem}.jpg'), image)
        cv2.imwrite(str(tmp_path / path.name), np.zeros(image.shape[:2], np.uint8))
    record = ms_segformer.quantize(model_dir, tmp_path, tmp_path / 'output', annotations=tmp_path)
    assert all(name.endswith('.jpg') for name in record.calibration + record.held_back)


@pytest.mark.skipif(sys.platform != 'linux', reason='names of files are texts elsewhere')
def test_a_name_that_is_not_utf8_is_written_down(model_dir, photos, tmp_path):
    mixed = Path(shutil.copytree(photos, tmp_path / 'mixed'))
    os.rename(mixed / '0.png', os.fsencode(mixed) + b'/x\xe9.png')
    ms_segformer.quantize(model_dir, mixed, tmp_path / 'output')
    assert os.fsdecode(b'x\xe9.png') in read_record(tmp_path / 'output', 'openvino').calibration


def test_results_of_a_network_that_was_calibrated_otherwise_are_not_passed_off(copied, photos, tmp_path, capsys):
    words = [
        'predict',
        str(photos / '0.png'),
        '--model',
        str(copied),
        '--precision',
        'int8',
        '-o',
        str(tmp_path / 'out'),
    ]
    assert main(words) == 0 and main(words) == 0
    assert 'skipped' in capsys.readouterr().err
    ms_segformer.quantize(copied, photos, copied, limit=5, overwrite=True)
    assert main(words) == 1
    assert 'int8_network' in capsys.readouterr().err


@pytest.mark.parametrize('limit', ['x', None, 2.5, 0, 1, -3, True])
def test_a_limit_is_a_number_of_two_or_more(model_dir, photos, tmp_path, limit):
    with pytest.raises(ArgumentError, match='limit is .* accepted: an integer of at least 2'):
        ms_segformer.quantize(model_dir, photos, tmp_path / 'output', limit=limit)


def test_what_progress_prints_is_seen(model_dir, photos, tmp_path, capsys):
    ms_segformer.quantize(model_dir, photos, tmp_path / 'output', progress=lambda *what: print(*what))
    printed = capsys.readouterr().out
    assert 'reading 6 6' in printed and 'calibrating 5 5' in printed and 'comparing 1 1' in printed
    assert 'nncf' not in printed.lower() and '━' not in printed


def test_an_engine_that_cannot_be_loaded_is_replaced_in_float32(model_dir, monkeypatch):
    from ms_segformer.engines import factory

    def fail(*_):
        raise EngineError('ONNX needs torch 2.1')

    made = factory._make
    monkeypatch.setattr(factory, '_make', lambda name, *rest: (made if name == 'torch' else fail)(name, *rest))
    with pytest.warns(RuntimeWarning, match='ONNX needs torch 2.1.*using torch instead'):
        assert create_engine(ms_segformer.load(model_dir, device='cpu').model, 'onnxruntime').name == 'torch'


@pytest.mark.parametrize('inside', [False, True], ids=['new', 'in the model'])
@pytest.mark.skipif(sys.platform == 'win32', reason='there are no locks')
def test_what_a_killed_run_has_left_is_removed_by_the_next(copied, photos, tmp_path, python, inside):  # noqa: F811
    output = copied if inside else tmp_path / 'output'
    code = f"""
        import os, signal, ms_segformer
        from ms_segformer.quantization import quantize
        def kill(engine, model, inputs, folder):
            (folder / 'network.xml').write_text('half')
            os.kill(os.getpid(), signal.SIGKILL)
        def replace(new, old):
            os.rename(old, new.parent / 'before')
            os.kill(os.getpid(), signal.SIGKILL)
        if {inside}:
            quantize._replace = replace
        else:
            quantize.write_int8 = kill
        ms_segformer.quantize({str(copied)!r}, {str(photos)!r}, {str(output)!r}, overwrite=True)
    """
    before = contents(copied)
    assert python.run(code=code, check=False).returncode == -9
    assert contents(tmp_path) != {f'copied/{name}': digest for name, digest in before.items()}
    ms_segformer.quantize(copied, photos, output, overwrite=True)
    left = [path for path in tmp_path.rglob('*') if path.name.startswith('.ms-segformer-tmp')]
    assert left == [] and engines_with_int8(output) == ['openvino']


def test_two_runs_do_not_write_the_same_folder(model_dir, photos, tmp_path, monkeypatch):
    def second(*_):
        ms_segformer.quantize(model_dir, photos, tmp_path / 'output')

    monkeypatch.setattr(making, 'write_int8', second)
    with pytest.raises(ArgumentError, match='another run is writing'):
        ms_segformer.quantize(model_dir, photos, tmp_path / 'output')
    assert not (tmp_path / 'output').exists()
