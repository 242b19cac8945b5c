"""The SegFormer model as ModelScope knows it: backbone and head under the published state-dict keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from modelscope.models.base import TorchModel
from modelscope.models.builder import MODELS

from ..config.reader import read_model_section
from ..metainfo import MODEL, TASK
from .checkpoint import find_checkpoint, load_checkpoint
from .folding import Folding
from .losses import upsampled_cross_entropy
from .mix_transformer import MixVisionTransformer
from .segformer_head import SegformerHead


@MODELS.register_module(group_key=TASK, module_name=MODEL, force=True)
class Segformer(TorchModel):
    """SegFormer (Xie et al., 2021), B0 to B5 or any other size.

    The arguments are the `model` section of a configuration as it stands. `Model.from_pretrained` also loads the
    checkpoint of the model directory; the constructor alone leaves the weights random.

    Attributes:
        settings: the section as `config.settings.ModelSettings`.
        backbone, decode_head: the network; their state-dict keys equal the published checkpoints'.
        folding: the head's fast form, after `prepare_inference`.
        loss_at_logits_size: take the loss at the logits' size, with the labels sampled down to it, instead of scaling
            the logits up: cheaper, and not what the original does. False unless the trainer is told otherwise.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike | None = None,
        backbone: Mapping[str, Any] | None = None,
        decode_head: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        pretrained: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(model_dir)
        self.settings = read_model_section(
            {
                'type': MODEL,
                'backbone': backbone,
                'decode_head': decode_head,
                'test_cfg': test_cfg,
                'pretrained': pretrained,
            },
            name=str(model_dir or 'configuration'),
        )
        self.loss_at_logits_size = False
        self.folding: Folding | None = None
        head = self.settings.head
        self.backbone = MixVisionTransformer(**asdict(self.settings.backbone))
        self.decode_head = SegformerHead(
            head.in_channels,
            head.channels,
            head.num_classes,
            head.dropout_ratio,
            head.align_corners,
            head.plain_projections,
        )

    @classmethod
    def of_directory(cls, model_dir: str | os.PathLike, section: Mapping[str, Any]) -> Segformer:
        """The network of a model directory with its weights, without ModelScope's registry.

        Args:
            model_dir: where the checkpoint lies.
            section: the `model` section of its configuration.

        Raises:
            CheckpointError, ConfigurationError: it cannot be had.
        """
        return cls._instantiate(model_dir=model_dir, **section)

    @classmethod
    def _instantiate(cls, **kwargs: Any) -> Segformer:
        model = cls(**kwargs)
        load_checkpoint(model, find_checkpoint(model.model_dir))
        return model.eval()

    def forward(
        self, img: torch.Tensor, gt_semantic_seg: torch.Tensor | None = None, img_metas: Any = None, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Return logits, or losses when labels are given while training.

        Args:
            img: N×3×H×W float tensor, normalized RGB.
            gt_semantic_seg: N×1×H×W or N×H×W integer labels, `ignore_index` (255) where there is none.
            img_metas: accepted for the sake of the data pipeline; not used.

        Returns:
            A dict with `logits`, N×C×ceil(H/4)×ceil(W/4); with labels in training mode one with `loss`,
            `decode.loss_ce` and `decode.acc_seg`, the last in percent.
        """
        logits = self.logits(img)
        if gt_semantic_seg is None or not self.training:
            return {'logits': logits}
        return self.losses(logits, gt_semantic_seg)

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        """N×3×H×W normalized RGB to N×C×ceil(H/4)×ceil(W/4) class logits."""
        head = self.decode_head if self.folding is None else self.folding.folded()
        return head(self.backbone(img))

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross entropy, by default at the labels' resolution, averaged as the configuration says; see `forward`."""
        settings = self.settings.head
        labels = labels.reshape(labels.shape[0], *labels.shape[-2:])
        if self.loss_at_logits_size:
            rows, columns = (
                (2 * torch.arange(size, device=labels.device) + 1) * labels.shape[axis] // (2 * size)
                for axis, size in ((1, logits.shape[2]), (2, logits.shape[3]))
            )
            labels = labels[:, rows[:, None], columns]
        labels = labels.long()
        weight = None
        if settings.loss.class_weight is not None:
            weight = logits.new_tensor(settings.loss.class_weight, dtype=torch.float32)
        loss, correct = upsampled_cross_entropy(logits, labels, weight, settings.ignore_index, settings.align_corners)
        counted = (labels != settings.ignore_index).sum().clamp(min=1)
        # The original divides by every pixel, ignored ones too, unless avg_non_ignore says otherwise.
        loss = loss * settings.loss.loss_weight / (counted if settings.loss.avg_non_ignore else labels.numel())
        accuracy = 100 * correct / counted
        return {'loss': loss, 'decode.loss_ce': loss.detach(), 'decode.acc_seg': accuracy}

    def prepare_inference(self) -> Segformer:
        """Switch to evaluation mode and fold the batch norms; `train()` undoes both. Returns the model.

        Parameters and state dict stay as they are. Calling it again costs little unless a weight has changed since.
        """
        self.eval()
        self.folding = self.folding or Folding(self.decode_head)
        self.folding.folded()
        return self

    def train(self, mode: bool = True) -> Segformer:
        if mode:
            self.folding = None
        return super().train(mode)
