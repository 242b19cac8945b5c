"""(c) Logits to label map and scores, against the plain form: two interpolations, softmax, argmax.

python -m benchmarks.postprocess --model DIR --image photo.jpg
"""

import tempfile

import torch
import torch.nn.functional as F

from .measure import interleave, parser, quiet, report, timing_table
from .subjects import our_model, photograph


def plain(logits, pad_shape, img_shape, ori_shape):
    x = F.interpolate(logits, pad_shape, mode='bilinear')[:, :, : img_shape[0], : img_shape[1]]
    probability, labels = F.interpolate(x, ori_shape, mode='bilinear').softmax(1).max(1)
    return [(c, probability[labels == c].mean()) for c in labels.unique()]


def main():
    args = parser(__doc__.splitlines()[0]).parse_args()
    quiet()
    from ms_segformer.engines import create_engine
    from ms_segformer.postprocess import kernel, segmentation
    from ms_segformer.preprocessors.segformer import SegformerPreprocessor
    from ms_segformer.preprocessors.shapes import ImageShapes

    def ours(name, *inputs):
        kernel.use(name)
        segmentation.masks(segmentation.segment(*inputs))

    with tempfile.TemporaryDirectory() as folder:
        from .subjects import random_model_dir

        preprocessor = SegformerPreprocessor(args.model or random_model_dir('b0', folder))
        inputs = preprocessor(photograph(args.image, folder=folder))
    engine = create_engine(our_model('b0', args.model))
    shapes = inputs['pad_shape'], inputs['img_shape'], (480, 640)
    height, width = (-(-side // 4) for side in shapes[0])
    logits = {
        'trained' if args.model else 'random weights': engine(inputs['img'])[0],
        'random logits': torch.randn(height, width, 172).permute(2, 0, 1),
    }
    for name, one in logits.items():
        candidates = {
            'plain': lambda one=one: plain(one[None].contiguous(), *shapes),
            'ours, without a C compiler': lambda one=one: ours(kernel.TORCH, one, ImageShapes(*shapes), 171),
        }
        if kernel.KERNELS[0] != kernel.TORCH:
            candidates['ours'] = lambda one=one: ours(kernel.KERNELS[0], one, ImageShapes(*shapes), 171)
        with torch.inference_mode():
            seconds = interleave(candidates, args)
        report(f'Postprocessing to 640×480, {name}', timing_table(seconds, 'plain'), args, 'postprocess')


if __name__ == '__main__':
    main()
