"""Every engine computes what the model's own modules compute."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from ms_segformer import metainfo
from ms_segformer.config.reader import read_configuration
from ms_segformer.engines import EngineError, cache, create_engine, factory
from ms_segformer.engines.onnx_graph import EXPORTABLE
from ms_segformer.engines.torch_engine import TorchEngine
from ms_segformer.metainfo import own_configuration
from ms_segformer.models import bfloat16
from ms_segformer.models.segformer import Segformer
from ms_segformer.postprocess.segmentation import LogitsError, segment
from ms_segformer.preprocessors.shapes import ImageShapes

PACKAGES = {'torch': None, 'openvino': 'openvino', 'onnxruntime': 'onnxruntime'}
SHAPES = [(1, 96, 128), (2, 64, 100), (1, 70, 131), (3, 33, 32), (1, 97, 63)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MS_SEGFORMER_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def model(tiny_model_dir):
    return Segformer.from_pretrained(str(tiny_model_dir))


@pytest.fixture(params=list(PACKAGES))
def name(request):
    if PACKAGES[request.param]:
        pytest.importorskip(PACKAGES[request.param], reason=f'needs {PACKAGES[request.param]}')
    if request.param == 'onnxruntime' and not EXPORTABLE:
        pytest.skip('ONNX needs torch 2.1')
    return request.param


def images(n, height, width, seed=0):
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def random_b0():
    torch.manual_seed(0)
    section = read_configuration(own_configuration('b0')).model_section
    return Segformer(backbone=section['backbone'], decode_head=section['decode_head']).prepare_inference()


def plain(model, batch):
    """The unfolded modules in float64."""
    with torch.no_grad():
        model.train().eval()
        return model.double().logits(batch.double()).float()


def created(*args, **kwargs):
    """An engine that was made without falling back to another."""
    with warnings.catch_warnings():
        warnings.simplefilter('error', RuntimeWarning)
        return create_engine(*args, **kwargs)


def test_equals_the_plain_network_at_any_shape(name, model, tiny_model_dir):
    run = created(model, name)
    assert (run.name, run.precision) == (name, 'float32')
    reference = Segformer.from_pretrained(str(tiny_model_dir))
    for shape in SHAPES:
        batch = images(*shape)
        logits = run(batch)
        assert logits.dtype == torch.float32
        assert logits.shape == (shape[0], 172, -(-shape[1] // 4), -(-shape[2] // 4))
        assert torch.allclose(logits, plain(reference, batch), atol=2e-4, rtol=1e-4)


def test_a_result_belongs_to_the_caller(name, model):
    run = created(model, name)
    first = run(images(1, 64, 64))
    kept = first.clone()
    run(images(1, 64, 64, seed=1))
    assert (first == kept).all()


def test_arrays_and_non_contiguous_batches_are_taken(name, model):
    run = created(model, name)
    batch = images(2, 64, 96)
    expected = run(batch)
    assert torch.allclose(run(batch.numpy()), expected, atol=1e-5)
    assert torch.allclose(run(batch.contiguous(memory_format=torch.channels_last)), expected, atol=1e-4)


@pytest.mark.parametrize(
    'batch',
    [
        torch.zeros(3, 64, 64),
        torch.zeros(1, 4, 64, 64),
        torch.zeros(1, 3, 0, 64),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        np.zeros((1, 3, 64, 64)),
    ],
)
def test_other_batches_are_refused(name, model, batch):
    with pytest.raises(EngineError, match='expected N×3×H×W float32'):
        created(model, name)(batch)


CHANGES = {  # ways to add 1 to a parameter of the classifier
    'in place': lambda layer: layer.bias.add_(1),
    'detached': lambda layer: layer.bias.detach().add_(1),
    'in inference mode': torch.inference_mode()(lambda layer: layer.bias.add_(1)),
    'other data': lambda layer: setattr(layer.bias, 'data', layer.bias + 1),
    'another parameter': lambda layer: setattr(layer, 'bias', torch.nn.Parameter(layer.bias + 1)),
    'a state dict': lambda layer: layer.load_state_dict({**layer.state_dict(), 'bias': layer.bias + 1}),
    'a step': lambda layer: step(layer.bias),
}


def step(parameter):
    parameter.grad = -torch.ones_like(parameter)
    torch.optim.SGD([parameter], lr=1).step()


def test_compiling_is_said(model, monkeypatch, caplog):
    said = []
    monkeypatch.setattr(torch, 'compile', lambda function, **_: said.extend(caplog.messages) or function)
    created(model, 'torch')
    assert caplog.messages == []
    created(model, 'torch-compile')
    assert said == ['torch.compile is at work on the network; that may take minutes'] == caplog.messages


@pytest.mark.parametrize('change', CHANGES)
def test_every_change_of_a_weight_that_is_promised_to_count_does(model, change):
    """Those that the docstring of `create_engine` names."""
    run, batch = created(model, 'torch'), images(1, 64, 64)
    before = run(batch)
    with torch.no_grad():
        CHANGES[change](model.decode_head.conv_seg)
    torch.testing.assert_close(run(batch), before + 1)


def test_follows_changes_of_the_weights(name, model):
    run = created(model, name)
    batch = images(1, 64, 64)
    before = run(batch)
    with torch.no_grad():
        model.decode_head.conv_seg.bias += 1
        model.decode_head.fusion_conv.bn.bias += 0.5
    after = run(batch)
    assert torch.allclose(after, plain(model, batch), atol=2e-4, rtol=1e-4)
    assert (after - before).abs().max() > 0.5


def test_follows_the_number_of_threads(name, model):
    run = created(model, name)
    before, batch = torch.get_num_threads(), images(1, 64, 64)
    one = run(batch)
    try:
        torch.set_num_threads(3)
        assert torch.allclose(run(batch), one, atol=1e-4)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('name', ['torch', 'openvino'])
def test_bf16_stays_close(name):
    if PACKAGES[name]:
        pytest.importorskip(PACKAGES[name])
    model, batch = random_b0(), images(1, 96, 128)
    exact = create_engine(model, name)(batch)
    run = create_engine(model, name, precision='bf16')
    close = run(batch)
    assert close.dtype == torch.float32
    assert (close - exact).abs().mean() < 0.03 * exact.std()
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize('name', ['torch', 'openvino', 'auto'])
def test_bf16_is_refused_where_the_processor_computes_the_network_wrong(name, model, monkeypatch):
    monkeypatch.setattr(bfloat16, '_difference', lambda channels, *_: 0.9 if channels < 32 else 0.002)
    with pytest.raises(EngineError, match=r'^precision bf16: .*8×8 convolution of 8 channels.*\(by 0.90 .*AMX\. Use'):
        create_engine(model, name, precision='bf16')
    assert bfloat16.fault_in_bfloat16(random_b0()) is None


def test_a_network_that_bfloat16_gets_wrong_is_never_run_in_it(model):
    """With what this processor really does: refused, or close to float32."""
    batch = images(1, 96, 128)
    exact = create_engine(model, 'torch')(batch)
    try:
        close = create_engine(model, 'torch', precision='bf16')(batch)
    except EngineError as error:
        assert 'comes out wrong in bfloat16' in str(error)
    else:
        assert (close - exact).abs().mean() < 0.03 * exact.std()


def test_shapes_that_keep_coming_get_a_network_of_their_own(model, tmp_path, monkeypatch):
    openvino_engine = pytest.importorskip(
        'ms_segformer.engines.openvino_engine', reason='needs openvino', exc_type=ImportError
    )
    monkeypatch.setenv('MS_SEGFORMER_CACHE', str(tmp_path))
    for name, value in (('FREQUENT', 4), ('CACHED', 2), ('KEPT_SMALL', 2), ('WINDOW', 20)):
        monkeypatch.setattr(openvino_engine, name, value)
    compiled = []
    compile_one = openvino_engine.OpenVINOEngine._compile

    def note(self, shape):
        compiled.append(shape[-1])
        return compile_one(self, shape)

    monkeypatch.setattr(openvino_engine.OpenVINOEngine, '_compile', note)
    run = created(model, 'openvino')
    expected = {width: run(images(1, 64, width)) for width in (64, 96, 128)}
    assert compiled == [64, -1], 'the first shape, and all the others'
    for width in (64, 96, 128) * 6:
        assert torch.allclose(run(images(1, 64, width)), expected[width], atol=1e-4)
    assert compiled == [64, -1, 96], 'the third is not more frequent than those'
    for _ in range(20):
        run(images(1, 64, 128))
    assert compiled == [64, -1, 96, 128] and len(run._special) == 2, 'now it is'
    compiled.clear()
    again = created(model, 'openvino')
    for width in (64, 96, 96, 128, 128):
        assert torch.allclose(again(images(1, 64, width)), expected[width], atol=1e-4)
    assert compiled == [64, -1, 96], 'those that were compiled before pay sooner'


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_batch_norms_are_folded_before_they_are_rounded(model, precision):
    norm = model.decode_head.fusion_conv.bn
    norm.running_var.mul_(1e6)  # beyond float16
    expected = model.prepare_inference().folding.folded()
    engine = TorchEngine(model, precision, torch.device('cpu'))
    for found, exact in zip(engine.model.folding.folded().parts, expected.parts, strict=True):
        assert found[0].dtype == engine.dtype
        torch.testing.assert_close(found[0].float(), exact[0], rtol=1e-2, atol=1e-6)


def test_float16_is_of_gpus(model):
    with pytest.raises(EngineError, match=r"^precision fp16 runs on a GPU, device is 'cpu'; on a CPU use 'bf16'"):
        create_engine(model, precision='fp16')


def test_unknown_names_are_refused(model):
    with pytest.raises(EngineError, match="unknown engine 'tensorrt'.*'openvino'"):
        create_engine(model, 'tensorrt')
    with pytest.raises(EngineError, match="unknown precision 'int4'.*'bf16'"):
        create_engine(model, precision='int4')
    with pytest.raises(EngineError, match="device 'abacus' cannot be used"):
        create_engine(model, device='abacus')


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has CUDA')
def test_a_device_that_is_not_there_is_refused(model):
    with pytest.raises(EngineError, match="device 'cuda' cannot be used.*use 'cpu'"):
        create_engine(model, device='cuda')


@pytest.mark.parametrize('missing', ['openvino', 'onnxruntime'])
def test_an_engine_that_does_not_load_warns_and_torch_takes_over(model, monkeypatch, missing):
    for module in (
        missing,
        'ms_segformer.engines.openvino_engine',
        'ms_segformer.engines.onnx_engine',
        'ms_segformer.engines.openvino_graph',
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.warns(RuntimeWarning, match=f"engine '{missing}' cannot be used.*using torch instead"):
        run = create_engine(model, missing)
    assert run.name == 'torch'
    assert run(images(1, 64, 64)).shape == (1, 172, 16, 16)


def test_a_signal_after_engines_are_dropped_does_not_kill_the_process(tiny_model_dir):
    """The CPU plugins of two OpenVINO Cores, dropped in the order they were made in, leave no signal stack."""
    pytest.importorskip('openvino', reason='needs openvino')
    code = f"""
