"""The models of a service: opened, made ready, and described."""

import threading
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, Field

from ..datasets.class_names import names_in
from ..errors import some_of
from ..pipelines import load
from .answers import color_of
from .options import ServeOptions
from .problems import Problem

if TYPE_CHECKING:
    from ..pipelines.image_segmentation import SegformerPipeline

WARM = (480, 640)  # height and width of the image that the networks are made ready with


class ClassDescription(BaseModel):
    """A class of a model."""

    id: int
    label: str
    label_zh: str | None = Field(None, description='in Chinese, for the classes of COCO-Stuff')
    color: str = Field(description='in pictures, #rrggbb')


class ModelDescription(BaseModel):
    """A model that is served."""

    name: str
    default: bool = Field(description='answers where no model is named')
    variant: str | None = Field(description='b0 to b5')
    engine: str
    precision: str
    classes: list[ClassDescription]


class ModelDescriptions(BaseModel):
    """All that are served."""

    models: list[ModelDescription]


class Models:
    """The pipelines of a service by their names in the API.

    Args:
        options: which, and how they run.
    """

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._pipelines: dict[str, SegformerPipeline] = {}
        self._ready = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether all are opened, compiled, and have run once."""
        return self._ready.is_set()

    def make_ready(self) -> None:
        """Open all and run each once; may take seconds."""
        options = self._options
        for name, model in options.models:
            segmenter = load(model, device=options.device, engine=options.engine, precision=options.precision)
            segmenter.prepare_model()
            segmenter(np.zeros((*WARM, 3), np.uint8), with_masks=False)
            self._pipelines[name] = segmenter
        self._ready.set()

    def get(self, name: str | None) -> 'tuple[str, SegformerPipeline]':
        """The model of a name, or the first; with its name.

        Raises:
            Problem: there is none of this name.
        """
        name = self._options.models[0][0] if name is None else name
        if name not in self._pipelines:
            there = list(self._pipelines)
            raise Problem('invalid-option', f'model is {name[:100]!r}; there are {some_of(there, 20)}', accepted=there)
        return name, self._pipelines[name]

    def describe(self) -> ModelDescriptions:
        """What `/v1/models` says."""
        found = []
        for number, (name, segmenter) in enumerate(self._pipelines.items()):
            engine, palette = segmenter.prepare_model(), segmenter.palette
            chinese = names_in('zh', segmenter.classes)
            classes = [
                ClassDescription(id=i, label=label, label_zh=None if zh == label else zh, color=color_of(palette[i]))
                for i, (label, zh) in enumerate(zip(segmenter.classes, chinese, strict=True))
            ]
            found.append(
                ModelDescription(
                    name=name,
                    default=number == 0,
                    variant=segmenter.variant,
                    engine=engine.name,
                    precision=engine.precision,
                    classes=classes,
                )
            )
        return ModelDescriptions(models=found)
