"""Segment all photographs in a folder and write what they show as one table, a row per photograph and class:

    python examples/result_to_pandas.py photos classes.csv --model b0

The columns are those of `SegmentationResult.to_pandas`, and `image`, `confidence` (mean over the pixels of the class)
and `unsure` (share of these pixels in which the second best class is less than 0.1 behind). Needs pandas.
"""

import argparse
import os
from pathlib import Path

import pandas as pd

import ms_segformer
from ms_segformer.preprocessors.image import image_files


def table(result: ms_segformer.SegmentationResult, name: str) -> pd.DataFrame:
    """The rows of one result that was made with `confidence=True`."""
    rows = result.to_pandas()
    pixels = [result['seg_map'] == each for each in rows['id']]
    rows.insert(0, 'image', name)
    rows['confidence'] = [result['confidence'][each].mean(dtype=float) for each in pixels]
    rows['unsure'] = [(result['margin'][each] < 0.1).mean() for each in pixels]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description='Write what the photographs in a folder show as one table.')
    parser.add_argument('folder', type=Path)
    parser.add_argument('output', type=Path, help='CSV file to write')
    parser.add_argument('--model', required=True, help='b0 to b5, a model directory, a hub id, or demo')
    args = parser.parse_args()
    paths = image_files(args.folder)
    if not paths:
        parser.error(f'{args.folder}: no images; expected a folder with JPEG, PNG or other image files')
    if args.output.exists():
        parser.error(f'{args.output} is there already; name another file')

    segmenter, tables = ms_segformer.load(args.model), []
    # An iterator is segmented while it is read: one photograph is in memory at a time, whatever their number.
    for path, result in zip(paths, segmenter(iter(paths), with_masks=False, confidence=True), strict=True):
        if 'error' not in result:  # the pipeline has logged the reason
            tables.append(table(result, os.path.relpath(path, args.folder)))
    if not tables:
        parser.error(f'{args.folder}: none of its {len(paths)} images can be read')
    rows = pd.concat(tables, ignore_index=True)
    rows.to_csv(args.output, index=False)
    print(rows.groupby('label')['pixels'].sum().sort_values(ascending=False).head(10).to_string())
    return 0 if len(tables) == len(paths) else 1


if __name__ == '__main__':
    raise SystemExit(main())
