"""The networks, photographs and peers that the benchmarks compare."""

import tempfile
from pathlib import Path

import numpy as np
import torch

SIZE = (512, 704)  # the network's input for most photographs of 4:3 with the short side at 512, padded to 32


def our_model(variant='b0', model_dir=None):
    """A `Segformer`: trained, from a directory, or with random weights."""
    from ms_segformer import metainfo
    from ms_segformer.config.reader import read_configuration
    from ms_segformer.models.segformer import Segformer

    if model_dir:
        return Segformer.from_pretrained(model_dir)
    torch.manual_seed(0)
    section = read_configuration(metainfo.configuration_dir() / metainfo.VARIANTS[variant].model_name).model_section
    model = Segformer(**section)
    with torch.no_grad():  # biases of 0 and scales of 1, which a trained network has not, would be optimized away
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model.prepare_inference()


def count_flops(model, image):
    """Floating-point operations of the products and convolutions, attention's two products among them."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # With gradients and without a fused attention the network is nothing but operators that the counter knows.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        model.logits(image)
    return counter.get_total_flops()


def random_model_dir(variant, folder):
    """Write a model directory with random weights, for what starts from a directory."""
    import shutil

    from ms_segformer import metainfo
    from ms_segformer.models.checkpoint import save_checkpoint

    source = metainfo.configuration_dir() / metainfo.VARIANTS[variant].model_name / 'configuration.json'
    shutil.copy(source, folder)
    save_checkpoint(Path(folder, 'pytorch_model.pt'), our_model(variant))
    return str(folder)


def int8_model(variant='b0', model_dir=None, photographs=None, folder=None):
    """`our_model` with an int8 network beside its weights, in a folder that is there as long as it is used.

    Args:
        photographs: a folder to calibrate with; None: synthetic ones, which do for times but not for accuracy.
        folder: where to write; None: a temporary one.
    """
    from ms_segformer import quantize
    from ms_segformer.models.segformer import Segformer

    folder = folder or tempfile.mkdtemp()
    if photographs is None:
        photographs = tempfile.mkdtemp()
        for number in range(6):
            photograph(width=640 + 8 * number, folder=photographs)
    quantized = str(Path(folder, 'quantized'))
    quantize(model_dir or random_model_dir(variant, folder), photographs, quantized)
    return Segformer.from_pretrained(quantized).prepare_inference()


def transformers_int8(model, shape, precision, photographs):
    """The `transformers` network with NNCF's own choices for a transformer, for one shape; returns a callable.

    Args:
        precision: of what stays in float.
        photographs: inputs 1×3×H×W float32 to calibrate with.
    """
    from ms_segformer.engines.silent_import import import_nncf, import_openvino

    ov, nncf = import_openvino(), import_nncf()
    graph = ov.convert_model(TransformersLogits(model), example_input=torch.zeros(shape))
    name = graph.input(0).get_any_name()
    graph = nncf.quantize(
        graph, nncf.Dataset(photographs, lambda image: {name: image}), model_type=nncf.ModelType.TRANSFORMER
    )
    graph.reshape({name: list(shape)})
    return _compiled(ov, graph, precision)


def transformers_model(variant='b0'):
    """The same network in `transformers`, random weights, 172 outputs."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from ms_segformer.metainfo import VARIANTS

    v = VARIANTS[variant]
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=list(v.embed_dims), depths=list(v.depths), num_labels=172, decoder_hidden_size=v.head_channels
    )
    return SegformerForSemanticSegmentation(config).eval()


def transformers_on(model, device, dtype=torch.float32, compiled=False):
    """The `transformers` network on a device; returns a callable from an image on the CPU to logits there.

    Args:
        dtype: of weights and activations.
        compiled: by `torch.compile`.
    """
    import copy

    model = copy.deepcopy(model).to(device, dtype)
    run = torch.compile(model) if compiled else model
    return lambda image: run(image.to(device, dtype)).logits


class TransformersLogits(torch.nn.Module):
    """Image to logits, for tracing."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, img):
        return self.model(img).logits


def transformers_openvino(model, shape, precision='f32', any_shape=False):
    """The `transformers` network converted by OpenVINO for one shape, or as it comes for all; returns a callable."""
    from ms_segformer.engines.silent_import import import_openvino

    ov = import_openvino()
    graph = ov.convert_model(
        TransformersLogits(model), example_input=torch.zeros(shape), **({} if any_shape else {'input': [shape]})
    )
    return _compiled(ov, graph, precision)


def _compiled(ov, graph, precision):
    settings = {
        'INFERENCE_PRECISION_HINT': precision,
        'INFERENCE_NUM_THREADS': torch.get_num_threads(),
        'NUM_STREAMS': 1,
    }
    request = ov.Core().compile_model(graph, 'CPU', settings).create_infer_request()
    return lambda image: request.infer([image.numpy()], share_inputs=True, share_outputs=True)


def transformers_onnxruntime(model, shape):
    """The `transformers` network exported to ONNX for one shape; returns a callable."""
    import inspect

    from ms_segformer.engines.silent_import import import_onnxruntime

    onnxruntime = import_onnxruntime()
    options = {'dynamo': False} if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, 'model.onnx'))
        torch.onnx.export(
            TransformersLogits(model), (torch.zeros(shape),), path, input_names=['img'], opset_version=17, **options
        )
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, session_options, providers=['CPUExecutionProvider'])
    return lambda image: session.run(None, {'img': image.numpy()})


def photograph(path=None, width=640, height=480, folder=None):
    """Path of a JPEG of a given size: a photograph scaled and cut, or a synthetic one."""
    import cv2

    folder = folder or tempfile.mkdtemp()
    if path:
        image = cv2.imread(str(path))
        scale = max(width / image.shape[1], height / image.shape[0])
        size = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)[:height, :width]
    else:
        random = np.random.default_rng(0)
        image = sum(
            cv2.resize(
                random.normal(0, 90 / n, (n, n, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
            )
            * n**0.5
            for n in (3, 9, 27, 81)
        )
        image = np.clip(image + 128, 0, 255).astype(np.uint8)
    target = Path(folder, f'photo_{width}x{height}.jpg')
    cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return str(target)


def transformers_pipeline(size, device='cpu', compiled=False):
    """The `transformers` image-segmentation pipeline, B0, at a network input of (height, width)."""
    from transformers import SegformerImageProcessor, pipeline

    processor = SegformerImageProcessor(size={'height': size[0], 'width': size[1]}, do_reduce_labels=False)
    made = pipeline('image-segmentation', model=transformers_model(), image_processor=processor, device=device)
    if compiled:
        made.model = torch.compile(made.model)
    return made


def our_pipeline(model_dir, device='cpu', **options):
    """This package's pipeline on a model directory."""
    from modelscope.pipelines import pipeline

    import ms_segformer  # noqa: F401

    return pipeline('image-segmentation', model_dir, device=device, **options)
