"""Writes the model cards, configuration/<model name>/README.md, from tools/model_card.md and `metainfo.VARIANTS`.

    python tools/model_cards.py             write the six cards and their figures
    python tools/model_cards.py --check     write nothing; exit 1 and name the files that are not up to date

The figures are drawn by tools/model_figures.py. The code in a card is the script of that name in tests/cards/, with the
name of the model replaced.
"""

import argparse
import sys
from pathlib import Path
from string import Template

import model_figures

from ms_segformer.files import atomic_write
from ms_segformer.metainfo import NUM_OUTPUTS, VARIANTS

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / 'tools' / 'model_card.md'
SCRIPTS = ROOT / 'tests' / 'cards'
SCRIPT_NAMES = ('card_predict', 'card_train', 'card_finetune')
CODE_IS_FOR = VARIANTS['b0'].model_name

HEADINGS = {
    'zh': ('模型', '参数量（主干与解码头）', 'V100 延迟（毫秒/张）', 'mIoU（%）'),
    'en': ('model', 'parameters (backbone and head)', 'latency on a V100 (ms per image)', 'mIoU (%)'),
}


def card(variant):
    """The card of a `metainfo.Variant` as text."""
    values = {
        'NAME': variant.name.upper(),
        'name': variant.name,
        'hub_id': variant.hub_ids[0],
        'outputs': NUM_OUTPUTS,
        'embed_dims': _listed(variant.embed_dims),
        'depths': _listed(variant.depths),
        'head_channels': variant.head_channels,
        'parameters': f'{variant.parameters:,}',
        'short_side': variant.short_side,
        'table_zh': table('zh', variant),
        'table_en': table('en', variant),
    }
    values.update((name, script(name, variant)) for name in SCRIPT_NAMES)
    return Template(TEMPLATE.read_text(encoding='utf-8')).substitute(values)


def script(name, variant):
    """The code of tests/cards/<name>.py for a variant, without the line end after its last line."""
    code = (SCRIPTS / f'{name}.py').read_text(encoding='utf-8')
    return code.replace(CODE_IS_FOR, variant.model_name).rstrip('\n')


def table(language, current):
    """Markdown table of the six models; the row of `current` in bold."""
    rows = [HEADINGS[language], ('-', '-', '-', '-')]
    for variant in VARIANTS.values():
        row = (
            f'SegFormer-{variant.name.upper()}',
            f'{variant.parameters / 1e6:.2f} M',
            str(variant.published_latency_ms),
            f'{variant.published_miou:.2f}',
        )
        rows.append(tuple(f'**{cell}**' for cell in row) if variant == current else row)
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def folder_of(variant):
    """Where the card of a variant and its figures lie."""
    return ROOT / 'configuration' / variant.model_name


def contents():
    """{path: text} of the six cards and their figures."""
    written = {}
    for variant in VARIANTS.values():
        written[folder_of(variant) / 'README.md'] = card(variant)
        written[folder_of(variant) / 'framework.svg'] = model_figures.framework(variant)
        written[folder_of(variant) / 'variants.svg'] = model_figures.variants(variant)
    return written


def stale():
    """{path: text} of those that are missing or differ from what would be written."""
    return {
        path: text
        for path, text in contents().items()
        if not path.is_file() or path.read_text(encoding='utf-8') != text
    }


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='only say which files are not up to date')
    args = parser.parse_args(argv)
    outdated = stale()
    for path in outdated:
        print(f'{"not up to date: " if args.check else ""}{path.relative_to(ROOT)}')
    if args.check:
        return 1 if outdated else 0
    for path, text in outdated.items():
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding='utf-8')
    return 0


def _listed(numbers):
    return '/'.join(map(str, numbers))


if __name__ == '__main__':
    sys.exit(main())
