"""`ms-segformer verify`."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hub.server import BY_PROXY
from small_evaluation import evaluated, random_pairs, scale_to

from ms_segformer.cli import verify as command
from ms_segformer.cli.main import main
from ms_segformer.metainfo import VARIANTS, demo_model_dir
from ms_segformer.verification import score

pytestmark = pytest.mark.forked_python

IMAGES = 30
# The command with one measurement of the speed of each engine instead of three, which take a while with B5.
ONCE = 'import sys; from ms_segformer.cli import main, verify; verify.TIMED = 1; sys.exit(main.main(sys.argv[1:]))'
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Small pictures with label maps of COCO-Stuff classes."""
    return random_pairs(tmp_path_factory.mktemp('verify_data'), [str(i) for i in range(IMAGES)])


def outcomes(report):
    return {check['name']: check['outcome'] for check in report['checks']}


def test_a_directory_of_one_s_own(verify, model, data, tmp_path, capsys):
    code, report, printed = verify(model, '--data', data)
    assert code == 0 and set(outcomes(report).values()) == {'passed', 'skipped'}
    assert {file['name'] for file in report['files']} == {'configuration.json', 'pytorch_model.pt'}
    expected = evaluated(model, data, tmp_path)
    assert report['score']['mIoU'] == pytest.approx(100 * expected['mIoU'], abs=1e-9)
    assert report['score']['aAcc'] == pytest.approx(100 * expected['aAcc'], abs=1e-9)
    assert report['score']['IoU']['person'] == pytest.approx(100 * expected['IoU.person'], abs=1e-9)
    assert f'**mIoU {report["score"]["mIoU"]:.2f}, aAcc' in printed.out and '| strict load | ok |' in printed.out
    assert not (tmp_path / 'report.json.progress').exists()


def test_two_processes_count_the_same(verify, model, data):
    assert verify(model, '--data', data)[1]['score'] == verify(model, '--data', data, '--processes', 2)[1]['score']


