"""Draws how the packages of ms_segformer work together: docs/en/architecture.svg, and the same in Chinese.

python tools/architecture_figure.py     write both
"""

from pathlib import Path

from model_figures import HEAD, LARGE, PLAIN, SMALL, SOFT, STAGE, arrow, box, document, text

from ms_segformer.files import atomic_write

DOCS = Path(__file__).parents[1] / 'docs'
LEFT, WIDTH, HEIGHT, GAP = 24, 128, 66, 66  # of a box, and the room for the arrow after it
LAYER = 30

# Each flow: its name, and its steps as (package, what it does there); between them what is handed on.
FLOWS = {
    'en': [
        (
            'Prediction: image to result',
            [
                'image',
                ('preprocessors', 'decode, scale,', 'normalize'),
                'prepared',
                ('engines', 'run the network', 'of models'),
                'logits',
                ('postprocess', 'label map and', 'scores'),
                'segments',
                ('pipelines', 'what pipeline()', 'returns'),
                'result',
                ('results', 'files, drawings,', 'manifest'),
            ],
        ),
        (
            'Training: pair to loss',
            [
                'pair',
                ('datasets', 'sources read,', 'transforms augment'),
                'sample',
                ('trainers', 'load batches'),
                'batch',
                ('models', 'network and', 'loss'),
                'loss',
                ('trainers', 'optimizer, hooks,', 'checkpoints'),
                'weights',
                ('metrics', 'confusion matrix,', 'mIoU'),
            ],
        ),
    ],
    'zh': [
        (
            '预测：从图像到结果',
            [
                '图像',
                ('preprocessors', '解码、缩放、', '归一化'),
                '输入',
                ('engines', '运行 models', '中的网络'),
                'logits',
                ('postprocess', '标签图和', '得分'),
                '分割',
                ('pipelines', 'pipeline()', '的返回值'),
                '结果',
                ('results', '文件、绘图、', '清单'),
            ],
        ),
        (
            '训练：从图像对到损失',
            [
                '图像对',
                ('datasets', '数据源读取，', '变换增强'),
                '样本',
                ('trainers', '组成批次'),
                '批次',
                ('models', '网络和', '损失'),
                '损失',
                ('trainers', '优化器、钩子、', '检查点'),
                '权重',
                ('metrics', '混淆矩阵、', 'mIoU'),
            ],
        ),
    ],
}

LAYERS_TITLE = {
    'en': 'Layers: a package uses those of its row and below',
    'zh': '层次：每个包只使用同一行和下面各行的包',
}
TITLE = {'en': 'The packages of ms_segformer', 'zh': 'ms_segformer 的各个包'}
# From the top: each package uses others of its row and of the rows below.
LAYERS = (
    ('cli',),
    ('serving', 'pipelines', 'trainers', 'exporters', 'quantization', 'verification'),
    ('results', 'engines'),
    ('models', 'postprocess', 'datasets', 'metrics'),
    ('preprocessors',),
    ('integrations',),
    ('config', 'download', 'errors', 'files', 'fonts', 'metainfo', 'processes', 'progress', 'stores'),
)
COLORS = {
    **dict.fromkeys(('trainers', 'datasets', 'metrics'), HEAD),
    **dict.fromkeys((*LAYERS[-1], 'cli', 'integrations'), PLAIN),
}


def figure(language):
    """The SVG in a language, `en` or `zh`, as text."""
    parts, y = [text(LEFT, 34, TITLE[language], LARGE, bold=True)], 52
    for name, steps in FLOWS[language]:
        parts += _flow(y, name, steps)
        y += HEIGHT + 56
    parts.append(text(LEFT, y + 16, LAYERS_TITLE[language], SMALL, SOFT))
    total = 5 * (WIDTH + GAP)
    for row, names in enumerate(LAYERS):
        width = (total - 8 * (len(names) - 1)) / len(names)
        for column, name in enumerate(names):
            x, top = LEFT + column * (width + 8), y + 28 + row * (LAYER + 6)
            parts += box(x, top, width, LAYER, [name], COLORS.get(name, STAGE), title=False)
    return document(2 * LEFT + total, y + 40 + len(LAYERS) * (LAYER + 6), parts, TITLE[language])


def _flow(y, name, steps):
    parts = [text(LEFT, y + 16, name, SMALL, SOFT)]
    x = LEFT
    for handed, (package, *lines) in zip(steps[::2], steps[1::2], strict=True):
        parts.append(text(x + GAP / 2 - 2, y + 28 + HEIGHT / 2 - 6, handed, SMALL, SOFT, 'middle'))
        parts.append(arrow(x, y + 28 + HEIGHT / 2, x + GAP - 4, y + 28 + HEIGHT / 2))
        parts += box(x + GAP - 4, y + 28, WIDTH, HEIGHT, [package, *lines], COLORS.get(package, STAGE))
        x += WIDTH + GAP
    return parts


def contents():
    """{path: text} of both drawings."""
    return {DOCS / language / 'architecture.svg': figure(language) for language in FLOWS}


if __name__ == '__main__':
    for path, drawing in contents().items():
        with atomic_write(path) as temporary:
            temporary.write_text(drawing, encoding='utf-8')
