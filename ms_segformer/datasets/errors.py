"""The error of this package."""

from ..errors import SegformerError


class DatasetError(SegformerError, ValueError):
    """A data set, its configuration or one of its files cannot be used; the message names it and says what to do."""
