"""Results of the pipeline, their pictures, tables and files, and the manifest of which file belongs to which image.

It brings OpenCV and Pillow, so the command line imports it where it is used.
"""

from .formats import encode_rle
from .inputs import Input, InputVersion, RemoteImage, find_input, find_sequence
from .manifest import Manifest, ManifestError, OwnOutputs
from .output import BoxedRow, Row, SegmentationOutput, segments
from .plan import AlteredError, Job, Run, change, make_plan, obstacle, out_of_date
from .result import ResultError, SegmentationResult, coco_of
from .store_inputs import StoredInputs, find_in_stores
from .store_manifest import StoreManifest, open_manifest, writer_for
from .video import VideoFiles
from .writer import ResultWriter

__all__ = [
    'AlteredError',
    'BoxedRow',
    'Input',
    'InputVersion',
    'Job',
    'Manifest',
    'ManifestError',
    'OwnOutputs',
    'RemoteImage',
    'ResultError',
    'ResultWriter',
    'Row',
    'Run',
    'SegmentationOutput',
    'SegmentationResult',
    'StoreManifest',
    'StoredInputs',
    'VideoFiles',
    'change',
    'coco_of',
    'encode_rle',
    'find_in_stores',
    'find_input',
    'find_sequence',
    'make_plan',
    'obstacle',
    'open_manifest',
    'out_of_date',
    'segments',
    'writer_for',
]
