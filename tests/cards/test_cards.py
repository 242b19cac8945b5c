"""The code of the model cards, as printed, in a process of its own with ModelScope's real client.

The scripts beside this file are the prediction code and the training code of the card of
damo/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k and the fine-tuning code of its documentation, character
by character. Their hub is the loopback hub; the image they name by an https URL comes from it too, as a proxy, with a
certificate made for that host. The models have the published form and another size (143,508 parameters).
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from exported import save_exported
from hub.cards import CARDS, IMAGE_HOST, IMAGE_PATH, expected_labels, labels_in, photograph
from hub.coco_stuff import add_coco_stuff, make_pairs, training_files
from hub.fixtures import MODEL_ID, published_files
from hub.server import BY_PROXY


@pytest.fixture
def image(hub, python):
    """Serve a photograph under the URL of the prediction code; returns its bytes."""
    if shutil.which('openssl') is None:
        pytest.skip("needs the openssl command, for a certificate of the host in the card's URL")
    content = photograph()
    hub.add_file(IMAGE_PATH, content)
    hub.trust(IMAGE_HOST)
    python.extra = hub.environment(python.cache, proxy=True)
    return content


@pytest.mark.parametrize('way', ['one line above', 'ms-segformer run', 'autoload'])
def test_the_prediction_code_runs_with_and_then_without_the_hub(python, hub, image, tmp_path, way):
    arguments = prepare(way, python, tmp_path)
    first = python.run(*arguments)
    assert labels_in(first.stdout) == expected_labels(image)
    assert len(labels_in(first.stdout)) > 1
    assert hub.asked(f'CONNECT {IMAGE_HOST}') and hub.asked('pytorch_model.pt')
    assert python.pip() == []

    if BY_PROXY:
        return  # these releases ask the hub even for what is in the cache
    picture = tmp_path / 'picture.jpg'  # without a network the URL of the image cannot work; the model must
    picture.write_bytes(image)
    hub.stop()
    script = tmp_path / 'card_predict.py'
    script.write_text(
        (CARDS / 'card_predict.py').read_text().replace(f'https://{IMAGE_HOST}{IMAGE_PATH}', str(picture))
    )
    offline = python.run(*[script if str(argument).endswith('card_predict.py') else argument for argument in arguments])
    assert labels_in(offline.stdout) == labels_in(first.stdout)
    assert 'cannot be reached' in offline.stderr and python.pip() == []


def test_the_prediction_code_runs_a_b0_as_easycv_exports_it(python, hub, image, tmp_path):
    """The network of the card's size, its weights made up, as EasyCV exports it, under the published configuration."""
    from ms_segformer.config.jsonplus import load_json
    from ms_segformer.metainfo import VARIANTS, configuration_dir
    from ms_segformer.models.segformer import Segformer

    folder = tmp_path / 'b0'
    folder.mkdir()
    shutil.copy(configuration_dir() / VARIANTS['b0'].model_name / 'configuration.json', folder)
    torch.manual_seed(0)
    configuration = load_json(folder / 'configuration.json')
    model = Segformer(**configuration['model'])
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    save_exported(folder / 'pytorch_model.pt', model.state_dict(), configuration)
    hub.add_model(MODEL_ID, {path.name: path.read_bytes() for path in folder.iterdir()})
    done = python.run('-m', 'ms_segformer.cli.main', 'run', CARDS / 'card_predict.py')
    assert labels_in(done.stdout) == expected_labels(image, folder)
    assert 'set aside' not in done.stderr and python.pip() == []


def prepare(way, python, folder):
    """Return the arguments of Python that run the prediction code in one of the three ways to activate."""
    script = CARDS / 'card_predict.py'
    if way == 'ms-segformer run':
        return ['-m', 'ms_segformer.cli.main', 'run', script]
    if way == 'autoload':
        from hub.environments import environment_beside

        python.executable = environment_beside(folder / 'environment')
        python.run('-m', 'ms_segformer.cli.main', 'autoload', 'on')
        return [script]
    return ['-c', 'import ms_segformer, runpy, sys; runpy.run_path(sys.argv[1], run_name="__main__")', script]


def test_the_labels_are_those_of_the_original(python, hub, image, shared):
    """China's photograph through the card's code, against the label map EasyCV computed for it."""
    import numpy as np
    from modelscope.utils.config import Config

    content = (shared / 'oracle' / 'golden' / 'china.jpg').read_bytes()
    hub.add_file(IMAGE_PATH, content)
    printed = labels_in(python.run('-m', 'ms_segformer.cli.main', 'run', CARDS / 'card_predict.py').stdout)
    seg = np.load(shared / 'oracle' / 'golden' / 'tiny_goldens.npz')['china_seg']
    classes = Config.from_file(str(shared / 'oracle' / 'golden' / 'tiny_model' / 'configuration.json')).CLASSES
    assert printed == [classes[index] for index in sorted(np.unique(seg), reverse=True) if index < len(classes)]


