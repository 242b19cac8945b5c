"""SegFormer for ModelScope: add `import ms_segformer` above a model card's code and it runs."""
from .version import __version__  # noqa: F401
