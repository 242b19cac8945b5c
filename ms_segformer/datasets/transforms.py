"""Image and label transforms with the names and the meaning they have in EasyCV's published configurations.

A transform is a callable that takes the sample's `results` dict and returns it:

    img               H×W×3 BGR, uint8 or float32
    gt_semantic_seg   H×W uint8 class ids (absent at inference)
    filename, ori_filename, ori_shape, img_shape, pad_shape, scale_factor, flip, flip_direction, img_norm_cfg
    img_fields, seg_fields   the keys above that hold images and label maps
    rng               `numpy.random.RandomState` of this sample; without it the draws come from numpy's global stream

Random draws happen in the original's order and with the original's calls, so a `RandomState(seed)` here and
`numpy.random.seed(seed)` there give the same crop, flip and colours.
"""
import inspect
import math
import random

import cv2
import numpy as np

from ..config.limits import DIVISOR, TRAINING_PIXELS
from ..config.messages import shown
from ..config.schema import FLAG, TEXT, Kind, either, integer, number, several, wrong_value
from .errors import DatasetError

TRANSFORMS = {}


def _register(cls):
    TRANSFORMS[cls.__name__] = cls
    return cls


def sample_rng(seed, epoch, index):
    """Return the random stream of one sample, a function of these three non-negative integers and nothing else."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence((int(seed), int(epoch), int(index)))))


def build(cfg, fallback=None):
    """Return the transform a configuration entry describes.

    Args:
        cfg: `{'type': name or class, **arguments}`, or a callable, which is returned as it is.
        fallback: callable that gets a name unknown here and returns a class, or None when it knows none either.

    Raises:
        DatasetError: unknown name or arguments that the transform does not take; the message lists what is known.
    """
    if callable(cfg):
        return cfg
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise DatasetError(f'a transform is a dict with the key "type", e.g. {{"type": "MMResize", …}}; got {cfg!r}')
    arguments = {key: value for key, value in cfg.items() if key != 'type'}
    cls = cfg['type']
    if isinstance(cls, str):
        cls = TRANSFORMS.get(cls) or (fallback(cls) if fallback else None)
    if cls is None:
        raise DatasetError(f'unknown transform "{shown(cfg["type"], quoted=False)}". Known are: '
                           f'{", ".join(sorted(TRANSFORMS))}. Correct the name in the pipeline of the configuration')
    if not callable(cls):
        raise DatasetError(f'the type of a transform is its name or its class, got {shown(cls)}')
    _check_arguments(cls, arguments)
    wrong = wrong_value(arguments, _ARGUMENTS) if cls in _OWN else None
    if wrong:
        raise DatasetError(f'{cls.__name__}: {wrong}')
    if cls is MMMultiScaleFlipAug:
        arguments['fallback'] = fallback
    return cls(**arguments)


def _check_arguments(cls, arguments):
    parameters = inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    names = [name for name in parameters if name != 'fallback']
    unknown = [name for name in arguments if name not in names]
    missing = [name for name in names
               if parameters[name].default is inspect.Parameter.empty and name not in arguments]
    if unknown or missing:
        problem = f'does not take {unknown}' if unknown else f'needs {missing}'
        raise DatasetError(f'transform {cls.__name__} {problem}; its arguments are: {", ".join(names) or "none"}')


class Compose:
    """Transforms in a row.

    Args:
        cfgs: sequence of configuration entries or callables, see `build`.
        fallback: see `build`.

    A transform from elsewhere (found by `fallback`, or a callable of the user's) may draw from the global streams of
    `numpy.random` and `random`. While it runs for a sample that has a random stream of its own, the global ones are
    seeded from it, and put back afterwards.
    """

    def __init__(self, cfgs, fallback=None):
        if not isinstance(cfgs, (list, tuple)):
            raise DatasetError(f'a pipeline is a list of transforms, got {shown(cfgs)}')
        self.transforms = [build(cfg, fallback) for cfg in cfgs]

    def __call__(self, results):
        """Return `results` after the last transform, or None when a transform dropped the sample."""
        for transform in self.transforms:
            if 'rng' not in results or type(transform) in _OWN:
                results = transform(results)
            else:
                results = _with_global_streams(transform, results)
            if results is None:
                return None
        return results


def _with_global_streams(transform, results):
    saved, saved_python = np.random.get_state(), random.getstate()
    seed = results['rng'].randint(0, 2 ** 31)
    np.random.seed(seed)
    random.seed(int(seed))
    try:
        return transform(results)
    finally:
        np.random.set_state(saved)
        random.setstate(saved_python)


def _stream(results):
    return results.get('rng', np.random)


def _pair(value, what):
    """Return (a, b) as two integers from one number or a sequence of two."""
    if isinstance(value, (int, np.integer)):
        value = (value, value)
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(
            isinstance(side, (int, float, np.number)) and 0 < side < math.inf for side in value):
        raise DatasetError(f'{what} is a pair of positive numbers, got {value!r}')
    _check_pixels(value[0] * value[1], f'{what} {value!r}')
    return int(value[0]), int(value[1])


def _check_pixels(count, what):
    if count > TRAINING_PIXELS:
        raise DatasetError(f'{what} makes images of {int(count):,} pixels; accepted: up to {TRAINING_PIXELS:,}')


def _scales(img_scale, what):
    """Return the scales of a configuration as a list of (long, short): one pair, or a list of pairs."""
    if img_scale is None:
        return None
    if len(img_scale) and isinstance(img_scale[0], (list, tuple)):
        return [_pair(scale, what) for scale in img_scale]
    return [_pair(img_scale, what)]


def _check_range(value, what):
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not value[0] <= value[1]:
        raise DatasetError(f'{what} is a pair (low, high) with low ≤ high, got {value!r}')
    return tuple(value)


def fit_size(shape, scale):
    """Return the (height, width) of an image scaled with its ratio kept to fit into a scale.

    Args:
        shape: (height, width, …) of the image in pixels.
        scale: two numbers of pixels; the larger bounds the long side, the smaller the short side.
    """
    height, width = shape[:2]
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


_INTERPOLATIONS = {'nearest': cv2.INTER_NEAREST, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC,
                   'area': cv2.INTER_AREA, 'lanczos': cv2.INTER_LANCZOS4}


@_register
class MMResize:
    """Scale image (bilinear) and label map (nearest).

    Args:
        img_scale: (long, short) in pixels, or a list of such pairs; None when `MMMultiScaleFlipAug` sets the scale.
        multiscale_mode: how one of several scales is drawn: `range` draws both sides uniformly between the smallest
            and the largest, `value` draws one of the pairs.
        ratio_range: (low, high): the single `img_scale` is multiplied by a ratio drawn uniformly from it.
        keep_ratio: scale to fit into (long, short) with the ratio kept; otherwise resize to (width, height).
        interpolation: of the image: nearest, bilinear, bicubic, area or lanczos.
        bbox_clip_border, backend, override: accepted for published configurations; they have no effect here.
    """

    def __init__(self, img_scale=None, multiscale_mode='range', ratio_range=None, keep_ratio=True,
                 interpolation='bilinear', bbox_clip_border=True, backend='cv2', override=False):
        self.img_scale = _scales(img_scale, 'MMResize: img_scale')
        self.ratio_range = ratio_range and _check_range(ratio_range, 'MMResize: ratio_range')
        self.multiscale_mode = multiscale_mode
        self.keep_ratio = keep_ratio
        if multiscale_mode not in ('range', 'value'):
            raise DatasetError(f'MMResize: multiscale_mode is "range" or "value", got {multiscale_mode!r}')
        if ratio_range and (self.img_scale is None or len(self.img_scale) != 1):
            raise DatasetError(f'MMResize: ratio_range needs exactly one img_scale, got {img_scale!r}')
        if ratio_range:
            _check_pixels(math.prod(self.img_scale[0]) * self.ratio_range[1] ** 2,
                          f'MMResize: img_scale {img_scale!r} with ratio_range {ratio_range!r}')
        if interpolation not in _INTERPOLATIONS:
            raise DatasetError(f'MMResize: interpolation is one of {", ".join(_INTERPOLATIONS)}; got {interpolation!r}')
        self.interpolation = _INTERPOLATIONS[interpolation]

    def __call__(self, results):
        """Resize every image and label map; set `scale`, `scale_factor` (w, h, w, h), `img_shape`, `pad_shape`."""
        if 'scale' not in results:
            results['scale'] = self._scale(results)
        height, width = results['img'].shape[:2]
        new = fit_size((height, width), results['scale']) if self.keep_ratio else results['scale'][::-1]
        for key in results.get('img_fields', ['img']):
            results[key] = _resize(results[key], new, self.interpolation)
        for key in results.get('seg_fields', []):
            results[key] = _resize(results[key], new, cv2.INTER_NEAREST)
        factor = (new[1] / width, new[0] / height)
        results['scale_factor'] = np.array(factor * 2, np.float32)
        results['img_shape'] = results['pad_shape'] = results['img'].shape
        results['keep_ratio'] = self.keep_ratio
        return results

    def _scale(self, results):
        if 'scale_factor' in results and self.img_scale is None:
            height, width = results['img'].shape[:2]
            factor = results['scale_factor']
            if isinstance(factor, float) and factor > 0:
                return int(width * factor), int(height * factor)
        if self.img_scale is None:
            raise DatasetError('MMResize without img_scale gets its scale from MMMultiScaleFlipAug; '
                               'give img_scale, or put it into the transforms of MMMultiScaleFlipAug')
        rng = _stream(results)
        if self.ratio_range:
            low, high = self.ratio_range
            ratio = rng.random_sample() * (high - low) + low
            return int(self.img_scale[0][0] * ratio), int(self.img_scale[0][1] * ratio)
        if len(self.img_scale) == 1:
            return self.img_scale[0]
        if self.multiscale_mode == 'value':
            return self.img_scale[rng.randint(len(self.img_scale))]
        longs, shorts = [max(scale) for scale in self.img_scale], [min(scale) for scale in self.img_scale]
        return rng.randint(min(longs), max(longs) + 1), rng.randint(min(shorts), max(shorts) + 1)


def _resize(array, size, interpolation):
    height, width = size
    if array.shape[:2] == (height, width):
        return array
    if height < 1 or width < 1:
        raise DatasetError(f'an image of {array.shape[1]}×{array.shape[0]} pixels would become {width}×{height}; '
                           'give a larger img_scale or ratio_range')
    return cv2.resize(array, (width, height), interpolation=interpolation)


@_register
class SegRandomCrop:
    """Cut the same random window out of image and label map.

    Args:
        crop_size: (height, width) of the window in pixels; where the image is smaller it stays as it is.
        cat_max_ratio: below 1, up to ten further windows are drawn until the most frequent class covers less than
            this share of the labelled pixels and at least two classes are in it; the last is taken in any case.
        ignore_index: label value that does not count as a class.
    """

    def __init__(self, crop_size, cat_max_ratio=1.0, ignore_index=255):
        self.crop_size = _pair(crop_size, 'SegRandomCrop: crop_size')
        self.cat_max_ratio = cat_max_ratio
        self.ignore_index = ignore_index

    def __call__(self, results):
        """Crop; set `img_shape`."""
        rng, shape = _stream(results), results['img'].shape
        window = self._window(rng, shape)
        if self.cat_max_ratio < 1:
            for _ in range(10):
                if self._is_varied(results['gt_semantic_seg'][window]):
                    break
                window = self._window(rng, shape)
        for key in [*results.get('img_fields', ['img']), *results.get('seg_fields', [])]:
            results[key] = results[key][window]
        results['img_shape'] = results['pad_shape'] = results['img'].shape
        return results

    def _window(self, rng, shape):
        height, width = self.crop_size
        top = rng.randint(0, max(shape[0] - height, 0) + 1)
        left = rng.randint(0, max(shape[1] - width, 0) + 1)
        return slice(top, top + height), slice(left, left + width)

    def _is_varied(self, label):
        counts = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel()  # exact below 2**24 pixels
        if 0 <= self.ignore_index < 256:
            counts[self.ignore_index] = 0
        return np.count_nonzero(counts) > 1 and counts.max() / counts.sum(dtype=np.float64) < self.cat_max_ratio


@_register
class MMRandomFlip:
    """Mirror image and label map.

    Args:
        flip_ratio: probability of flipping, or one probability per direction; None: only when `flip` is already set,
            as `MMMultiScaleFlipAug` does.
        direction: horizontal, vertical or diagonal (both), or a list of these of which one is drawn.
    """

    _CODES = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}

    def __init__(self, flip_ratio=None, direction='horizontal'):
        self.directions = [direction] if isinstance(direction, str) else list(direction)
        unknown = set(self.directions) - set(self._CODES)
        if unknown:
            raise DatasetError(f'MMRandomFlip: direction is one of {", ".join(self._CODES)}; got {sorted(unknown)}')
        self.probabilities = self._probabilities(flip_ratio)

    def _probabilities(self, flip_ratio):
        if flip_ratio is None:
            return None
        if isinstance(flip_ratio, (list, tuple)):
            single = list(flip_ratio)
        else:
            single = [flip_ratio / len(self.directions)] * len(self.directions)
        if len(single) != len(self.directions) or min(single) < 0 or sum(single) > 1:
            raise DatasetError(f'MMRandomFlip: flip_ratio is a probability, or one per direction with a sum of at most '
                               f'1; got {flip_ratio!r} for the directions {self.directions}')
        return [*single, 1 - sum(single)]

    def __call__(self, results):
        """Flip or not; set `flip` and `flip_direction`."""
        if 'flip' not in results:
            results['flip_direction'] = self._draw(_stream(results))
            results['flip'] = results['flip_direction'] is not None
        if results['flip']:
            code = self._CODES[results.get('flip_direction') or self.directions[0]]
            for key in [*results.get('img_fields', ['img']), *results.get('seg_fields', [])]:
                results[key] = cv2.flip(results[key], code)
        return results

    def _draw(self, rng):
        if self.probabilities is None:
            return None
        chosen = rng.choice(len(self.probabilities), p=self.probabilities)
        return self.directions[chosen] if chosen < len(self.directions) else None


@_register
class MMPhotoMetricDistortion:
    """Change brightness, contrast, saturation and hue, and swap channels, each with probability 1/2.

    Contrast comes before or after the change of saturation and hue, with equal probability. The image becomes float32
    and is not clipped: values may leave 0-255, as in the original.

    Args:
        brightness_delta: largest shift, in grey levels.
        contrast_range, saturation_range: (low, high) of the factor.
        hue_delta: largest shift, in degrees.
    """

    def __init__(self, brightness_delta=32, contrast_range=(0.5, 1.5), saturation_range=(0.5, 1.5), hue_delta=18):
        self.brightness_delta = brightness_delta
        self.contrast_range = _check_range(contrast_range, 'MMPhotoMetricDistortion: contrast_range')
        self.saturation_range = _check_range(saturation_range, 'MMPhotoMetricDistortion: saturation_range')
        self.hue_delta = hue_delta

    def __call__(self, results):
        """Replace `img` by its distorted copy."""
        rng = _stream(results)
        img = results['img'].astype(np.float32)
        if rng.randint(2):
            img += np.float32(rng.uniform(-self.brightness_delta, self.brightness_delta))
        contrast_first = rng.randint(2) == 1
        if contrast_first:
            self._contrast(img, rng)
        img = self._saturation_and_hue(img, rng)
        if not contrast_first:
            self._contrast(img, rng)
        if rng.randint(2):
            img = cv2.merge([img[..., channel] for channel in rng.permutation(3)])
        results['img'] = img
        return results

    def _contrast(self, img, rng):
        if rng.randint(2):
            img *= np.float32(rng.uniform(*self.contrast_range))

    def _saturation_and_hue(self, img, rng):
        hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)  # float32: hue in degrees, saturation 0-1
        if rng.randint(2):
            hsv[..., 1] *= np.float32(rng.uniform(*self.saturation_range))
        if rng.randint(2):
            hue = hsv[..., 0] + np.float32(rng.uniform(-self.hue_delta, self.hue_delta))
            hue -= np.float32(360) * (hue > 360)
            hue += np.float32(360) * (hue < 0)
            hsv[..., 0] = hue
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


@_register
class MMNormalize:
    """Subtract the mean and divide by the standard deviation of each channel.

    Args:
        mean, std: one number per channel, in grey levels, in RGB order when `to_rgb` (else in the image's order).
        to_rgb: turn BGR into RGB first.
    """

    def __init__(self, mean, std, to_rgb=True):
        self.mean = np.array(mean, np.float32)
        self.std = np.array(std, np.float32)
        self.to_rgb = to_rgb
        if self.mean.shape != self.std.shape or self.mean.ndim != 1 or not (self.std > 0).all():
            raise DatasetError(f'MMNormalize: mean and std hold one number per channel, std above 0; got {mean}, {std}')
        self._shift, self._scale = self.mean.astype(np.float64), 1 / self.std.astype(np.float64)
        # The normalised value of each of the 256 grey levels: a uint8 image is looked up, not computed.
        self._table = ((np.arange(256)[:, None] - self._shift) * self._scale).astype(np.float32)  # 256×C

    def __call__(self, results):
        """Replace the images by float32; set `img_norm_cfg`."""
        for key in results.get('img_fields', ['img']):
            results[key] = self._normalize(results[key])
        results['img_norm_cfg'] = {'mean': self.mean, 'std': self.std, 'to_rgb': self.to_rgb}
        return results

    def _normalize(self, img):
        if self.to_rgb:
            img = cv2.cvtColor(img, cv2.COLOR_BGR2RGB)
        if img.dtype == np.uint8:
            return cv2.LUT(img, self._table[None])
        img = cv2.subtract(img, self._shift[None], dtype=cv2.CV_32F)
        return cv2.multiply(img, self._scale[None], dst=img)


@_register
class MMPad:
    """Pad image and label map at the bottom and on the right.

    Args:
        size: (height, width) to pad to.
        size_divisor: pad to the next multiple of this instead.
        pad_to_square: pad to the longer side instead.
        pad_val: value for images (`img`) and label maps (`seg`), or one number for images.
    """

    def __init__(self, size=None, size_divisor=None, pad_to_square=False, pad_val=None):
        if sum([size is not None, size_divisor is not None, bool(pad_to_square)]) != 1:
            raise DatasetError(f'MMPad takes exactly one of size, size_divisor and pad_to_square; '
                               f'got size={size}, size_divisor={size_divisor}, pad_to_square={pad_to_square}')
        self.size = size and _pair(size, 'MMPad: size')
        self.size_divisor = size_divisor
        self.pad_to_square = pad_to_square
        values = pad_val if isinstance(pad_val, dict) else {} if pad_val is None else {'img': pad_val}
        self.pad_val = {'img': 0, 'seg': 255, **values}

    def __call__(self, results):
        """Pad; set `pad_shape`, `pad_fixed_size`, `pad_size_divisor`."""
        target = self._target(results['img'].shape)
        for key in results.get('img_fields', ['img']):
            results[key] = _pad(results[key], target, self.pad_val['img'])
        for key in results.get('seg_fields', []):
            results[key] = _pad(results[key], target, self.pad_val['seg'])
        results['pad_shape'] = results['img'].shape
        results['pad_fixed_size'], results['pad_size_divisor'] = self.size, self.size_divisor
        return results

    def _target(self, shape):
        height, width = shape[:2]
        if self.pad_to_square:
            return max(height, width), max(height, width)
        if self.size_divisor:
            return tuple(-(-side // self.size_divisor) * self.size_divisor for side in (height, width))
        if height > self.size[0] or width > self.size[1]:
            raise DatasetError(f'MMPad: an image of {height}×{width} (height×width) does not fit into the size '
                               f'{self.size[0]}×{self.size[1]}; crop it first or use size_divisor')
        return self.size


def _pad(array, target, value):
    bottom, right = target[0] - array.shape[0], target[1] - array.shape[1]
    if not bottom and not right:
        return array
    return cv2.copyMakeBorder(array, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(value,) * 4)


def _to_chw(img):
    """Return an H×W×C (or H×W) array as a contiguous C×H×W float32 or uint8 tensor."""
    import torch
    if img.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(img)[None])
    planes = np.empty((img.shape[2], *img.shape[:2]), img.dtype)
    for channel, plane in enumerate(planes):
        cv2.extractChannel(img, channel, plane)
    return torch.from_numpy(planes)


@_register
class DefaultFormatBundle:
    """Turn `img` into a 3×H×W tensor and `gt_semantic_seg` into a 1×H×W uint8 tensor."""

    def __call__(self, results):
        """Replace both; fill in `pad_shape`, `scale_factor` and `img_norm_cfg` where no transform set them."""
        import torch
        img = results['img']
        results.setdefault('pad_shape', img.shape)
        results.setdefault('scale_factor', 1.0)
        results.setdefault('img_norm_cfg', {'mean': np.zeros(3, np.float32), 'std': np.ones(3, np.float32),
                                            'to_rgb': False})
        results['img'] = _to_chw(img)
        if 'gt_semantic_seg' in results:
            results['gt_semantic_seg'] = torch.from_numpy(np.ascontiguousarray(results['gt_semantic_seg'])[None])
        return results


@_register
class ImageToTensor:
    """Turn the images under `keys` into C×H×W tensors.

    Args:
        keys: keys of the results, usually `['img']`.
    """

    def __init__(self, keys):
        self.keys = list(keys)

    def __call__(self, results):
        """Replace each image."""
        for key in self.keys:
            results[key] = _to_chw(results[key])
        return results


@_register
class Collect:
    """Keep what the model needs.

    Args:
        keys: keys of the results to keep.
        meta_keys: keys to gather in the dict `img_metas`; one that no transform has set is left out.
    """

    def __init__(self, keys, meta_keys=('filename', 'ori_filename', 'ori_shape', 'img_shape', 'pad_shape',
                                        'scale_factor', 'flip', 'flip_direction', 'img_norm_cfg')):
        self.keys = list(keys)
        self.meta_keys = tuple(meta_keys)

    def __call__(self, results):
        """Return a new dict of `keys` and `img_metas`.

        Raises:
            DatasetError: one of `keys` is not among the results.
        """
        missing = [key for key in self.keys if key not in results]
        if missing:
            raise DatasetError(f'Collect: {missing} are not in the sample, which has {sorted(results)}; '
                               'correct "keys", or the order of the pipeline')
        data = {key: results[key] for key in self.keys}
        data['img_metas'] = {key: results[key] for key in self.meta_keys if key in results}
        return data


@_register
class MMMultiScaleFlipAug:
    """Run transforms once per scale and flip: the test pipeline.

    Args:
        transforms: configuration entries, applied to each version.
        img_scale: (long, short) or a list of them.
        scale_factor: factor or list of factors instead of `img_scale`.
        flip: also run flipped versions.
        flip_direction: direction or list of directions of the flipped versions.
        fallback: see `build`.
    """

    def __init__(self, transforms, img_scale=None, scale_factor=None, flip=False, flip_direction='horizontal',
                 fallback=None):
        if (img_scale is None) == (scale_factor is None):
            raise DatasetError(f'MMMultiScaleFlipAug takes either img_scale or scale_factor; '
                               f'got img_scale={img_scale}, scale_factor={scale_factor}')
        self.transforms = Compose(transforms, fallback)
        if img_scale is not None:
            self._scales = [('scale', scale) for scale in _scales(img_scale, 'MMMultiScaleFlipAug: img_scale')]
        else:
            factors = scale_factor if isinstance(scale_factor, (list, tuple)) else [scale_factor]
            self._scales = [('scale_factor', float(factor)) for factor in factors]
        directions = [flip_direction] if isinstance(flip_direction, str) else list(flip_direction)
        self._flips = [(False, None)] + [(True, direction) for direction in directions if flip]

    def __call__(self, results):
        """Return a dict of lists with one entry per version, scales outermost, the unflipped one first."""
        versions = []
        for key, scale in self._scales:
            for flip, direction in self._flips:
                versions.append(self.transforms({**results, key: scale, 'flip': flip, 'flip_direction': direction}))
        return {key: [version[key] for version in versions] for key in versions[0]}


@_register
class LoadImageFromFile:
    """Read `filename` into `img`, unless the source has loaded it already.

    Args:
        to_float32: convert to float32, so that resizing does not round to grey levels.
        color_type, channel_order, file_client_args, mode: accepted for published configurations; images are BGR here.
    """

    def __init__(self, to_float32=False, color_type='color', channel_order='bgr', file_client_args=None, mode=None):
        self.to_float32 = to_float32

    def __call__(self, results):
        """Set `img`, `ori_shape`, `img_shape`, `pad_shape`."""
        if 'img' not in results:
            from .image_file import read_image
            results['img'] = read_image(results['filename'])
            shape = results['img'].shape
            results.update(img_fields=['img'], ori_shape=shape, img_shape=shape, pad_shape=shape)
        if self.to_float32:
            results['img'] = results['img'].astype(np.float32)
        return results


@_register
class LoadAnnotations:
    """Read `seg_filename` into `gt_semantic_seg`, unless the source has loaded it already.

    Args:
        reduce_zero_label: label 0 becomes 255 and the others move down by one; not repeated on a loaded label.
        with_bbox, with_label, with_mask, with_seg, imdecode_backend: accepted; only label maps are read here.
    """

    def __init__(self, reduce_zero_label=False, with_bbox=False, with_label=False, with_mask=False, with_seg=True,
                 imdecode_backend=None):
        self.reduce_zero_label = reduce_zero_label

    def __call__(self, results):
        """Set `gt_semantic_seg` and `seg_fields`."""
        if 'gt_semantic_seg' not in results:
            from .label_file import read_label
            from .sources import reduce_zero_label
            label = read_label(results['seg_filename'])
            results['gt_semantic_seg'] = reduce_zero_label(label) if self.reduce_zero_label else label
            results['seg_fields'] = ['gt_semantic_seg']
        return results


_OWN = frozenset(TRANSFORMS.values())
_PIXELS = Kind('a number of pixels', number(1, TRAINING_PIXELS).accepts)
_PAIR = Kind('a pair of positive numbers', several(_PIXELS, 2).accepts)
_RANGE = several(number(0, 1e6), 2)
_SHARES = Kind('a probability from 0 to 1, or a list of them', either(number(0, 1), several(number(0, 1))).accepts)
_DELTA = number(0, 1e6)
_COLOURS = Kind('numbers, one per channel', lambda value: isinstance(value, np.ndarray) or several(
    number(-1e6, 1e6)).accepts(value))
_ARGUMENTS = {  # of all transforms; what is left out is checked by the transform alone, or has no effect
    'img_scale': either(_PAIR, several(_PAIR)), 'ratio_range': _RANGE, 'keep_ratio': FLAG, 'multiscale_mode': TEXT,
    'interpolation': TEXT, 'crop_size': either(_PIXELS, _PAIR), 'cat_max_ratio': number(0, 1),
    'ignore_index': integer(0, 255), 'flip_ratio': _SHARES, 'direction': either(TEXT, several(TEXT)),
    'brightness_delta': _DELTA, 'contrast_range': _RANGE, 'saturation_range': _RANGE, 'hue_delta': number(0, 360),
    'mean': _COLOURS, 'std': _COLOURS, 'to_rgb': FLAG, 'size': either(_PIXELS, _PAIR),
    'size_divisor': integer(1, DIVISOR), 'pad_to_square': FLAG,
    'pad_val': either(number(-1e6, 1e6), Kind('a mapping of numbers', lambda value: isinstance(value, dict) and all(
        map(number(-1e6, 1e6).accepts, value.values())))),
    'keys': several(TEXT), 'meta_keys': several(TEXT), 'flip': FLAG, 'flip_direction': either(TEXT, several(TEXT)),
    'scale_factor': either(number(1e-3, 1e3), several(number(1e-3, 1e3))), 'to_float32': FLAG,
    'reduce_zero_label': FLAG}
