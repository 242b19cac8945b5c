"""Turn a finished training run into the demonstration model that the package ships.

    python recipes/street_demo/export.py --run RUN --data DATA -o ms_segformer/demo_model

Writes `model.safetensors` (float16, the averaged weights), `configuration.json`, the model card with the figures
measured here, at the float16 weights, on the validation images of `--data`, and `verify.json`, the label map that
`ms-segformer verify demo` compares with; and the log and curve next to this script.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classes import CLASSES
from modelscope.pipelines import pipeline
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from train import VAL_SHORT_SIDE

from ms_segformer.config.jsonplus import encode_jsonplus, load_json
from ms_segformer.files import atomic_write
from ms_segformer.metainfo import TASK, VARIANTS, configuration_dir, photographs
from ms_segformer.metrics import ConfusionMatrix
from ms_segformer.verification.label_maps import describe
from ms_segformer.verification.report import FORMAT

HERE = Path(__file__).parent
# Added to the logits, by measurement on validation images: people take half as much of the walls and roads of another
# town, and the mIoU does not fall.
SHIFTS = {'person': -1.0}
Line = dict[str, Any]  # of a training log


def configuration() -> dict[str, Any]:
    """B0's published configuration with the ten classes and the test size of `train.py`.

    Colors are left to the package, which knows the classes' names.
    """
    raw = load_json(configuration_dir() / VARIANTS['b0'].model_name / 'configuration.json')
    del raw['PALETTE']
    raw['__easycv_meta__'] = {'reserved_keys': ['CLASSES']}
    raw['CLASSES'] = list(CLASSES)
    raw['model']['pretrained'] = None
    raw['model']['backbone']['drop_path_rate'] = 0.05
    raw['model']['decode_head']['num_classes'] = len(CLASSES)
    raw['model']['decode_head']['loss_decode']['avg_non_ignore'] = True
    for split in ('train', 'val'):
        raw['dataset'][split]['data_source']['classes'] = list(CLASSES)
    (test,) = raw['dataset']['val']['pipeline']
    test['img_scale'] = (2048, VAL_SHORT_SIDE)
    for evaluator in raw['evaluation']['metrics']['evaluators']:
        evaluator['classes'] = list(CLASSES)
    return raw


def export(run: Path, output: Path) -> int:
    """Write the weights of a run and their configuration as a model directory; returns the steps they were trained."""
    saved = torch.load(run / 'state.pt', map_location='cpu', weights_only=True)
    state = saved['average']
    for name, shift in SHIFTS.items():
        state['decode_head.conv_seg.bias'][CLASSES.index(name)] += shift
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    output.mkdir(parents=True, exist_ok=True)
    with atomic_write(output / 'model.safetensors') as temporary:
        save_file({key: value.contiguous() for key, value in half.items()}, temporary)
    with atomic_write(output / 'configuration.json') as temporary:
        text = json.dumps(encode_jsonplus(configuration()), ensure_ascii=False)
        temporary.write_text(text + '\n', encoding='utf-8')
    return saved['step']


def label_maps(segmenter: Any) -> str:
    """What `verify` compares of a report: the label maps of the photographs in the package, as JSON."""
    described = {path.name: describe(segmenter(str(path))['seg_map'], list(CLASSES)) for path in photographs()}
    return json.dumps({'format': FORMAT, 'photographs': described}, indent=1) + '\n'


def measure(segmenter: Any, data: Path) -> tuple[NDArray[np.float64], int]:
    """Confusion matrix of the shipped model over every validation image, through the pipeline; and their number."""
    matrix = ConfusionMatrix(len(CLASSES))
    images = sorted((data / 'images' / 'val').glob('*.jpg'))
    for image, result in zip(images, segmenter([str(image) for image in images]), strict=True):
        matrix.update(result['seg_map'], np.asarray(Image.open(data / 'annotations' / 'val' / f'{image.stem}.png')))
    return np.asarray(matrix.matrix, np.float64), len(images)


def card(matrix: NDArray[np.float64], images: int, steps: int) -> str:
    """The model card's text."""
    hit, labeled, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    iou = hit / (labeled + predicted - hit)
    rows = [
        f'| {name} | {iou[i]:.3f} | {hit[i] / labeled[i]:.3f} | {labeled[i] / labeled.sum():.1%} |'
        for i, name in enumerate(CLASSES)
    ]
    template = (HERE / 'model_card.md').read_text(encoding='utf-8')
    return template.format(
        images=images,
        miou=iou.mean(),
        accuracy=hit.sum() / labeled.sum(),
        rows='\n'.join(rows),
        steps=steps,
    )


def training_log(run: Path) -> list[Line]:
    """The lines of a run's log in order, each step once: what was done again after an interruption counts."""
    lines = [json.loads(line) for line in (run / 'log.jsonl').read_text(encoding='utf-8').splitlines()]
    kept = {(line['mode'], line['step']): line for line in lines}
    return sorted(kept.values(), key=lambda line: line['step'])


def draw_curve(log: list[Line], path: Path) -> None:
    """Training loss, and mIoU on every fourth validation image, over the steps, drawn with Pillow."""
    width, height, margin = 760, 360, 50
    picture = Image.new('RGB', (width, height), 'white')
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default()
    draw.rectangle((margin, 20, width - margin, height - margin), outline=(120, 120, 120))
    last = log[-1]['step']
    top = max(line['loss'] for line in log if line['mode'] == 'train')

    def place(step: float, share: float) -> tuple[float, float]:
        return margin + (width - 2 * margin) * step / last, height - margin - (height - margin - 20) * share

    for row, (mode, key, scale, color, name) in enumerate(
        (
            ('train', 'loss', top, (200, 60, 40), f'training loss (0 to {top:.2f})'),
            ('val', 'mIoU', 1, (40, 90, 200), 'mIoU on every fourth validation image (0 to 1)'),
        )
    ):
        points = [place(line['step'], line[key] / scale) for line in log if line['mode'] == mode]
        draw.line(points, fill=color, width=2)
        draw.text((margin + 10, height - margin - 34 + 14 * row), name, fill=color, font=font)
    for tenth in range(0, 11, 2):
        step = last * tenth // 10
        draw.text((place(step, 0)[0] - 12, height - margin + 6), str(step), fill=(60, 60, 60), font=font)
    draw.text((width // 2 - 20, height - 22), 'step', fill=(60, 60, 60), font=font)
    picture.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', type=Path, required=True, help="train.py's --work-dir")
    parser.add_argument('--data', type=Path, required=True, help='what prepare_data.py wrote')
    parser.add_argument('-o', '--output', type=Path, required=True)
    arguments = parser.parse_args()
    log = training_log(arguments.run)
    steps = export(arguments.run, arguments.output)
    segmenter = pipeline(TASK, str(arguments.output), device='cpu')
    (arguments.output / 'verify.json').write_text(label_maps(segmenter), encoding='utf-8')
    described = card(*measure(segmenter, arguments.data), steps)
    (arguments.output / 'README.md').write_text(described, encoding='utf-8')
    (HERE / 'log.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in log), encoding='utf-8')
    draw_curve(log, HERE / 'curve.png')
    print(described)


if __name__ == '__main__':
    main()