import signal, torch
from ms_segformer.models.segformer import Segformer
from ms_segformer.engines import create_engine
engines = [create_engine(Segformer.from_pretrained({str(tiny_model_dir)!r}), 'openvino') for _ in range(2)]
for number in range(2):
    engines[number](torch.zeros(1, 3, 64, 64))
del engines[0]
del engines[0]
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run with SIGINT ignored
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print('interrupted')
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, 'interrupted'), (done.returncode, done.stderr[-2000:])


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
@pytest.mark.parametrize('kept', [0, 1])
def test_a_forked_process_runs_a_network_of_its_own(tiny_model_dir, kept):
    """After networks were dropped in the parent, whose idle threads the child has not got."""
    pytest.importorskip('openvino', reason='needs openvino')
    code = f"""
import os, signal, torch
from ms_segformer.models.segformer import Segformer
from ms_segformer.engines import create_engine
model, image = Segformer.from_pretrained({str(tiny_model_dir)!r}), torch.zeros(1, 3, 64, 64)
engines = [create_engine(model, 'openvino', precision) for precision in ('float32', 'bf16')]
expected = engines[0](image)
engines[1](image)
del engines[{kept}:]
for number in range(2):
    child = os.fork()
    if not child:
        signal.alarm(60)  # ends a child that waits for ever
        same = torch.equal(create_engine(model, 'openvino')(image), expected)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
assert torch.equal(create_engine(model, 'openvino')(image), expected)
print('done')
"""
    environment = {**os.environ, 'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE_BF16'}  # with AMX the tiny model has no bf16
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, 'done'), (done.returncode, done.stderr[-2000:])


