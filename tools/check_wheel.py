"""Checks an installed wheel: names, package data, and the compiled kernel against numpy. Needs numpy alone.

    pip install --no-deps ms_segformer-*.whl && pip install numpy && python tools/check_wheel.py

Run it outside the checkout or by its path, so that the installed package is the one that is imported.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

import ms_segformer
from ms_segformer.metainfo import VARIANTS, demo_model_dir, own_configuration, photographs


def main() -> None:
    package = Path(ms_segformer.__file__).parent
    assert 'site-packages' in package.parts, f'{package} is not an installed package'
    assert set(ms_segformer.__all__) <= set(dir(ms_segformer))
    assert not {'torch', 'modelscope'} & set(sys.modules), 'importing the package brought torch or ModelScope'
    for name in VARIANTS:
        assert ms_segformer.read_configuration(own_configuration(name)).model.variant == name
    assert photographs() and (demo_model_dir() / 'model.safetensors').is_file() and (package / 'py.typed').is_file()
    kernels = check_kernel(package / 'postprocess')
    print(f'ms-segformer {ms_segformer.__version__} in Python {sys.version.split()[0]}: kernels {", ".join(kernels)}')


def check_kernel(folder: Path) -> list[str]:
    """Compare the kernel's forms with numpy on logits that need no resampling; returns their names."""
    (file,) = (path for path in folder.glob('_segment*') if path.suffix in ('.so', '.pyd'))
    spec = importlib.util.spec_from_file_location('_segment', file)  # by its path: its package would import torch
    kernel = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernel)
    height, width, classes = 33, 47, 172
    logits = 3 * np.random.default_rng(0).normal(size=(height, width, classes)).astype(np.float32)
    best = logits.argmax(-1)
    softmax = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    softmax /= softmax.sum(-1, keepdims=True)
    expected = [softmax[best == c, c].sum() for c in range(classes)]
    rows, cols = (np.arange(n, dtype=np.int32) for n in (height, width))
    row_weights, col_weights = (np.ones((n, 1), np.float32) for n in (height, width))
    for form in kernel.kernels:
        kernel.use(form)
        labels, sums, counts = np.zeros((height, width), np.uint8), np.zeros(classes), np.zeros(classes, np.int64)
        assert kernel.segment_band(
            logits.ctypes.data,
            height,
            width,
            classes,
            classes,
            rows.ctypes.data,
            row_weights.ctypes.data,
            1,
            height,
            cols.ctypes.data,
            col_weights.ctypes.data,
            1,
            width,
            labels.ctypes.data,
            sums.ctypes.data,
            counts.ctypes.data,
            0,
            height,
            16,
        ), form
        assert (labels == best).all() and (counts == np.bincount(best.ravel(), minlength=classes)).all(), form
        np.testing.assert_allclose(sums, expected, rtol=1e-4, err_msg=form)
    return kernel.kernels


if __name__ == '__main__':
    main()
