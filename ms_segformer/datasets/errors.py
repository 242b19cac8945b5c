"""The error of this room."""


class DatasetError(ValueError):
    """A data set, its configuration or one of its files cannot be used; the message names it and says what to do."""