def test_openvino_leaves_its_threads_where_the_system_puts_them(model, tmp_path, monkeypatch):
    """Pinned, those of two processes would share one core. A network from the cache is no exception."""
    pytest.importorskip('openvino', reason='OpenVINO is not installed')
    monkeypatch.setenv('MS_SEGFORMER_CACHE', str(tmp_path))
    for _ in ('compiled', 'read'):
        engine = create_engine(model, 'openvino')
        engine(torch.randn(1, 3, 64, 96))
        (request,) = engine._special.values()
        assert request.get_compiled_model().get_property('ENABLE_CPU_PINNING') is False
    assert list(tmp_path.rglob('*.openvino'))


def test_torch_takes_over_from_an_openvino_that_cannot_compile(model, monkeypatch):
    openvino_engine = pytest.importorskip('ms_segformer.engines.openvino_engine', reason='OpenVINO is not installed')

    def fails(*_):
        raise RuntimeError('no such primitive')

    monkeypatch.setattr(openvino_engine, 'build_graph', fails)
    engine = create_engine(model, 'openvino')
    image = torch.randn(1, 3, 64, 96)
    with pytest.warns(RuntimeWarning, match='no such primitive.*using torch instead'):
        first = engine(image)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        again = engine(image)
    assert engine.name == 'torch'
    assert torch.equal(first, again)
    assert torch.equal(first, create_engine(model, 'torch')(image))


