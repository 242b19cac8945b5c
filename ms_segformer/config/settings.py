"""What a configuration says, typed; the defaults of the network and of its preparation of images stand here alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..metainfo import IGNORE_INDEX, variant_of


@dataclass(frozen=True)
class BackboneSettings:
    """Arguments of `models.mix_transformer.MixVisionTransformer`."""

    in_channels: int = 3
    embed_dims: int = 32
    num_layers: tuple[int, ...] = (2, 2, 2, 2)
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    mlp_ratio: int = 4
    qkv_bias: bool = True
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.1
    layer_norm_eps: float = 1e-6

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        return tuple(self.embed_dims * heads for heads in self.num_heads)


@dataclass(frozen=True)
class LossSettings:
    """Cross entropy of the decode head.

    Attributes:
        avg_non_ignore: False averages over all pixels, ignored ones included, as the published configurations do.
    """

    loss_weight: float = 1.0
    class_weight: tuple[float, ...] | None = None
    avg_non_ignore: bool = False


@dataclass(frozen=True)
class HeadSettings:
    """Arguments of `models.segformer_head.SegformerHead`, and the loss."""

    in_channels: tuple[int, ...]
    channels: int
    num_classes: int
    dropout_ratio: float = 0.1
    align_corners: bool = False
    plain_projections: bool = False
    norm: str = 'BN'
    ignore_index: int = IGNORE_INDEX
    loss: LossSettings = LossSettings()


@dataclass(frozen=True)
class InferenceSettings:
    """How an image goes through the network: `whole`, or `slide` in windows of `crop_size` every `stride` pixels."""

    mode: str = 'whole'
    crop_size: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None


@dataclass(frozen=True)
class ModelSettings:
    """The network: backbone, head, test mode and the ImageNet weights it starts from when trained from scratch."""

    backbone: BackboneSettings
    head: HeadSettings
    test: InferenceSettings = InferenceSettings()
    pretrained: str | None = None

    @property
    def variant(self) -> str | None:
        """`b0` … `b5`, or None for a network of other dimensions."""
        return variant_of(self.backbone.channels, self.backbone.num_layers)

    @property
    def parameters(self) -> int:
        """How many parameters the network has; nothing is built to count them."""
        head, channels = self.head, self.backbone.channels
        projections = sum(channels) * head.channels + 4 * head.channels * (1 if head.plain_projections else 2)
        fusion = 4 * head.channels**2 + 2 * head.channels
        return sum(_stage_parameters(self.backbone)) + projections + fusion + (head.channels + 1) * head.num_classes


@dataclass(frozen=True)
class PreprocessSettings:
    """From an RGB image to the network's input.

    Attributes:
        scale: (long side at most, short side), in pixels; or (width, height) without `keep_ratio`.
        keep_ratio: scale both sides alike.
        mean, std: per RGB channel, on the 0–255 scale.
        size_divisor: zeros are added at the bottom and right up to a multiple of this; None for no padding.
    """

    scale: tuple[int, int] = (2048, 512)
    keep_ratio: bool = True
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    size_divisor: int | None = None


@dataclass(frozen=True)
class Settings:
    """What a configuration says.

    Attributes:
        model, preprocess: the network, and what it is given.
        classes: names by id.
        palette: (red, green, blue) of 0–255 by class; None where the configuration has none.
        model_section, pipeline_section: as they are written, with tuples decoded; ModelScope gives what stands in them
            to constructors: `Segformer(**settings.model_section)`.
        test_pipeline: the transforms that an image is tested with, as they are written, with tuples decoded.
        source: the file's path, for messages.
    """

    model: ModelSettings
    preprocess: PreprocessSettings
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    model_section: dict[str, Any] = field(repr=False)
    pipeline_section: dict[str, Any] = field(repr=False)
    test_pipeline: Sequence[dict[str, Any]] = field(repr=False)
    source: str = 'configuration'


def _stage_parameters(backbone: BackboneSettings) -> Iterator[int]:
    inputs = backbone.in_channels
    for stage, channels in enumerate(backbone.channels):
        reduction = backbone.sr_ratios[stage]
        attention = 4 * channels**2 + channels + (3 * channels if backbone.qkv_bias else 0)
        attention += channels**2 * reduction**2 + 3 * channels if reduction > 1 else 0
        hidden = backbone.mlp_ratio * channels
        block = attention + 2 * channels * hidden + 11 * hidden + channels + 4 * channels
        yield (
            inputs * backbone.patch_sizes[stage] ** 2 * channels
            + 3 * channels
            + backbone.num_layers[stage] * block
            + 2 * channels
        )
        inputs = channels
