"""Our network in EasyCV's own registries, for its command-line tools and predictors. Importing this registers it.

In a configuration of EasyCV:

    custom_imports = dict(imports=['ms_segformer.models.easycv_registry'])
    model = dict(type='MsSegformer', backbone=dict(...), decode_head=dict(...))   # the rest as for EncoderDecoder

In a configuration of ModelScope that EasyCV serves, `model.__easycv_arch__.type` becomes `MsSegformer`, and this module
is imported first. `MsMixVisionTransformer` and `MsSegformerHead` also go with EasyCV's other heads and backbones.
State-dict keys are those of EasyCV's SegFormer, so checkpoints go both ways.

Needs EasyCV; `ms_segformer.integrations.easycv.bridge.register_in_easycv` says so in words where it is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from easycv.core.evaluation.metrics import accuracy
from easycv.models.builder import BACKBONES, HEADS, MODELS, build_loss
from easycv.models.segmentation.encoder_decoder import EncoderDecoder
from torch import nn

from ..config.reader import ConfigurationError, read_model_section
from ..metainfo import MODEL
from .mix_transformer import MixVisionTransformer
from .segformer_head import SegformerHead

# A backbone alone is checked as part of a whole model section; this is the rest of it.
_ANY_HEAD = {'type': 'SegformerHead', 'channels': 1, 'num_classes': 2}

NAMES = ['MsMixVisionTransformer', 'MsSegformerHead', 'MsSegformer']


@BACKBONES.register_module(force=True)
class MsMixVisionTransformer(MixVisionTransformer):
    """The backbone with EasyCV's interface: four maps N×C×h×w, finest first."""

    def __init__(self, **arguments: Any) -> None:
        known = read_model_section(
            {'type': MODEL, 'backbone': {**arguments, 'type': 'MixVisionTransformer'}, 'decode_head': _ANY_HEAD},
            name='EasyCV configuration',
        ).backbone
        super().__init__(**asdict(known))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]  # as EasyCV has it
        return tuple(feature.permute(0, 3, 1, 2) for feature in super().forward(x))

    def init_weights(self, pretrained: Any = None) -> None:
        """Does nothing: the constructor has set the initial weights."""


@HEADS.register_module(force=True)
class MsSegformerHead(SegformerHead):
    """The head with EasyCV's interface, and with any loss that EasyCV knows.

    Args:
        loss_decode: one configuration of EasyCV's `LOSSES`, or several; the rest as `segformer_head.SegformerHead`.
        in_index: which of the backbone's maps are taken.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        in_index: Sequence[int] = (0, 1, 2, 3),
        dropout_ratio: float = 0.1,
        align_corners: bool = False,
        ignore_index: int = 255,
        sampler: Mapping[str, Any] | None = None,
        loss_decode: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        plain_projections: bool = False,
        **_: Any,
    ) -> None:
        if sampler is not None:
            raise ConfigurationError(
                'MsSegformerHead takes every pixel into the loss: remove `sampler` from decode_head'
            )
        super().__init__(in_channels, channels, num_classes, dropout_ratio, align_corners, plain_projections)
        self.in_index = tuple(in_index)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        loss_decode = loss_decode or {'type': 'CrossEntropyLoss', 'use_sigmoid': False, 'loss_weight': 1.0}
        losses = [loss_decode] if isinstance(loss_decode, Mapping) else loss_decode
        self.loss_decode = nn.ModuleList(build_loss(dict(loss)) for loss in losses)

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return super().forward([inputs[i].permute(0, 2, 3, 1) for i in self.in_index])

    def forward_train(
        self, inputs: Sequence[torch.Tensor], img_metas: Any, gt_semantic_seg: torch.Tensor, train_cfg: Any
    ) -> dict[str, torch.Tensor]:
        """Return the losses by name and `acc_seg` in percent; labels are N×1×H×W."""
        logits = F.interpolate(
            self(inputs), gt_semantic_seg.shape[2:], mode='bilinear', align_corners=self.align_corners
        )
        labels = gt_semantic_seg.squeeze(1)
        results: dict[str, torch.Tensor] = {}
        for loss in self.loss_decode:
            value, name = loss(logits, labels, ignore_index=self.ignore_index), str(loss.loss_name)
            results[name] = results[name] + value if name in results else value
        results['acc_seg'] = accuracy(logits, labels, ignore_index=self.ignore_index)
        return results

    def forward_test(self, inputs: Sequence[torch.Tensor], img_metas: Any, test_cfg: Any) -> torch.Tensor:
        return self(inputs)


@MODELS.register_module(force=True)
class MsSegformer(EncoderDecoder):
    """EasyCV's encoder-decoder around our backbone and head, whatever the configuration calls the two."""

    def __init__(self, backbone: Mapping[str, Any], decode_head: Mapping[str, Any], **others: Any) -> None:
        others.pop('__easycv_arch__', None)
        super().__init__(
            backbone={**backbone, 'type': 'MsMixVisionTransformer'},
            decode_head={**decode_head, 'type': 'MsSegformerHead'},
            **others,
        )
