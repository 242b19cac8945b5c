"""(i) Label maps of every engine against the plain network, and mIoU, on labeled photographs.

python -m benchmarks.agreement --model DIR --images FOLDER --annotations FOLDER
"""

from pathlib import Path

import cv2
import numpy as np
import torch

from .measure import parser, quiet, report

ENGINES = (
    ('torch', 'float32'),
    ('openvino', 'float32'),
    ('onnxruntime', 'float32'),
    ('torch', 'bf16'),
    ('openvino', 'bf16'),
)


def main():
    p = parser(__doc__.splitlines()[0])
    p.add_argument('--images', required=True, help='folder of photographs')
    p.add_argument('--annotations', required=True, help='folder of PNG label maps of the same names')
    p.add_argument(
        '--ids',
        type=int,
        nargs='*',
        help='class id that each value in the annotations stands for, 255 for none (default: the value itself)',
    )
    p.add_argument('--limit', type=int, default=40, help='photographs at most (default: %(default)s)')
    p.add_argument('--calibration', help='folder of photographs to calibrate int8 with; without it int8 is left out')
    args = p.parse_args()
    quiet()
    from ms_segformer.engines import create_engine
    from ms_segformer.metrics import ConfusionMatrix
    from ms_segformer.postprocess.segmentation import segment
    from ms_segformer.preprocessors.segformer import SegformerPreprocessor
    from ms_segformer.preprocessors.shapes import ImageShapes

    from .subjects import int8_model, our_model

    model, plain = our_model(model_dir=args.model), our_model(model_dir=args.model).eval()
    preprocessor = SegformerPreprocessor(args.model)
    engines = {pair: create_engine(model, *pair) for pair in ENGINES}
    if args.calibration:
        quantized = int8_model(model_dir=args.model, photographs=args.calibration)
        engines['openvino', 'int8'] = create_engine(quantized, 'openvino', 'int8')
    classes = model.settings.head.num_classes
    matrices = {pair: ConfusionMatrix(classes) for pair in (None, *engines)}
    agree, pixels = dict.fromkeys(engines, 0), 0
    pairs = [(path, Path(args.annotations, f'{path.stem}.png')) for path in sorted(Path(args.images).iterdir())]
    pairs = [pair for pair in pairs if pair[1].exists()][: args.limit]
    for path, annotation in pairs:
        inputs = preprocessor(str(path))
        shapes = ImageShapes.of(inputs)
        label = cv2.imread(str(annotation), cv2.IMREAD_UNCHANGED)
        if args.ids:
            table = np.full(256, 255, np.uint8)
            table[: len(args.ids)] = args.ids
            label = table[label]
        with torch.no_grad():
            reference = segment(plain.logits(inputs['img'])[0], shapes, classes).seg_map
        matrices[None].update(reference, label)
        pixels += reference.size
        for pair, engine in engines.items():
            found = segment(engine(inputs['img'])[0], shapes, classes).seg_map
            agree[pair] += int((found == reference).sum())
            matrices[pair].update(found, label)
    base = _miou(matrices[None])
    rows = [
        ['engine', 'precision', 'equal pixels %', 'mIoU %', 'mIoU − plain'],
        ['plain torch, not folded', 'float32', '', f'{base:.2f}', ''],
    ]
    for pair in engines:
        miou = _miou(matrices[pair])
        rows.append([*pair, f'{100 * agree[pair] / pixels:.4f}', f'{miou:.2f}', f'{miou - base:+.2f}'])
    report(
        'Label maps of the engines',
        rows,
        args,
        'agreement',
        f'{len(pairs)} photographs, {pixels / 1e6:.1f} million pixels; mIoU over the classes present in the '
        'annotations.',
    )


def _miou(matrix):
    counts = np.asarray(matrix.matrix, np.float64)
    hits, labels, found = np.diag(counts), counts.sum(1), counts.sum(0)
    present = labels > 0
    return 100 * float((hits[present] / (labels + found - hits)[present]).mean())


if __name__ == '__main__':
    main()
