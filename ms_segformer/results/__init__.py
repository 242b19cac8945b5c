"""Results of the pipeline as files, and the manifest that says which file belongs to which image.

Imported lazily where it is used: it brings OpenCV and Pillow.
"""
from .inputs import Input, find_input
from .manifest import Manifest, ManifestError, OwnOutputs
from .plan import Job, Run, make_plan, obstacle
from .writer import ResultWriter, coco_rle, segments

__all__ = ['Input', 'Job', 'Manifest', 'ManifestError', 'OwnOutputs', 'ResultWriter', 'Run', 'coco_rle', 'find_input',
           'make_plan', 'obstacle', 'segments']
