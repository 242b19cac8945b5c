"""How a run that cannot go on says so: what happened, which checkpoint is safe, and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ..datasets.loader import worker_died
from ..datasets.sample import Batch
from ..errors import one_line
from ..postprocess.segmentation import LogitsError
from . import log_file, run_state
from .errors import TrainingError
from .protocol import Trainer
from .resuming import safe_checkpoint

UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EXDEV,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EFBIG,
)
REMEDIES = (
    'Lower train.optimizer.lr, set train.optimizer.options.grad_clip to {"max_norm": 1.0}, train in float32 if '
    'train.amp is set, or check the data with "ms-segformer check-data"'
)


@contextmanager
def explained(trainer: Trainer) -> Iterator[None]:
    """Inside it, what stops a run is a `TrainingError` that names the safe checkpoint.

    Raises:
        TrainingError: logits are not finite, a file cannot be written, or a loader's process died.
    """
    try:
        with log_file.unwritable_raises(trainer.logger, trainer.work_dir):
            yield
    except KeyboardInterrupt:
        trainer.logger.warning(
            f'interrupted at epoch {trainer.epoch + 1}, iteration {trainer.inner_iter + 1}. {safe_checkpoint(trainer)}'
        )
        raise
    except LogitsError as error:
        raise TrainingError(
            f'{error} (evaluating at epoch {trainer.epoch + 1}). {safe_checkpoint(trainer)}. {REMEDIES}'
        ) from error
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise TrainingError(
            f'a file of the run could not be written ({error}). {safe_checkpoint(trainer)}. Make room '
            'or choose another work_dir'
        ) from error
    except RuntimeError as error:
        if isinstance(error, TrainingError) or not worker_died(error):
            raise
        raise TrainingError(
            f'a data loading process died ({one_line(error)}). {safe_checkpoint(trainer)}. Usually '
            'memory ran out: lower workers_per_gpu or batch_size_per_gpu; with workers_per_gpu=0 the '
            'error shows itself'
        ) from error


def loss_not_finite(trainer: Trainer, loss: float, batch: Batch) -> TrainingError:
    """The error for a loss that is NaN or infinite."""
    names = ', '.join(
        str(meta.get('ori_filename') or meta.get('filename'))
        for meta in batch.get('img_metas') or []
        if isinstance(meta, dict)
    )
    rate = trainer.optimizer.param_groups[0]['lr']
    return TrainingError(
        f'the loss is {loss} at epoch {trainer.epoch + 1}, iteration {trainer.inner_iter + 1} '
        f'(learning rate {rate:.3g}{", images: " + names if names else ""}). '
        f'{safe_checkpoint(trainer)}. {REMEDIES}'
    )


def require_finite_weights(trainer: Trainer) -> None:
    """Stop the run rather than write weights that are of no use.

    Raises:
        TrainingError: a weight, or what makes the next ones, is NaN or infinite.
    """
    models = {trainer.bare_model, trainer.model_to_save}
    weights = [item for model in models for item in model.state_dict().items()]
    accumulated = {} if trainer.scaler else run_state.gradients(trainer)  # a scaler skips steps that are not finite
    for tensors in (weights, run_state.gathered(trainer.optimizer.state_dict(), accumulated)):
        name = run_state.not_finite(tensors)
        if name is not None:
            raise TrainingError(
                f'the weights ({name}) are not finite after epoch {trainer.epoch + 1}, iteration '
                f"{trainer.inner_iter + 1}: the optimizer's steps diverged. They were not saved. "
                f'{safe_checkpoint(trainer)}. {REMEDIES}'
            )
