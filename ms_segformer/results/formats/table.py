"""A table: `segments.csv`, one row a class and image."""

import csv

from .files import FormatFiles
from .images import SegmentedImages
from .options import FormatOptions
from .segmented import box_of

PATH = 'segments.csv'
COLUMNS = ('image', 'id', 'label', 'score', 'pixels', 'share', 'x', 'y', 'width', 'height')


def write_table(images: SegmentedImages, files: FormatFiles, options: FormatOptions) -> None:
    """Write a row a segment: the image's name, class id and name, mean probability (0–1), pixels, share of the image
    (0–1), and the box around it in pixels.
    """
    with files.writing(PATH) as out:
        rows = csv.writer(out, lineterminator='\n')
        rows.writerow(COLUMNS)
        for image in images:
            for segment in image.segments:
                values = [segment[key] for key in ('id', 'label', 'score', 'pixels', 'share')]
                rows.writerow([image.name, *values, *box_of(segment['mask'])])
