"""The SegFormer models of ModelScope (B0 to B5, COCO-Stuff 164k) on today's Python and PyTorch.

One line above the code of a model card makes it run:

    import ms_segformer

It imports neither ModelScope nor torch; what it changes, and how to have it undone, stands in
`ms_segformer.integrations.modelscope.plugin`.
"""
from .integrations.modelscope.autoload import activate
from .version import __version__

__all__ = ['__version__', 'activate']

activate()
