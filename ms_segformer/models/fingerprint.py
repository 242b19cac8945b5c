"""Tells one model from another by what its results depend on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from ..config.settings import Settings

if TYPE_CHECKING:
    from .segformer import Segformer


def fingerprint(model: torch.nn.Module, settings: Settings) -> str:
    """SHA-256 over weights and settings.

    Args:
        model: the network; names, types, shapes and values of its state dict count.
        settings: its configuration; network, preprocessing, classes and palette count, what else the file says does
            not.

    Returns:
        64 hexadecimal digits.
    """
    described = repr((settings.model, settings.preprocess, settings.classes, settings.palette))
    # Manifests and reports of before the class was renamed say the old name, and their models are the same.
    digest = hashlib.sha256(described.replace('InferenceSettings(', 'TestSettings(').encode())
    add_weights(digest, model)
    return digest.hexdigest()


def add_weights(digest: hashlib._Hash, model: torch.nn.Module) -> None:
    """Take names, types, shapes and values of a state dict into a digest."""
    for name, value in model.state_dict().items():
        digest.update(f'{name}{tuple(value.shape)}{value.dtype}'.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def network_fingerprint(model: Segformer) -> str:
    """SHA-256 over what a network's logits depend on, in 64 hexadecimal digits.

    That is its weights, and of its settings those that the shapes of the weights do not show. Preprocessing, class
    names and colors, loss and dropout do not count.
    """
    backbone, head = model.settings.backbone, model.settings.head
    described = (
        backbone.num_heads,
        backbone.strides,
        backbone.layer_norm_eps,
        head.align_corners,
        head.plain_projections,
    )
    digest = hashlib.sha256(repr(described).encode())
    add_weights(digest, model)
    return digest.hexdigest()
