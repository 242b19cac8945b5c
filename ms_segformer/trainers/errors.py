"""What the trainer says when it cannot go on."""

from ..errors import SegformerError


class TrainingError(SegformerError, RuntimeError, ValueError):
    """Training cannot start or go on; the message says what happened, what is safe and what to do."""
