"""Draws the colors of COCO-Stuff's classes on light and on dark ground: docs/en/palette.svg, and the same in Chinese.

python tools/palette_figure.py     write both
"""

from pathlib import Path

from model_figures import GROUND, INK, LARGE, LINE, SMALL, SOFT, document, text

from ms_segformer.datasets.class_names import CHINESE_NAMES
from ms_segformer.files import atomic_write
from ms_segformer.results.palettes import COLORS

DOCS = Path(__file__).parents[1] / 'docs'
LEFT, HEAD, TITLES, NAMED, PLAIN, ROW, COLUMNS = 20, 64, 92, 102, 26, 30, 8
DARK = '#16191f'
WORDS = {
    'en': {'title': 'Colors of the 171 classes', 'note': 'groups from top to bottom; the same colors on dark ground'},
    'zh': {'title': '171 个类别的颜色', 'note': '按类别分组；右侧为深色背景上的相同颜色'},
}
CHINESE_GROUPS = {
    **{'person': '人', 'vehicle': '车辆', 'outdoor': '户外', 'animal': '动物', 'accessory': '随身物品'},
    **{'sports': '运动', 'kitchen': '厨房', 'food': '食物', 'furniture': '家具', 'electronic': '电子产品'},
    **{'appliance': '家电', 'indoor': '室内物品', 'building': '建筑', 'structural': '构筑物', 'plant': '植物'},
    **{'sky': '天空', 'water': '水', 'ground': '地面', 'way': '道路', 'solid': '固体', 'floor': '地板'},
    **{'ceiling': '天花板', 'wall': '墙', 'window': '窗', 'textile': '纺织品', 'raw material': '材料'},
}


def figure(language):
    """The SVG in a language, `en` or `zh`, as text."""
    rows = [
        (group if start == 0 else '', list(classes.items())[start : start + COLUMNS])
        for group, classes in COLORS.items()
        for start in range(0, len(classes), COLUMNS)
    ]
    dark = LEFT + TITLES + COLUMNS * NAMED + 16
    width, height = dark + COLUMNS * PLAIN + 16, HEAD + len(rows) * ROW + 12
    words = WORDS[language]
    parts = [
        f'<rect x="{dark - 12}" y="0" width="{width - dark + 12}" height="{height}" fill="{DARK}"/>',
        text(LEFT, 30, words['title'], LARGE, bold=True),
        text(LEFT, 50, words['note'], SMALL, SOFT),
    ]
    for number, (group, classes) in enumerate(rows):
        y = HEAD + number * ROW
        title = CHINESE_GROUPS[group] if language == 'zh' and group else group
        parts += [text(LEFT, y + 17, title, SMALL, SOFT)] if title else []
        for column, (name, digits) in enumerate(classes):
            shown = CHINESE_NAMES[name] if language == 'zh' else name
            x = LEFT + TITLES + column * NAMED
            edge = f' stroke="{LINE}"' if name == 'snow' else ''  # nearly the ground's color
            parts.append(f'<rect x="{x}" y="{y}" width="{NAMED - 4}" height="{ROW - 4}" fill="#{digits}"{edge}/>')
            parts.append(text(x + 4, y + 17, shown, SMALL, _ink(digits)))
            x = dark + column * PLAIN
            parts.append(f'<rect x="{x}" y="{y}" width="{PLAIN - 4}" height="{ROW - 4}" fill="#{digits}"/>')
    return document(width, height, parts, words['title'])


def _ink(digits):
    red, green, blue = bytes.fromhex(digits)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 125 else GROUND


def contents():
    """{path: text} of both drawings."""
    return {DOCS / language / 'palette.svg': figure(language) for language in WORDS}


if __name__ == '__main__':
    for path, content in contents().items():
        with atomic_write(path) as temporary:
            temporary.write_text(content, encoding='utf-8')
        print(path)
