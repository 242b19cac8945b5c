"""Draws the figures of the model cards as SVG: the framework with a model's sizes, and the six models side by side.

`tools/model_cards.py` writes them beside the cards. They have a light ground of their own, so that they are readable on
white and on dark pages.
"""

from xml.sax.saxutils import escape

from ms_segformer.metainfo import NUM_OUTPUTS, VARIANTS

INK, SOFT, LINE, GROUND = '#1f2430', '#5b6472', '#98a1b0', '#fbfbfd'
STAGE, HEAD, PLAIN, MARK = '#dbe7fb', '#fde7cf', '#eceff4', '#fff3c4'
BACKBONE_BAR, HEAD_BAR, SCORE_BAR = '#5b8def', '#f0a04b', '#4aa37c'
STRIDES, ATTENTION_HEADS, REDUCTIONS = (4, 8, 16, 32), (1, 2, 5, 8), (8, 4, 2, 1)  # of the stages, the same in all six
SMALL, NORMAL, LARGE = 12, 13, 16


def framework(variant):
    """The encoder's stages, the head, and what a block does, with the sizes of a `metainfo.Variant`."""
    parts = [
        text(24, 34, f'SegFormer-{variant.name.upper()}', LARGE, bold=True),
        text(24, 54, 'hierarchical encoder (MiT), all-MLP head; sizes are channels × height × width', SMALL, SOFT),
    ]
    parts += box(24, 150, 92, 64, ['image', '3 × H × W'], PLAIN)
    left, width, centers = 146, 146, []
    for stage in range(4):
        x, height = left + stage * (width + 20), 132 - 14 * stage
        lines = [
            f'stage {stage + 1}',
            f'{variant.embed_dims[stage]} × H/{STRIDES[stage]} × W/{STRIDES[stage]}',
            f'{variant.depths[stage]} blocks',
            f'{_heads(ATTENTION_HEADS[stage])}, reduction {REDUCTIONS[stage]}',
        ]
        parts += box(x, 182 - height / 2, width, height, lines, STAGE)
        parts.append(arrow(x - 20 if stage else 116, 182, x, 182))
        centers.append(x + width / 2)
    parts.append(text(left, 96, 'encoder', SMALL, SOFT))
    parts.append(text(left, 290, 'head', SMALL, SOFT))
    for stage, x in enumerate(centers):
        parts.append(arrow(x, 182 + (132 - 14 * stage) / 2, x, 300))
        enlarged = f', up ×{2**stage}' if stage else ''
        lines = [f'1×1 conv → {variant.head_channels}', f'BN, ReLU{enlarged}']
        parts += box(x - width / 2, 300, width, 48, lines, HEAD, title=False)
        parts.append(arrow(x, 348, x, 378))
    right = centers[-1] + width / 2
    parts += box(
        left, 378, right - left, 30, [f'concatenate: {4 * variant.head_channels} × H/4 × W/4'], HEAD, title=False
    )
    parts.append(arrow(right, 393, right + 20, 393))
    parts += box(right + 20, 358, width, 70, ['fuse', f'1×1 conv → {variant.head_channels}', 'BN, ReLU'], HEAD)
    middle = right + 20 + width / 2
    parts.append(arrow(middle, 358, middle, 318))
    parts += box(right + 20, 254, width, 64, ['classify', '1×1 conv', f'{NUM_OUTPUTS} × H/4 × W/4'], HEAD)
    parts.append(arrow(middle, 254, middle, 214))
    parts += box(right + 20, 150, width, 64, ['label map', 'up to H × W, argmax'], PLAIN)
    parts += _block(24, 444, right + width - 4)
    return document(int(right + width + 44), 560, parts, f'Structure of SegFormer-{variant.name.upper()}')


def _heads(count):
    return f'{count} head' + ('s' if count > 1 else '')


def _block(x, y, width):
    """What a stage consists of, from left to right."""
    steps = [
        'overlapping patches:\nconv, LayerNorm',
        'LayerNorm, attention\n(fewer keys)',
        'LayerNorm,\n1×1 conv',
        '3×3 depth-wise\nconv, GELU',
        '1×1 conv',
        'LayerNorm',
    ]
    parts = [text(x, y, 'a stage', SMALL, SOFT)]
    step = (width - 20 * (len(steps) - 1)) / len(steps)
    for number, words in enumerate(steps):
        left = x + number * (step + 20)
        parts += box(left, y + 10, step, 50, words.split('\n'), STAGE, title=False)
        if number:
            parts.append(arrow(left - 20, y + 35, left, y + 35))
    first, last = x + step + 14, x + 5 * step + 4 * 20 + 6
    parts.append(f'<path d="M{first:g} {y + 70:g} v8 H{last:g} v-8" fill="none" stroke="{LINE}"/>')
    parts.append(
        text(
            (first + last) / 2,
            y + 94,
            'a block, as many times as the stage has: with a residual connection '
            'around the attention and around the three steps after it',
            SMALL,
            SOFT,
            'middle',
        )
    )
    return parts


