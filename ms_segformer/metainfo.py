"""Names and numbers that are fixed because users, ModelScope or published checkpoints depend on them."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TASK = 'image-segmentation'

# Registry names: those of the EasyCV plugin, so that published configurations resolve.
MODEL = 'Segformer'
PIPELINE = 'easycv-segmentation'
PREPROCESSOR = 'segformer-preprocessor'
TRAINER = 'easycv'
DATASET = 'SegDataset'
METRIC = 'EasyCVMetric'
LR_LOG_HOOK = 'AddLrLogHook'

# ModelScope's logger, whose lines are shown from INFO on and stand in a run's log file: for what is said of a run and
# its data. All else goes to the logger of its module.
RUN_LOGGER = 'modelscope'

DEAD_PLUGIN = 'pai-easycv'  # what published configurations name in `plugins`; it can no longer be installed
HUB_OWNERS = ('damo', 'iic')
IGNORE_INDEX = 255
DEMO = 'demo'
DEMO_NOTE = (
    'the demonstration model: trained on street scenes only, see ms_segformer/demo_model/README.md; '
    'for the published models pass --model ID'
)
ENGINES = ('torch', 'torch-compile', 'openvino', 'onnxruntime')
LANGUAGES = ('en', 'zh')  # that COCO-Stuff's class names are known in
PRECISIONS = ('float32', 'bf16', 'fp16', 'int8')
INT8_FORMATS = ('openvino', 'onnx')  # that `quantize` writes
ONNX_OPSETS = range(16, 24)  # that the network can be written in
ONNX_OUTPUTS = ('logits', 'classes')  # that an ONNX file can give
# The first operator set with layer norms as one operator; spelled out, their squares overflow half precision.
FIRST_FP16_OPSET = 17
COCO_STUFF_IMAGES = 118_287  # of COCO-Stuff 164k train, which the published models were trained on
WEIGHTS_OF_TRANSFORMERS = ('model.safetensors', 'pytorch_model.bin')  # Hugging Face's names, the better one first
NUM_OUTPUTS = 172  # of the published models; output 171 never gets a target and is VOID


@dataclass(frozen=True)
class Variant:
    """One published model.

    Attributes:
        name: `b0` … `b5`.
        embed_dims: channels of the four stages.
        depths: transformer blocks of the four stages.
        head_channels: channels of the decode head.
        parameters: trainable parameters with 172 outputs.
        published_miou: mIoU in percent on the 5,000 COCO-Stuff 164k val images, from the model card.
        published_latency_ms: milliseconds per image on a V100, from the model card.
        short_side: length in pixels that the test pipeline scales an image's short side to.
    """

    name: str
    embed_dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    head_channels: int
    parameters: int
    published_miou: float
    published_latency_ms: float
    short_side: int = 512

    @property
    def model_name(self) -> str:
        """Name of the model repository, e.g. `cv_segformer-b0_image_semantic-segmentation_coco-stuff164k`."""
        return f'cv_segformer-{self.name}_image_semantic-segmentation_coco-stuff164k'

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """The ids this model is published under."""
        return tuple(f'{owner}/{self.model_name}' for owner in HUB_OWNERS)


_WIDE = (64, 128, 320, 512)
# Dims and depths: SegFormer paper, table 6; parameters: counted; mIoU and latency: the six model cards.
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant('b0', (32, 64, 160, 256), (2, 2, 2, 2), 256, 3_759_372, 35.91, 47.2),
        Variant('b1', _WIDE, (2, 2, 2, 2), 256, 13_722_476, 40.53, 46.8),
        Variant('b2', _WIDE, (3, 4, 6, 3), 768, 27_481_964, 44.53, 49.1),
        Variant('b3', _WIDE, (3, 4, 18, 3), 768, 47_357_804, 45.49, 52.3),
        Variant('b4', _WIDE, (3, 8, 27, 3), 768, 64_128_364, 46.27, 58.5),
        Variant('b5', _WIDE, (3, 6, 40, 3), 768, 84_728_684, 46.75, 99.2, short_side=640),
    )
}


def variant_of(embed_dims: Iterable[int], depths: Iterable[int]) -> str | None:
    """Return the name of the variant with these stage widths and depths, or None when it is none of the six."""
    for variant in VARIANTS.values():
        if (tuple(embed_dims), tuple(depths)) == (variant.embed_dims, variant.depths):
            return variant.name
    return None


def variant_of_hub_id(model_id: str) -> Variant | None:
    """Return the `Variant` published under a hub id such as `damo/cv_segformer-b0_…`, or None for any other text."""
    for variant in VARIANTS.values():
        if model_id in variant.hub_ids:
            return variant
    return None


def configuration_dir() -> Path:
    """Folder with one `<model name>/configuration.json` per published model."""
    inside = Path(__file__).parent / 'configuration'
    return inside if inside.is_dir() else Path(__file__).parents[1] / 'configuration'


def own_configuration(name: str) -> Path | None:
    """This package's configuration of a published model, by `b0` … `b5` or a hub id; None for any other text."""
    variant = VARIANTS.get(name.lower()) or variant_of_hub_id(name)
    return configuration_dir() / variant.model_name / 'configuration.json' if variant else None


def photographs() -> list[Path]:
    """The photographs that ship with the package, as files."""
    inside = Path(__file__).parent / 'assets'
    return sorted((inside if inside.is_dir() else Path(__file__).parents[1] / 'assets').glob('china.jpg'))


def demo_model_dir() -> Path:
    """Directory of the demonstration model: a SegFormer-B0 for street scenes, see the README.md in it."""
    return Path(__file__).parent / 'demo_model'


def find_model(name: str | os.PathLike) -> str:
    """Return the directory or hub id that a command's `--model` means.

    Args:
        name: a model directory, a hub id, `b0` … `b5` for the published models, or `demo` for the one in the package.

    Raises:
        FileNotFoundError, NotADirectoryError: it is none of these, most likely a mistyped path, or it is a file.
    """
    name = str(name)
    if name == DEMO:
        return str(demo_model_dir())
    if name and Path(name).is_dir():
        return name
    if name.lower() in VARIANTS:
        return VARIANTS[name.lower()].hub_ids[0]
    if Path(name).is_file():
        raise NotADirectoryError(
            f'{name} is a file; name a model directory: a folder with a configuration.json and weights'
        )
    if re.fullmatch(r'[\w-][\w.-]*/[\w.-]+', name):
        return name
    raise FileNotFoundError(
        f'{name or repr(name)}: no such directory, and neither a hub id such as '
        f'{VARIANTS["b0"].hub_ids[0]} nor one of {", ".join(VARIANTS)}, {DEMO}'
    )
