"""How large the networks, images and files of a configuration may be, each limit with its reason.

All are far above what SegFormer is used with and below what stops a machine, so that a mistyped number is an error
with that number in it, at once, and not an allocation of gigabytes.
"""

import operator
from typing import Any

from ..errors import ArgumentError

# --- the network -----------------------------------------------------------------------------------------------------
PARAMETERS = 200_000_000  # B5 has 85 million; these take 0.8 GB in float32, and four times that while AdamW trains them
BLOCKS = 128  # transformer blocks of all stages together; B5 has 52
HEADS = 1024  # attention heads of a stage; the published models have up to 8
HIDDEN_RATIO = 64  # hidden channels of a feed-forward network over its input channels; the published models have 4
PATCH = 31  # side of a patch; the published models have 7 and 3
STRIDE = 8  # of a stage; the published models have 4 and 2
# Pixels of the image, along a side, for one key of a stage's attention: its total stride times its sr_ratio, 32 in
# every published stage. Below 8 the attention of an ordinary photograph takes minutes; above 32 a reduction is larger
# than the map of an image of `SMALLEST_SIDE`.
REDUCTION = (8, 32)
CLASSES = 255  # ids 0 to 254 in the 8 bits of a label map, where 255 is "not labeled"

# --- images ----------------------------------------------------------------------------------------------------------
SMALLEST_SIDE = 29  # pixels; the least that fills the first stage's 8×8 reduction of a map of a quarter of the size
WHOLE_PIXELS = 1 << 24  # of what goes through the network in one piece: 16 times the published 2048×512
SLIDE_PIXELS = 1 << 27  # of an image that goes through in windows: the 134 megapixels that `load_image` takes unasked
OVERLAP = 8  # a stride is at least this part of the window: each pixel then goes through the network up to 64 times
TRAINING_PIXELS = 1 << 25  # of a scaled or padded training image: 0.4 GB as float32, and some copies of it
DIVISOR = 1024  # that sides are padded to a multiple of; the published configurations pad to 32

# --- files and training ----------------------------------------------------------------------------------------------
CONFIGURATION_BYTES = 16 << 20  # a published configuration takes 60 kB
DEPTH = 64  # of mappings and lists in one another; a published configuration has 10
LOSS_WEIGHT = 1e6  # of the loss, or of a class in it
EPOCHS = 1_000_000  # the published recipe has 30
BATCH = 4096  # images in a batch of a process
WORKERS = 256  # loading processes of a process
LARGEST_SEED = 2**32 - 1  # numpy's


def as_integer(value: Any) -> int | None:
    """An integer, numpy's among them, as an `int`; None for anything else, which True and False are."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_list(value: object) -> list:
    """What a configuration names once or in a list, as a list; None is an empty one."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def check_windows(crop: tuple[int, int], stride: tuple[int, int]) -> None:
    """Raise `ArgumentError` unless an image can go through the network in windows of a size, every so many pixels.

    Args:
        crop, stride: (height, width) in pixels of the windows and of the steps between them.
    """
    window, step = f'windows of {crop[0]}×{crop[1]} pixels (crop size)', f'a stride of {stride[0]}×{stride[1]}'
    if min(crop) < SMALLEST_SIDE or crop[0] * crop[1] > WHOLE_PIXELS:
        raise ArgumentError(
            f'{window}; accepted: sides of at least {SMALLEST_SIDE}, and {WHOLE_PIXELS:,} pixels at most'
        )
    if any(step > size for step, size in zip(stride, crop, strict=True)):
        raise ArgumentError(f'{window} with {step}, which would leave gaps; accepted: a stride of at most the window')
    if any(step * OVERLAP < size for step, size in zip(stride, crop, strict=True)):
        raise ArgumentError(
            f'{window} with {step}, for which each pixel would be computed up to '
            f'{-(-crop[0] // stride[0]) * -(-crop[1] // stride[1]):,} times; accepted: a stride of at '
            f'least 1/{OVERLAP} of the window'
        )
