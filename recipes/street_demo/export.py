"""Turn the finished training runs into the demonstration model that the package ships.

    python recipes/street_demo/export.py --runs RUN1 RUN2 --data DIR -o ms_segformer/demo_model

Writes `model.safetensors` (float16), `configuration.json` and the model card with the figures measured here, at the
float16 weights, on the validation images of `--data`; and the training curve next to this script.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from modelscope.pipelines import pipeline
from PIL import Image
from safetensors.torch import save_file

from ms_segformer.config.jsonplus import encode_jsonplus, load_json
from ms_segformer.config.reader import read_configuration
from ms_segformer.files import atomic_write
from ms_segformer.metainfo import TASK, VARIANTS, configuration_dir
from ms_segformer.metrics import ConfusionMatrix
from ms_segformer.models.checkpoint import find_checkpoint, read_checkpoint

HERE = Path(__file__).parent
STREET = (
    'sky-other',
    'building-other',
    'structural-other',
    'road',
    'pavement',
    'tree',
    'fence',
    'car',
    'person',
    'bicycle',
)


def export(run, output):
    """Write the weights and the configuration of `run`/output as a model directory."""
    source = run / 'output'
    state, _ = read_checkpoint(find_checkpoint(source))
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    with atomic_write(output / 'model.safetensors') as temporary:
        save_file({key: value.contiguous() for key, value in half.items()}, temporary)
    published = load_json(configuration_dir() / VARIANTS['b0'].model_name / 'configuration.json')
    # The published file's schema, with the trained model section; how it was trained stands in this folder.
    raw = dict(published, model=dict(read_configuration(source).model_section, pretrained=None))
    with atomic_write(output / 'configuration.json') as temporary:
        temporary.write_text(json.dumps(encode_jsonplus(raw), ensure_ascii=False) + '\n', encoding='utf-8')


def measure(model_dir, data):
    """Confusion matrix of the shipped model over every validation image, through the pipeline."""
    segmenter = pipeline(TASK, str(model_dir), device='cpu')
    matrix = ConfusionMatrix(172)
    images = sorted((data / 'images' / 'val').glob('*.jpg'))
    for image, result in zip(images, segmenter(str(image) for image in images), strict=True):
        matrix.update(result['seg_map'], np.asarray(Image.open(data / 'annotations' / 'val' / f'{image.stem}.png')))
    return matrix.matrix, segmenter.settings.classes, len(images)


def card(matrix, classes, count, log):
    """The model card's text."""
    matrix = np.asarray(matrix, np.float64)
    hit, labeled, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    ids = [classes.index(name) for name in STREET]
    iou = {i: hit[i] / (labeled[i] + predicted[i] - hit[i]) for i in ids}
    shares = labeled / labeled.sum()
    rows = '\n'.join(f'| {classes[i]} | {iou[i]:.3f} | {hit[i] / labeled[i]:.3f} | {shares[i]:.1%} |' for i in ids)
    template = (HERE / 'model_card.md').read_text(encoding='utf-8')
    return template.format(
        images=count,
        miou=np.mean(list(iou.values())),
        aacc=hit.sum() / labeled.sum(),
        rows=rows,
        iterations=sum(line['iterations'] for line in log if line['mode'] == 'end'),
    )


def training_log(run, stage):
    """The log lines of a run, thinned to one training line an epoch, and all evaluations."""
    lines = [json.loads(line) for path in sorted(run.glob('*.log.json')) for line in path.read_text().splitlines()]
    kept = []
    for line in lines:
        about = {'stage': stage, 'mode': line.get('mode'), 'epoch': line.get('epoch')}
        figures = {key.split('/')[-1]: line[key] for key in line if key.endswith(('mIoU', 'aAcc'))}
        if about['mode'] == 'train':
            kept = [k for k in kept if (k['mode'], k['epoch']) != ('train', line['epoch'])]
            kept.append(
                {
                    **about,
                    'iter': line['iter'],
                    'lr': line.get('lr'),
                    'loss': line.get('loss'),
                    'accuracy': line.get('decode.acc_seg'),
                }
            )
        elif figures:
            kept.append({**about, 'mode': 'eval', **figures})
    iterations = max(line['epoch'] for line in kept) * max(line['iter'] for line in kept if line['mode'] == 'train')
    kept.append({'stage': stage, 'mode': 'end', 'iterations': iterations})
    return kept


def draw_curve(log, path):
    """Loss and pixel accuracy of the training batches per epoch, drawn with Pillow."""
    from PIL import ImageDraw, ImageFont

    train = [line for line in log if line['mode'] == 'train']
    first = max((line['epoch'] for line in train if line['stage'] == 1), default=0)
    train = [dict(line, epoch=line['epoch'] + (line['stage'] - 1) * first) for line in train]
    width, height, margin = 760, 360, 50
    picture = Image.new('RGB', (width, height), 'white')
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default()
    epochs = max(line['epoch'] for line in train)
    draw.rectangle((margin, 20, width - margin, height - margin), outline=(120, 120, 120))

    def place(epoch, share):
        return (margin + (width - 2 * margin) * epoch / epochs, height - margin - (height - margin - 20) * share)

    top = max(line['loss'] for line in train[1:] or train)
    for key, scale, color, name in (
        ('loss', top, (200, 60, 40), f'training loss (0 to {top:.2f})'),
        ('accuracy', 100, (40, 90, 200), 'training pixel accuracy (0 to 100 %)'),
    ):
        points = [place(line['epoch'], min(1, line[key] / scale)) for line in train if line[key] is not None]
        draw.line(points, fill=color, width=2)
        draw.text((margin + 10, 24 + (14 if key == 'accuracy' else 0)), name, fill=color, font=font)
    for epoch in range(0, epochs + 1, 10):
        draw.text((place(epoch, 0)[0] - 6, height - margin + 6), str(epoch), fill=(60, 60, 60), font=font)
    draw.text((width // 2 - 20, height - 22), 'epoch', fill=(60, 60, 60), font=font)
    picture.save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=Path, nargs='+', required=True, help='the stages in order; the last is exported')
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('-o', '--output', type=Path, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    log = [line for stage, run in enumerate(arguments.runs, 1) for line in training_log(run, stage)]
    (HERE / 'log.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in log))
    draw_curve(log, HERE / 'curve.png')
    export(arguments.runs[-1], arguments.output)
    text = card(*measure(arguments.output, arguments.data), log)
    (arguments.output / 'README.md').write_text(text, encoding='utf-8')
    print(text)


if __name__ == '__main__':
    main()
