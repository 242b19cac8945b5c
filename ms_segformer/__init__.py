"""SegFormer, the semantic segmentation models of ModelScope (B0 to B5, COCO-Stuff 164k), on today's Python and PyTorch.

Segment a photograph with the model that lies in this package; no network is needed:

    import ms_segformer
    from ms_segformer.metainfo import photographs

    segmenter = ms_segformer.load('demo')        # or 'b0' to 'b5', a hub id, a model directory
    result = segmenter(photographs()[0])         # a path, a URL, bytes, a PIL image, an RGB array; or many of them
    for label, score, mask in zip(result['labels'], result['scores'], result['masks']):
        print(label, round(score, 2), mask.mean())          # mask: H×W uint8, 1 where the class is

Run the code of a model card: `import ms_segformer` above it is all. The import activates the package, which makes
ModelScope resolve SegFormer models to it; what that changes stands in `ms_segformer.integrations.modelscope.patches`,
and `deactivate()` undoes it.

Train on classes of your own:

    trainer = ms_segformer.EasyCVTrainer(model=..., classes=['road', 'sky'], data_root='my_data', work_dir='run')
    trainer.train()

On the command line: `ms-segformer --help`, or `python -m ms_segformer --help`.

What a user's files, settings or arguments make fail is a `SegformerError`, or an `OSError` where the operating system
says so; the message says what was given, what was expected and what to do.

What is here:

    load                   opens a model by its name or directory, as a pipeline
    SegformerPipeline      that pipeline: images to label maps, masks and scores
    SegmentationResult     what it returns: a dict that draws, saves and converts itself
    read_configuration     a `configuration.json`, checked, as typed settings
    Segformer              the network, as a model of ModelScope and a module of torch
    SegDataset             images with label maps, in the layouts that the original reads
    EasyCVTrainer          trains and evaluates, from a published configuration or on classes of your own
    SegformerError         the base of this package's errors
    quantize               makes an int8 network of a model, which is fastest on a CPU
    activate, deactivate   connect ModelScope to this package, which importing it does, and undo that

Importing this package imports neither torch nor ModelScope; these names bring them when they are first used. Python's
help lists every class below with all that ModelScope and torch give it; `help(ms_segformer.load)` is about one name.
"""

from .integrations.modelscope.autoload import activate, deactivate
from .version import __version__

__all__ = [
    'EasyCVTrainer',
    'SegDataset',
    'Segformer',
    'SegformerError',
    'SegformerPipeline',
    'SegmentationResult',
    '__version__',
    'activate',
    'deactivate',
    'load',
    'quantize',
    'read_configuration',
]

# Name -> the module it is imported from when it is first asked for.
_HOMES = {
    'EasyCVTrainer': 'trainers.easycv_trainer',
    'SegDataset': 'datasets.seg_dataset',
    'Segformer': 'models.segformer',
    'SegformerError': 'errors',
    'SegformerPipeline': 'pipelines.image_segmentation',
    'SegmentationResult': 'results.result',
    'load': 'pipelines.loading',
    'quantize': 'quantization.quantize',
    'read_configuration': 'config.reader',
}

TYPE_CHECKING = False  # what type checkers take for true; importing `typing` would cost more than the rest of this file
if TYPE_CHECKING:
    from .config.reader import read_configuration
    from .datasets.seg_dataset import SegDataset
    from .errors import SegformerError
    from .models.segformer import Segformer
    from .pipelines.image_segmentation import SegformerPipeline
    from .pipelines.loading import load
    from .quantization.quantize import quantize
    from .results.result import SegmentationResult
    from .trainers.easycv_trainer import EasyCVTrainer
else:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it offers {", ".join(__all__)}')
        from importlib import import_module  # imported late: `import ms_segformer` is to be cheap

        value = getattr(import_module(f'.{_HOMES[name]}', __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


activate()
