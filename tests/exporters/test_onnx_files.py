"""What stands in ONNX files: valid, of operators that TensorRT knows, and right in ONNX Runtime.

No test here builds anything with TensorRT, which needs a GPU: the files are held against its documentation, and against
what stopped others: outputs without a size (NVlabs/SegFormer, issue 14), integers beyond 32 bits (mmsegmentation 1210),
an attention that only a plugin knows and shapes computed for every layer (mmdeploy 1673, 1764), layer norms that
overflow half precision (mmdeploy 2477). Shapes too large for the GPU (mmdeploy 1957) are in the guide.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ms_segformer
from ms_segformer.cli.main import main
from ms_segformer.config.reader import read_configuration
from ms_segformer.engines.onnx_graph import EXPORTABLE, write_onnx
from ms_segformer.exporters import segformer_exporter
from ms_segformer.exporters.segformer_exporter import ExportError, SegformerExporter
from ms_segformer.metainfo import ONNX_OPSETS, demo_model_dir
from ms_segformer.models.segformer import Segformer
from ms_segformer.postprocess.segmentation import segment
from ms_segformer.preprocessors.segformer import SegformerPreprocessor

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytestmark = pytest.mark.skipif(not EXPORTABLE, reason='ONNX needs torch 2.1')

FLOATS = {'FLOAT', 'FLOAT16'}
NUMBERS = FLOATS | {'INT32', 'INT64'}
ANY = NUMBERS | {'BOOL'}
# The operators that the files consist of, each with the types in which TensorRT 10.15 takes it, from the table in
# docs/operators.md of github.com/onnx/onnx-tensorrt at that release (opsets 9 to 24). bfloat16 and the quantized types,
# which are in the table too, are in none of the files.
TENSORRT = {
    'Add': NUMBERS,
    'ArgMax': NUMBERS,
    'Cast': ANY | {'UINT8'},
    'Concat': ANY,
    'Constant': ANY,
    'Conv': FLOATS,
    'Div': NUMBERS,
    'Erf': FLOATS,
    'Flatten': ANY,
    'Gather': ANY,
    'Gelu': NUMBERS,
    'LayerNormalization': FLOATS,
    'MatMul': FLOATS,
    'Mul': NUMBERS,
    'Pow': NUMBERS,
    'ReduceMean': NUMBERS,
    'Relu': NUMBERS,
    'Reshape': ANY,
    'Resize': FLOATS,
    'Shape': ANY,
    'Slice': ANY,
    'Softmax': FLOATS,
    'Split': ANY,
    'Sqrt': FLOATS,
    'Squeeze': ANY,
    'Sub': NUMBERS,
    'Transpose': ANY,
    'Unsqueeze': ANY,
}
SHAPE_ARITHMETIC = {'Shape', 'Gather', 'Unsqueeze', 'If', 'Loop', 'Scan'}  # of which a fixed shape needs none
PHOTO = (2, 3, 90, 121)
STATIC = (2, 3, 64, 100)


@dataclass(frozen=True)
class Variant:
    """Arguments of an export; `sizes` is open, one for the input, or one for photographs."""

    model: str
    opset: int
    output: str
    sizes: str
    fp16: bool

    @property
    def arguments(self):
        return {
            'opset': self.opset,
            'output': self.output,
            'fp16': self.fp16,
            'shape': STATIC if self.sizes == 'static' else None,
            'image_shape': PHOTO if self.sizes == 'photographs' else None,
        }

    def __str__(self):
        return f'{self.model}-{self.opset}-{self.output}-{self.sizes}-{"fp16" if self.fp16 else "fp32"}'


def variants():
    for fp16 in (False, True):
        for sizes in ('open', 'static'):
            yield Variant('tiny', 17, 'logits', sizes, fp16)
        for sizes in ('open', 'static', 'photographs'):
            yield Variant('tiny', 17, 'classes', sizes, fp16)
    for opset in (ONNX_OPSETS[0], 18, 20, ONNX_OPSETS[-1]):
        fp16 = opset > 17
        yield Variant('tiny', opset, 'classes', 'open', fp16)
        yield Variant('tiny', opset, 'logits', 'static', fp16)
    yield Variant('aligned', 17, 'classes', 'open', False)
    yield Variant('aligned', 17, 'classes', 'photographs', False)
    yield Variant('demo', 17, 'logits', 'static', True)
    yield Variant('demo', 17, 'classes', 'open', True)


@pytest.fixture(scope='module')
def models(tmp_path_factory, tiny_model_dir):
    """Directories by name: the tiny model, the same with `align_corners`, and the demonstration model, a B0."""
    aligned = shutil.copytree(tiny_model_dir, tmp_path_factory.mktemp('model') / 'aligned')
    settings = json.loads((aligned / 'configuration.json').read_text())
    settings['model']['decode_head']['align_corners'] = True
    (aligned / 'configuration.json').write_text(json.dumps(settings))
    return {'tiny': tiny_model_dir, 'aligned': aligned, 'demo': demo_model_dir()}


@pytest.fixture(scope='module', params=list(variants()), ids=str)
def exported(request, models, tmp_path_factory):
    """A variant, its file, and the model it was made of."""
    variant = request.param
    model = Segformer.from_pretrained(str(models[variant.model]))
    files = SegformerExporter(model).export_onnx(tmp_path_factory.mktemp('out'), **variant.arguments)
    return variant, Path(files['model']), model


def shapes_of(values):
    """Name to dimensions, numbers or names."""
    return {
        value.name: tuple(side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in values
    }


def constants(graph):
    """Name to value of what the graph brings along."""
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == 'Constant':
            found[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    return found


def prepared(model):
    """The sizes that the photographs of `PHOTO` go through."""
    return SegformerPreprocessor(model.model_dir).shapes(*PHOTO[2:])


def attributes(node):
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def test_the_file_is_valid_and_made_of_what_tensorrt_takes(exported):
    variant, path, _ = exported
    network = onnx.load(path)
    onnx.checker.check_model(network, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(network, check_type=True, strict_mode=True, data_prop=True).graph
    graph = network.graph
    assert [(domain.domain, domain.version) for domain in network.opset_import] == [('', variant.opset)]
    assert {node.domain for node in graph.node} == {''}, 'no operator that only a plugin knows'
    assert {node.op_type for node in graph.node} <= set(TENSORRT)

    known = constants(graph)
    types = {
        name: onnx.TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
        for name, value in known.items()
    }
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        types[value.name] = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    for node in graph.node:
        used = {types[name] for name in (*node.input[:1], *node.output)}
        assert used <= TENSORRT[node.op_type], (node.op_type, node.name)
    assert 'DOUBLE' not in types.values()
    floats = {types[name] for node in graph.node if node.op_type in ('Conv', 'MatMul') for name in node.input}
    assert floats == {'FLOAT16' if variant.fp16 else 'FLOAT'}

    integers = [value for value in known.values() if value.dtype == np.int64 and value.size]
    assert integers and max(int(np.abs(value).max()) for value in integers) < 2**31

    for node in graph.node:
        given = attributes(node)
        if node.op_type == 'Resize':
            assert given['mode'] == b'linear'
            # Older versions of PyTorch say pytorch_half_pixel, which differs for outputs of one pixel only.
            halves = {b'half_pixel', b'pytorch_half_pixel'}
            modes = {b'align_corners'} if variant.model == 'aligned' else halves
            assert given['coordinate_transformation_mode'] in modes
            assert set(node.input[1:3]) == {''}, 'neither a region nor factors, but a size'
            assert not {'antialias', 'axes', 'keep_aspect_ratio_policy'} & set(given)
        elif node.op_type == 'LayerNormalization':
            assert len(node.output) == 1 and given.get('stash_type', 1) == onnx.TensorProto.FLOAT, 'sums in float32'
        elif node.op_type in ('Squeeze', 'Unsqueeze'):
            assert node.input[1] in known, 'axes are constants'
        elif node.op_type == 'ReduceMean':
            assert 'axes' in given or node.input[1] in known


def test_sizes_are_open_or_fixed_as_asked_for(exported):
    variant, path, model = exported
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True).graph
    (given,), (result,) = shapes_of(graph.input).items(), shapes_of(graph.output).items()
    classes = model.settings.head.num_classes
    assert given[0] == 'img' and result[0] == variant.output
    if variant.sizes == 'open':
        assert given[1] == ('N', 3, 'H', 'W')
        assert result[1][0] == 'N' and len(result[1]) == (4 if variant.output == 'logits' else 3)
        assert all(isinstance(side, str) for side in result[1][-2:])
        return
    assert not {node.op_type for node in graph.node} & SHAPE_ARITHMETIC
    shapes = shapes_of(graph.value_info)
    assert {name for node in graph.node for name in node.output} <= {*shapes, variant.output}
    assert all(isinstance(side, int) and side > 0 for shape in shapes.values() for side in shape if shape != (0,))
    if variant.output == 'logits':
        assert (given[1], result[1]) == (STATIC, (2, classes, 16, 25))
    elif variant.sizes == 'static':
        assert (given[1], result[1]) == (STATIC, (2, 64, 100))
    else:
        assert (given[1], result[1]) == ((2, 3, *prepared(model).padded), (2, 90, 121))


def test_class_maps_leave_as_tensorrt_lets_uint8_leave(exported):
    """By a conversion from floating point, the last operator; no other tensor is uint8."""
    variant, path, _ = exported
    if variant.output != 'classes':
        return
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    uint8, single = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    assert [value.name for value in graph.output if value.type.tensor_type.elem_type == uint8] == ['classes']
    assert not [value for value in graph.value_info if value.type.tensor_type.elem_type == uint8]
    last = next(node for node in graph.node if 'classes' in node.output)
    assert last.op_type == 'Cast' and attributes(last) == {'to': uint8}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert types[last.input[0]] == single


def test_onnx_runtime_gives_what_the_model_gives(exported):
    variant, path, model = exported
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    shape = [side if isinstance(side, int) else None for side in session.get_inputs()[0].shape]
    shape = [side or other for side, other in zip(shape, (3, 3, 75, 130), strict=True)]
    image = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    (found,) = session.run(None, {'img': image.numpy()})
    with torch.inference_mode():
        logits = model.logits(image)
        if variant.output == 'logits':
            assert found.dtype == np.float32 and found.shape == logits.shape
            tolerance = 2e-2 * float(logits.abs().max()) if variant.fp16 else 1e-4
            assert np.abs(found - logits.numpy()).max() < tolerance
            return
        aligned = variant.model == 'aligned'
        scaled = F.interpolate(logits, size=image.shape[2:], mode='bilinear', align_corners=aligned)
        if variant.sizes == 'photographs':
            height, width = prepared(model).resized
            scaled = scaled[:, :, :height, :width]
            scaled = F.interpolate(scaled, size=PHOTO[2:], mode='bilinear', align_corners=aligned)
        expected = scaled.argmax(1).numpy()
    assert found.dtype == np.uint8 and found.shape == expected.shape
    # Random weights leave classes that half precision cannot tell apart; the demonstration model is below.
    assert (found == expected).mean() >= (0.9 if variant.fp16 else 0.9999)


def test_photographs_of_the_inputs_size_may_be_scaled_on_their_way(models, tmp_path):
    """Scaled from 96×96 to 90×90 and padded to 96×96 again."""
    folder = shutil.copytree(models['tiny'], tmp_path / 'model')
    model = Segformer.from_pretrained(str(folder))
    settings = read_configuration(folder)
    small = replace(settings.preprocess, scale=(200, 90), size_divisor=32)
    shapes = SegformerPreprocessor(settings=small).shapes(96, 96)
    assert (shapes.padded, shapes.resized, shapes.original) == ((96, 96), (90, 90), (96, 96))
    write_onnx(model, tmp_path / 'x.onnx', (1, 3, 96, 96), dynamic=False, output='classes', shapes=shapes)
    image = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    session = onnxruntime.InferenceSession(tmp_path / 'x.onnx', providers=['CPUExecutionProvider'])
    (found,) = session.run(None, {'img': image.numpy()})
    with torch.inference_mode():
        expected = segment(model.logits(image)[0], shapes, 172).seg_map
    assert (found[0] == expected).mean() >= 0.9999


@pytest.mark.parametrize('fp16', [False, True])
def test_the_class_map_of_a_photograph_is_the_pipelines(fp16, tmp_path):
    photograph = Path(__file__).parents[2] / 'assets' / 'china.jpg'
    segmenter = ms_segformer.load('demo', device='cpu', engine='torch')
    image = segmenter.preprocessor(photograph)
    exporter = SegformerExporter(segmenter.model)
    files = exporter.export_onnx(
        tmp_path, output='classes', fp16=fp16, image_shape=(1, 3, *image['ori_shape']), validate=False
    )
    session = onnxruntime.InferenceSession(files['model'], providers=['CPUExecutionProvider'])
    (found,) = session.run(['classes'], {'img': image['img'].numpy()})
    assert image['pad_shape'] != image['img_shape'], 'a part of the input is padding'
    assert found.nbytes == np.prod(image['ori_shape'])
    assert (found[0] == segmenter(photograph)['seg_map']).mean() >= (0.995 if fp16 else 0.9999)


def test_command_line(models, tmp_path, capsys):
    options = ['--gives', 'classes', '--image-size', '48', '64', '--batch', '2', '--fp16']
    assert not main(['export', str(models['tiny']), '-o', str(tmp_path), *options])
    path = capsys.readouterr().out.split()[-1]
    (result,) = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider']).get_outputs()
    assert (result.name, result.type, result.shape) == ('classes', 'tensor(uint8)', [2, 48, 64])


def test_half_precision_takes_half_the_room(models, tmp_path):
    exporter = SegformerExporter(Segformer.from_pretrained(str(models['demo'])))
    sizes = [Path(exporter.export_onnx(tmp_path, fp16=fp16)['model']).stat().st_size for fp16 in (False, True)]
    assert 0.49 < sizes[1] / sizes[0] < 0.52


def test_the_model_stays_as_it_was(models, tmp_path):
    model = Segformer.from_pretrained(str(models['tiny']))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model.logits(image)
    SegformerExporter(model).export_onnx(tmp_path, fp16=True, output='classes', shape=(1, 3, 64, 64))
    with torch.no_grad():
        assert torch.allclose(model.logits(image), before, atol=1e-5)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_weights_too_large_for_half_precision_are_found(models, tmp_path):
    model = Segformer.from_pretrained(str(models['tiny']))
    with torch.no_grad():
        model.decode_head.conv_seg.bias[0] = 1e6
    exporter = SegformerExporter(model)
    with pytest.raises(ExportError, match='too large for half precision: leave fp16 out'):
        exporter.export_onnx(tmp_path, fp16=True)
    assert not list(tmp_path.iterdir())
    assert exporter.export_onnx(tmp_path)


@pytest.mark.parametrize('change', [lambda maps: maps[:, ::-1].copy(), lambda maps: maps + 100, lambda maps: maps[1:]])
def test_a_file_with_other_class_maps_is_not_written(models, tmp_path, monkeypatch, change):
    right = segformer_exporter._run_onnx
    monkeypatch.setattr(segformer_exporter, '_run_onnx', lambda path, image: change(right(path, image)))
    with pytest.raises(ExportError, match='differs from the model by .* in its logits; nothing was written'):
        SegformerExporter(Segformer.from_pretrained(str(models['tiny']))).export_onnx(tmp_path, output='classes')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'output': 'labels'}, "output 'labels'; accepted: 'logits' or 'classes'"),
        ({'opset': 16, 'fp16': True}, 'opset 16 with fp16: .*; accepted: 17 or later'),
        ({'image_shape': PHOTO}, "image_shape goes with output='classes' and without shape"),
        (
            {'image_shape': PHOTO, 'output': 'classes', 'shape': STATIC},
            "image_shape goes with output='classes' and without shape",
        ),
        ({'image_shape': (480, 640), 'output': 'classes'}, r'shape \(480, 640\); expected \(N, 3, H, W\)'),
    ],
)
def test_what_does_not_go_together_is_refused(models, tmp_path, arguments, message):
    with pytest.raises(ExportError, match=message):
        SegformerExporter(Segformer.from_pretrained(str(models['tiny']))).export_onnx(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_photographs_that_go_through_in_windows_are_refused(models, tmp_path):
    folder = shutil.copytree(models['tiny'], tmp_path / 'model')
    settings = json.loads((folder / 'configuration.json').read_text())
    settings['model']['test_cfg'] = {'mode': 'slide', 'crop_size': [64, 64], 'stride': [48, 48]}
    (folder / 'configuration.json').write_text(json.dumps(settings))
    exporter = SegformerExporter(Segformer.from_pretrained(str(folder)))
    with pytest.raises(ExportError, match="in one piece; the configuration of this one says 'slide'"):
        exporter.export_onnx(tmp_path / 'out', output='classes', image_shape=PHOTO)
