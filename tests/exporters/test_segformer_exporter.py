"""Exported files compute what the model computes, without this package."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from modelscope.exporters.base import Exporter

from ms_segformer.engines.onnx_graph import EXPORTABLE
from ms_segformer.exporters import segformer_exporter
from ms_segformer.exporters.segformer_exporter import ExportError, SegformerExporter
from ms_segformer.models.segformer import Segformer

NEEDS = {'onnx': 'onnxruntime', 'openvino': 'openvino'}
RUN = {
    'onnx': 'import onnxruntime as r\n'
    'out = r.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["logits"], {"img": img})[0]',
    'openvino': 'import sys\nsys.modules["openvino_telemetry"] = None\nimport openvino as r\n'
    'out = r.Core().compile_model('
    'path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"img": img})["logits"]',
}


@pytest.fixture(params=list(NEEDS))
def kind(request):
    pytest.importorskip(NEEDS[request.param], reason=f'needs {NEEDS[request.param]}')
    if request.param == 'onnx' and not EXPORTABLE:
        pytest.skip('ONNX needs torch 2.1')
    return request.param


@pytest.fixture
def exporter(tiny_model_dir):
    return Exporter.from_model(str(tiny_model_dir))


def run_elsewhere(kind, path, image, tmp_path):
    """Run an exported file in a process that imports only NumPy and the runtime."""
    np.save(tmp_path / 'img.npy', image)
    code = f'import numpy as np\npath, img = {str(path)!r}, np.load("img.npy")\n{RUN[kind]}\nnp.save("out.npy", out)\n'
    subprocess.run([sys.executable, '-I', '-c', code], check=True, cwd=tmp_path)
    return np.load(tmp_path / 'out.npy')


def test_modelscope_finds_the_exporter(exporter):
    assert type(exporter) is SegformerExporter


@pytest.mark.parametrize('shape', [None, (2, 3, 64, 100)])
def test_file_alone_gives_the_models_logits(exporter, kind, shape, tmp_path, tiny_model_dir):
    files = getattr(exporter, f'export_{kind}')(str(tmp_path / 'out'), shape=shape)
    image = torch.randn(shape or (3, 3, 75, 130), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = Segformer.from_pretrained(str(tiny_model_dir)).logits(image).numpy()
    assert np.abs(run_elsewhere(kind, files['model'], image.numpy(), tmp_path) - expected).max() < 1e-4
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(
        {'onnx': ['model.onnx'], 'openvino': ['model.xml', 'model.bin']}[kind]
    )


def test_half_precision_weights_are_half_the_size(exporter, tmp_path):
    pytest.importorskip('openvino')
    whole = exporter.export_openvino(str(tmp_path / 'a'))['weights']
    half = exporter.export_openvino(str(tmp_path / 'b'), compress_to_fp16=True)['weights']
    assert 0.4 < (tmp_path / half).stat().st_size / (tmp_path / whole).stat().st_size < 0.6


def test_a_file_with_other_results_is_not_written(exporter, kind, tmp_path, monkeypatch):
    runner = f'_run_{kind}'
    right = getattr(segformer_exporter, runner)
    monkeypatch.setattr(segformer_exporter, runner, lambda path, image: right(path, image) + 1)
    with pytest.raises(ExportError, match='differs from the model by 1'):
        getattr(exporter, f'export_{kind}')(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_said_where_openvino_does_not_say_it(exporter, tmp_path, monkeypatch):
    openvino = pytest.importorskip('openvino')

    def full(graph, path, **_):
        Path(path).write_bytes(b'half')
        Path(path).with_suffix('.bin').write_bytes(b'half')
        raise RuntimeError('basic_ios::clear: iostream error\n')

    monkeypatch.setattr(openvino, 'save_model', full)
    with pytest.raises(ExportError, match=f'^OpenVINO could not write to {tmp_path} .*iostream error; .* MiB free.*$'):
        exporter.export_openvino(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('shape', [(3, 64, 64), (1, 4, 64, 64), (0, 3, 64, 64), (1, 3, 64, 8)])
def test_impossible_shapes_are_refused(exporter, shape, tmp_path):
    with pytest.raises(ExportError, match='expected \\(N, 3, H, W\\)'):
        exporter.export_onnx(str(tmp_path), shape=shape)


@pytest.mark.parametrize('opset', [11, 99])
def test_other_operator_sets_are_refused(exporter, opset, tmp_path):
    with pytest.raises(ExportError, match=f'opset {opset}: .* 16 to 23'):
        exporter.export_onnx(str(tmp_path), opset=opset)


def test_a_shape_that_takes_gigabytes_is_refused(exporter, tmp_path):
    with pytest.raises(ExportError, match='up to 16,777,216 pixels'):
        exporter.export_onnx(str(tmp_path), shape=(1, 3, 100_000, 100_000))


def test_command_line(kind, tiny_model_dir, tmp_path, capsys):
    from ms_segformer.cli import main

    folder = tmp_path / 'model'
    shutil.copytree(tiny_model_dir, folder)
    assert json.loads((folder / 'configuration.json').read_text())
    status = main.main(['export', str(folder), '-o', str(tmp_path / 'out'), '--format', kind, '--size', '64', '96'])
    assert not status
    printed = capsys.readouterr().out.split()
    assert printed and all((tmp_path / name).is_file() for name in printed)
