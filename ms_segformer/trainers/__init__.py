"""Training: `easycv_trainer.EasyCVTrainer`, which ModelScope's registry builds as `easycv`, and what it is made of.

Modules are imported by name: the trainer brings ModelScope's own, which takes seconds; evaluating needs less.
"""

from .errors import TrainingError

__all__ = ['TrainingError']