def variants(current):
    """The six models with their sizes, published mIoU and latency; the row of `current` stands out."""
    columns = (
        ('model', 24),
        ('channels of the stages', 92),
        ('blocks', 262),
        ('head', 364),
        ('parameters', 412),
        ('mIoU', 604),
        ('V100', 790),
    )
    parts = [text(24, 34, 'SegFormer B0 to B5 on COCO-Stuff 164k', LARGE, bold=True)]
    parts += [text(x, 66, name, SMALL, SOFT) for name, x in columns]
    scale = 110 / max(variant.parameters for variant in VARIANTS.values())
    for row, variant in enumerate(VARIANTS.values()):
        y = 94 + 34 * row
        if variant == current:
            parts.append(f'<rect x="14" y="{y - 22}" width="840" height="32" rx="6" fill="{MARK}"/>')
        bold = variant == current
        cells = (
            variant.name.upper(),
            ' / '.join(map(str, variant.embed_dims)),
            ' / '.join(map(str, variant.depths)),
            str(variant.head_channels),
        )
        parts += [text(x, y, cell, NORMAL, bold=bold) for cell, (_, x) in zip(cells, columns, strict=False)]
        total, head = variant.parameters * scale, head_parameters(variant) * scale
        parts += [
            bar(412, y, total - head, BACKBONE_BAR),
            bar(412 + total - head, y, head, HEAD_BAR),
            text(418 + total, y, f'{variant.parameters / 1e6:.2f} M', NORMAL, bold=bold),
            bar(604, y, 2.4 * variant.published_miou, SCORE_BAR),
            text(610 + 2.4 * variant.published_miou, y, f'{variant.published_miou:.2f} %', NORMAL, bold=bold),
            text(790, y, f'{variant.published_latency_ms:g} ms', NORMAL, bold=bold),
        ]
    y = 94 + 34 * len(VARIANTS) + 4
    parts += [
        bar(24, y, 14, BACKBONE_BAR),
        text(44, y, 'backbone', SMALL, SOFT),
        bar(124, y, 14, HEAD_BAR),
        text(144, y, 'head: counted on the networks', SMALL, SOFT),
        bar(352, y, 14, SCORE_BAR),
        text(372, y, 'mIoU, and latency per image on a V100: as published', SMALL, SOFT),
    ]
    return document(868, int(y) + 22, parts, 'The six SegFormer models beside each other')


def head_parameters(variant):
    """Trainable parameters of the head: five convolutions without bias, each with a batch norm, and the classifier."""
    channels = variant.head_channels
    projections = sum(dim * channels for dim in variant.embed_dims) + 4 * 2 * channels
    return projections + 4 * channels * channels + 2 * channels + (channels + 1) * NUM_OUTPUTS


def document(width, height, parts, title):
    """A whole SVG file as text."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" role="img">\n<title>{escape(title)}</title>\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{SOFT}"/></marker></defs>\n'
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10" fill="{GROUND}" '
        f'stroke="{LINE}"/>\n' + '\n'.join(parts) + '\n</svg>\n'
    )


def text(x, y, words, size, color=INK, anchor='start', bold=False):
    """Words at a point of their base line."""
    weight = ' font-weight="bold"' if bold else ''
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>'
        f'{escape(words)}</text>'
    )


def box(x, y, width, height, lines, fill, title=True):
    """A rounded box with centered lines; the first of several is bold where it is a title."""
    first = y + height / 2 - 8 * (len(lines) - 1) + 4
    return [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{LINE}"/>',
        *(
            text(x + width / 2, first + 16 * number, line, SMALL, INK, 'middle', bold=title and number == 0)
            for number, line in enumerate(lines)
        ),
    ]


def arrow(x1, y1, x2, y2):
    """A line with a tip at its end."""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{SOFT}" stroke-width="1.3" '
        'marker-end="url(#tip)"/>'
    )


def bar(x, y, width, fill):
    """A bar on a base line of text."""
    return f'<rect x="{x:.1f}" y="{y - 11:g}" width="{width:.1f}" height="13" rx="2" fill="{fill}"/>'