@pytest.mark.forked_python
@pytest.mark.parametrize('real', [False, True], ids=['made', 'COCO-Stuff'])
def test_the_training_code_trains(python, hub, tmp_path, request, real):
    """Verbatim; the configuration on the hub asks for 2 epochs of smaller crops instead of 30."""
    pytest.importorskip('oss2', reason='MsDataset.load needs oss2: pip install ms-segformer[train]')
    folder = request.getfixturevalue('shared') / 'data' / 'cocostuff_sample' if real else make_pairs(tmp_path / 'pairs')
    add_coco_stuff(hub, folder)
    sizes = {'image_scale': (1024, 256), 'crop': (128, 128)} if real else {'image_scale': (64, 48), 'crop': (32, 32)}
    hub.add_model(MODEL_ID, training_files(published_files(), epochs=2, **sizes))
    python.extra['TMPDIR'] = str(tmp_path)
    done = python.run('-m', 'ms_segformer.cli.main', 'run', CARDS / 'card_train.py')
    written = {path.name for path in tmp_path.glob('tmp*/*')}
    assert {'epoch_1.pth', 'epoch_2.pth'} <= written, (written, done.stderr[-3000:])
    assert 'mIoU' in done.stdout + done.stderr + _logs(tmp_path)
    assert python.pip() == []


@pytest.mark.forked_python
def test_the_training_code_trains_on_a_configuration_as_easycv_s_converter_writes_it(python, hub, tmp_path):
    """It names `./data/coco_stuff164k/…`, which is nowhere: the data are those that `MsDataset` brings."""
    pytest.importorskip('oss2', reason='MsDataset.load needs oss2: pip install ms-segformer[train]')
    add_coco_stuff(hub, make_pairs(tmp_path / 'pairs'))
    files = training_files(published_files(), 1, (64, 48), (32, 32), data_root='./data/coco_stuff164k/')
    assert files['configuration.json'].count(b'"./data/coco_stuff164k/') == 6
    hub.add_model(MODEL_ID, files)
    python.extra['TMPDIR'] = str(tmp_path)
    done = python.run('-m', 'ms_segformer.cli.main', 'run', CARDS / 'card_train.py', cwd=tmp_path)
    said = [line for line in (done.stdout + done.stderr).splitlines() if 'taken from the data set in' in line]
    assert [name in line for line, name in zip(said, ('train2017', 'val2017'), strict=True)] == [True, True]
    assert {'epoch_1.pth'} <= {path.name for path in tmp_path.glob('tmp*/*')} and python.pip() == []


@pytest.mark.forked_python
@pytest.mark.parametrize('meta, epochs', [({}, 31), ({'epoch': 30, 'iter': 221790}, 1)], ids=['no epoch', 'epoch 30'])
def test_the_fine_tuning_code_trains(python, hub, tmp_path, meta, epochs):
    """Verbatim, at a learning rate of zero: 31 epochs, of which 30 are done where the published checkpoint says so."""
    pytest.importorskip('oss2', reason='MsDataset.load needs oss2: pip install ms-segformer[train]')
    from ms_segformer.models.checkpoint import read_checkpoint

    add_coco_stuff(hub, make_pairs(tmp_path / 'pairs', count=2))
    published, _ = read_checkpoint(Path(__file__).parents[1] / 'data' / 'tiny_model' / 'pytorch_model.pt')
    torch.save({'meta': meta, 'state_dict': published}, tmp_path / 'published.pt')
    files = {**published_files(), 'pytorch_model.pt': (tmp_path / 'published.pt').read_bytes()}
    hub.add_model(MODEL_ID, training_files(files, image_scale=(64, 48), crop=(32, 32)))
    python.extra['TMPDIR'] = str(tmp_path)
    done = python.run('-m', 'ms_segformer.cli.main', 'run', CARDS / 'card_finetune.py')
    assert 'pytorch_model.pt' in done.stdout
    (log,) = tmp_path.glob('tmp*/*.log.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({line['epoch'] for line in lines if line['mode'] == 'train'}) == epochs
    assert [line for line in lines if line['mode'] == 'eval' and 'evaluation/mIoU' in line and line['epoch'] == 31]
    trained, _ = read_checkpoint(log.parent / 'epoch_31.pth')
    parameters = [name for name in published if 'running' not in name and 'num_batches' not in name]
    assert all((published[name] == trained[name]).all() for name in parameters), 'a rate of zero moves no weight'
    assert ('training goes on with epoch 31 of 31' in done.stderr + done.stdout) == (epochs == 1)
    assert python.pip() == []


def _logs(folder):
    return ''.join(path.read_text() for path in folder.glob('tmp*/*.log*'))