def test_auto_is_the_fastest_installed(model, monkeypatch):
    present = {'openvino'}
    monkeypatch.setattr(factory.importlib.util, 'find_spec', lambda package: package in present or None)
    assert factory._fastest(torch.device('cpu')) == 'openvino'
    assert factory._fastest(torch.device('meta')) == 'torch'
    present.clear()
    assert factory._fastest(torch.device('cpu')) == 'torch'


@pytest.mark.parametrize('variant', list(metainfo.VARIANTS))
def test_openvino_graph_equals_the_modules_for_every_variant(variant):
    pytest.importorskip('openvino')
    folder = metainfo.configuration_dir() / metainfo.VARIANTS[variant].model_name
    settings = read_configuration(folder)
    torch.manual_seed(0)
    model = Segformer(**settings.model_section)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    batch = images(1, 64, 96)
    logits = created(model.eval(), 'openvino')(batch)
    with torch.no_grad():
        expected = model.train().eval().logits(batch)  # not folded
    assert torch.allclose(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('plain_projections,align_corners', [(True, False), (False, True)])
def test_other_heads_are_computed_too(name, tiny_model_dir, plain_projections, align_corners):
    section = read_configuration(tiny_model_dir).model_section
    head = {**section['decode_head'], 'plain_projections': plain_projections, 'align_corners': align_corners}
    torch.manual_seed(0)
    model = Segformer(**{**section, 'decode_head': head}).eval()
    batch = images(1, 96, 75)
    with torch.no_grad():
        expected = model.logits(batch)
    assert torch.allclose(created(model, name)(batch), expected, atol=1e-4)


def entries():
    folder = cache.cache_dir()
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize('name', ['openvino', 'onnxruntime'])
class TestCache:
    """Compiled networks on disk."""

    @pytest.fixture(autouse=True)
    def installed(self, name):
        pytest.importorskip(name)

    def test_is_used_again_by_equal_weights_only(self, model, name):
        created(model, name)(images(1, 64, 64))
        first = {path: path.stat().st_ino for path in entries()}
        assert len(first) == 1
        created(model, name)(images(1, 64, 64))
        assert {path: path.stat().st_ino for path in entries()} == first
        with torch.no_grad():
            model.decode_head.conv_seg.bias[0] += 1e-6
        created(model, name)(images(1, 64, 64))
        assert len(entries()) == 2

    def test_survives_damage_and_removal(self, model, name):
        run = created(model, name)
        expected = run(images(1, 64, 64))
        (path,) = entries()
        for damage in (b'', path.read_bytes()[:1000], b'x' * 5000, None):
            path.unlink() if damage is None else path.write_bytes(damage)
            assert torch.allclose(created(model, name)(images(1, 64, 64)), expected, atol=1e-5)
            assert path.stat().st_size > 5000

    def test_a_folder_that_cannot_be_written_costs_only_time(self, model, name, tmp_path, monkeypatch, caplog):
        (tmp_path / 'file').write_text('')
        monkeypatch.setenv('MS_SEGFORMER_CACHE', str(tmp_path / 'file'))
        assert created(model, name)(images(1, 64, 64)).shape == (1, 172, 16, 16)
        assert 'MS_SEGFORMER_CACHE' in caplog.text


def test_importing_the_package_imports_no_runtime():
    code = (
        'import sys, ms_segformer.engines; '
        'sys.exit(any(name in sys.modules for name in ("openvino", "onnxruntime", "onnx")))'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


POISONED = {  # one of each kind of module; the attention's is in the keys
    'patch embedding': 'backbone.layers.0.0.projection.weight',
    'layer norm': 'backbone.layers.3.2.weight',
    'reduction': 'backbone.layers.0.1.0.attn.sr.weight',
    'attention': 'backbone.layers.1.1.1.attn.attn.in_proj_weight',
    'attention output': 'backbone.layers.2.1.0.attn.attn.out_proj.bias',
    'expansion': 'backbone.layers.2.1.0.ffn.layers.0.weight',
    'depthwise': 'backbone.layers.3.1.0.ffn.layers.1.weight',
    'shrinking': 'backbone.layers.1.1.0.ffn.layers.4.bias',
    'projection': 'decode_head.convs.3.conv.weight',
    'batch norm': 'decode_head.convs.0.bn.running_var',
    'fusion': 'decode_head.fusion_conv.conv.weight',
    'classifier': 'decode_head.conv_seg.weight',
}


def refused(run):
    logits = run(images(1, 256, 256))
    with pytest.raises(LogitsError):
        segment(logits[0], ImageShapes((256, 256), (256, 256), (256, 256)), num_names=171)


def parameters(model):
    return dict(model.named_parameters()) | dict(model.named_buffers())


def precisions(name):
    return ['float32', 'bf16'] if name == 'openvino' else ['float32']


@pytest.mark.parametrize('module', POISONED)
def test_nan_in_any_module_reaches_the_logits(name, model, module, monkeypatch):
    monkeypatch.setattr(factory, 'fault_in_bfloat16', lambda _: None)  # NaN comes out of wrong convolutions too
    weight = parameters(model)[POISONED[module]]
    with torch.no_grad():
        weight.view(-1)[weight.numel() // 2] = float('nan')
    for precision in precisions(name):
        run = create_engine(model, name, precision)
        refused(run)
        assert run.name == name


@pytest.mark.parametrize('part', ['ffn', 'sr', 'convs'])
def test_finite_weights_that_overflow_are_not_a_label_map(name, model, part, monkeypatch):
    monkeypatch.setattr(factory, 'fault_in_bfloat16', lambda _: None)  # and so does infinity
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if f'.{part}.' in key and key.endswith('weight'):
                weight.mul_(1e25 if part == 'ffn' else 1e38)
    for precision in precisions(name):
        refused(create_engine(model, name, precision))
