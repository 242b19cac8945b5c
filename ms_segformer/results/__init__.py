"""Results of the pipeline as files, and the manifest that says which file belongs to which image.

It brings OpenCV and Pillow, so the command line imports it where it is used.
"""

from .formats import encode_rle
from .inputs import Input, InputVersion, RemoteImage, find_input
from .manifest import Manifest, ManifestError, OwnOutputs
from .output import Row, SegmentationOutput
from .plan import AlteredError, Job, Run, change, make_plan, obstacle, out_of_date
from .writer import ResultWriter, segments

__all__ = [
    'AlteredError',
    'Input',
    'InputVersion',
    'Job',
    'Manifest',
    'ManifestError',
    'OwnOutputs',
    'RemoteImage',
    'ResultWriter',
    'Row',
    'Run',
    'SegmentationOutput',
    'change',
    'encode_rle',
    'find_input',
    'make_plan',
    'obstacle',
    'out_of_date',
    'segments',
]