def test_a_killed_run_goes_on(verify, model, data, tmp_path, capsys):
    """SIGKILL while the mIoU is measured; the second run counts the rest only, and comes to the same."""
    code = (
        'import sys\nfrom ms_segformer.verification import score\nscore.SECONDS = 0\n'
        'from ms_segformer.cli.main import main\nsys.exit(main(sys.argv[1:]))'
    )
    words = ['verify', str(model), '--data', str(data), '--device', 'cpu', '-o', str(tmp_path / 'report.json')]
    folder = tmp_path / 'report.json.progress'
    process = subprocess.Popen([sys.executable, '-c', code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and not list(folder.glob('[!.]*.npz')):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with np.load(next(folder.glob('[!.]*.npz'))) as part:
        counted = int(part['done'].sum())
    assert 0 < counted < IMAGES
    code, report, printed = verify(model, '--data', data)
    assert code == 0 and f'{counted} of {IMAGES} images were counted by an earlier run' in printed.err
    assert report['score']['mIoU'] == pytest.approx(100 * evaluated(model, data, tmp_path)['mIoU'], abs=1e-9)
    assert not folder.exists()


def test_a_process_that_fails_says_why_and_stops_the_others(verify, model, data, tmp_path):
    broken = tmp_path / 'broken'
    shutil.copytree(data, broken)
    (broken / 'images' / 'val' / '7.jpg').write_bytes(b'no picture')
    code, report, printed = verify(model, '--data', broken, '--processes', 2)
    assert code == 1, printed
    (said,) = [line for line in printed.err.splitlines() if line.startswith('error')]
    assert code == 1 and report is None and '7.jpg' in said and 'the same command goes on' in said
    assert 'Traceback' not in printed.err
    shutil.copy(data / 'images' / 'val' / '7.jpg', broken / 'images' / 'val')
    os.utime(broken / 'images' / 'val' / '7.jpg', ns=(0, 0))
    assert verify(model, '--data', broken, '--processes', 2)[0] == 0


def test_label_maps_read_in_another_way_do_not_go_on_with_what_was_counted(model, data, monkeypatch, verify):
    monkeypatch.setattr(score.Progress, 'remove', lambda self: None)
    configuration = data / 'reading.json'
    section = {
        'type': 'SegSourceRaw',
        'img_root': str(data / 'images' / 'val'),
        'classes': None,
        'label_suffix': '_labelTrainIds.png',
        'label_root': str(data / 'labels' / 'val'),
        'raw_ids': False,
    }
    section['classes'] = json.loads((model / 'configuration.json').read_text())['CLASSES']
    found = []
    for ignored in (255, 3):
        configuration.write_text(json.dumps({'dataset': {'val': {'data_source': section, 'ignore_index': ignored}}}))
        code, report, printed = verify(model, '--data', configuration, '--limit', 3)
        assert code == 0 and 'earlier run' not in printed.err
        found.append(report['score']['aAcc'])
    assert found[0] != found[1]


def test_nothing_labeled_is_no_figure(verify, model, data, tmp_path):
    empty = tmp_path / 'empty'
    shutil.copytree(data, empty)
    for path in (empty / 'labels' / 'val').iterdir():
        cv2.imwrite(str(path), np.full((60, 90), 255, np.uint8))
    code, report, _ = verify(model, '--data', empty, '--limit', 2)
    assert code == 0 and report['score']['mIoU'] is None and outcomes(report)['mIoU against the card'] == 'skipped'


def test_an_engine_that_cannot_be_used_is_not_taken_for_one_that_agrees(verify, model, monkeypatch):
    engine = pytest.importorskip('ms_segformer.engines.openvino_engine', reason='needs openvino')

    def broken(*_):
        raise RuntimeError('no')

    monkeypatch.setattr(engine, 'OpenVINOEngine', broken)
    monkeypatch.setattr(command, 'ENGINES', {'torch': (), 'openvino': ('openvino',)})
    with pytest.warns(RuntimeWarning, match='cannot be used'):
        code, report, _ = verify(model)
    found = outcomes(report)
    assert code == 1 and found['engine openvino'] == 'failed' and set(report['speed']) == {'torch'}
    assert found['china.jpg, label maps of the engines'] == 'skipped'


@pytest.mark.parametrize('name, package', [('OpenVINOEngine', 'openvino'), ('ONNXRuntimeEngine', 'onnxruntime')])
def test_every_installed_engine_is_looked_at(verify, model, monkeypatch, name, package):
    """One whose logits are turned around does not pass; a right one does, and is timed."""
    for needed in command.ENGINES[package]:
        pytest.importorskip(needed)
    code, report, _ = verify(model)
    title = 'china.jpg, label maps of the engines'
    assert code == 0 and outcomes(report)[title] == 'passed' and report['speed'][package] > 0
    assert package in next(check['detail'] for check in report['checks'] if check['name'] == title)
    module = {'openvino': 'openvino_engine', 'onnxruntime': 'onnx_engine'}[package]
    engine = getattr(importlib.import_module(f'ms_segformer.engines.{module}'), name)
    right = engine._run
    monkeypatch.setattr(engine, '_run', lambda self, batch: -right(self, batch))
    code, report, _ = verify(model)
    assert code == 1 and outcomes(report)[title] == 'failed'


def test_a_report_in_the_model_s_own_folder_is_neither_a_file_of_the_model_nor_another_machine_s(model, tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(model, folder)
    for _ in range(2):
        assert main(['verify', str(folder), '-o', str(folder / 'verify.json')]) == 0
    report = json.loads((folder / 'verify.json').read_text())
    assert {file['name'] for file in report['files']} == {'configuration.json', 'pytorch_model.pt'}
    assert outcomes(report)['china.jpg, label map of another machine'] == 'skipped'


@pytest.mark.parametrize(
    'described',
    [
        5,
        {},
        {'size': [1, 2], 'sha256': 'x'},
        {'size': [1, 2], 'sha256': 'x', 'cells': 3},
        {'size': [1, 2], 'sha256': 'x', 'cells': ['zz' * 32] * 24},
    ],
)
def test_odd_reports_are_refused_by_name(verify, tmp_path, described):
    (tmp_path / 'odd.json').write_text(json.dumps({'photographs': {'china.jpg': described}}))
    code, report, printed = verify('demo', '--compare', tmp_path / 'odd.json')
    assert code == 1 and 'odd.json is not a report of `ms-segformer verify`' in printed.err
    (tmp_path / 'odd.json').write_text(json.dumps({'photographs': {}}))
    assert 'nothing to compare' in verify('demo', '--compare', tmp_path / 'odd.json')[2].err


def test_the_hub_s_files_are_compared_by_their_digests(hub, python, tmp_path):
    """Of the tiny model under a published id; then the hub has another configuration than the one that was fetched."""
    words = (
        '-m',
        'ms_segformer.cli.main',
        'verify',
        'b0',
        '-o',
        tmp_path / 'report.json',
        '--photograph',
        ROOT / 'assets' / 'china.jpg',
    )
    variables = {'check': False, 'cwd': tmp_path, 'PYTHONPATH': os.pathsep.join(sys.path)}
    python.run(*words, **variables)
    assert of_the_hub(tmp_path) == {
        'name': "files equal the hub's",
        'outcome': 'passed',
        'detail': 'configuration.json, pytorch_model.pt',
    }
    if BY_PROXY:
        return  # the client of these releases does not look at digests
    hub.digests['pytorch_model.pt'] = '0' * 64
    (tmp_path / 'report.json').unlink()
    done = python.run(*words, **variables)  # ModelScope's client looks at digests too, and fetches in vain
    assert done.returncode == 1 and 'pytorch_model.pt' in done.stderr.splitlines()[-1]


def of_the_hub(folder):
    return next(check for check in json.loads((folder / 'report.json').read_text())['checks'] if 'hub' in check['name'])


def test_other_weights_do_not_go_on_with_what_was_counted(model, data, tmp_path, verify, monkeypatch):
    monkeypatch.setattr(score.Progress, 'remove', lambda self: None)
    verify(model, '--data', data, '--limit', 3)
    _, _, printed = verify(model, '--data', data, '--limit', 3)
    assert '3 of 3 images were counted by an earlier run' in printed.err
    other = tmp_path / 'other'
    shutil.copytree(model, other)
    scale_to(other, [96, 32])
    assert 'earlier run' not in verify(other, '--data', data, '--limit', 3)[2].err


def test_the_demonstration_model_has_the_label_map_it_was_shipped_with(verify):
    code, report, _ = verify('demo')
    assert code == 0 and outcomes(report)['china.jpg, label map of another machine'] == 'passed'


def test_another_label_map_than_the_report_s_fails(verify, tmp_path):
    theirs = json.loads((demo_model_dir() / 'verify.json').read_text())
    described = theirs['photographs']['china.jpg']
    described.update(sha256='0', cells=['ff' * 32 if i % 2 else row for i, row in enumerate(described['cells'])])
    (tmp_path / 'theirs.json').write_text(json.dumps(theirs))
    code, report, printed = verify('demo', '--compare', tmp_path / 'theirs.json')
    assert code == 1 and outcomes(report)['china.jpg, label map of another machine'] == 'failed'
    assert 'FAILED' in printed.out


def test_weights_that_do_not_fit_are_a_check_that_failed(verify, model, tmp_path):
    broken = tmp_path / 'broken'
    shutil.copytree(model, broken)
    (broken / 'pytorch_model.pt').write_bytes(b'not a checkpoint')
    code, report, _ = verify(broken)
    assert code == 1 and outcomes(report) == {"files equal the hub's": 'skipped', 'strict load': 'failed'}


@pytest.mark.parametrize(
    'words, message',
    [
        (['nowhere'], 'nowhere: no such directory'),
        (['demo', '--revision', 'v1'], 'is a directory, which has no revision'),
        (['demo', '--compare', __file__], 'is not a report of `ms-segformer verify`'),
        (['demo', '--compare', 'nowhere.json'], 'nowhere.json: no such file; --compare takes a report'),
        (['demo', '--data', 'nowhere'], 'nowhere does not exist'),
    ],
)
def test_what_cannot_be_checked(verify, words, message):
    code, report, printed = verify(*words)
    assert code == 1 and report is None and message in printed.err


@pytest.mark.parametrize('name', sorted(VARIANTS))
def test_every_published_id_from_the_hub(name, oracle, hub, python, tmp_path):
    """The reference weights in the published form, downloaded by ModelScope's client."""
    from exported import save_exported
    from reference import recipe_weights, reference_shapes

    from ms_segformer.metainfo import configuration_dir

    variant = VARIANTS[name]
    save_exported(tmp_path / 'pytorch_model.pt', recipe_weights(oracle, reference_shapes(oracle, name)))
    configuration = configuration_dir() / variant.model_name / 'configuration.json'
    hub.add_model(
        variant.hub_ids[0],
        {
            'configuration.json': configuration.read_bytes(),
            'pytorch_model.pt': (tmp_path / 'pytorch_model.pt').read_bytes(),
        },
    )
    photograph = shutil.copy(oracle.parent / 'data' / 'photos' / 'chelsea.png', tmp_path)
    done = python.run(
        '-c',
        ONCE,
        'verify',
        name,
        '--photograph',
        photograph,
        '-o',
        tmp_path / 'report.json',
        check=False,
        cwd=tmp_path,
        PYTHONPATH=os.pathsep.join(sys.path),
    )
    report = json.loads((tmp_path / 'report.json').read_text())
    found = outcomes(report)
    assert found["files equal the hub's"] == found['strict load'] == found['parameters'] == 'passed'
    assert found['china.jpg, label maps of the engines'] == 'passed'
    assert found["ModelScope's test photograph"] == 'failed'  # it is another photograph, and random weights
    assert done.returncode == 1 and report['model']['revision'] == 'master' and report['model']['card'] == name
