"""`SegmentationResult`: the dict that the pipeline returns, and the pictures, tables and files made of it."""

import difflib
import itertools
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import numpy as np
from PIL import Image

from ..errors import ArgumentError, SegformerError, one_line, some_of
from ..files import atomic_write
from ..preprocessors.image import ImageError, ImageSource, load_image
from .formats.coco import coco_document
from .formats.options import FormatOptions
from .formats.regions import SIMPLIFY, encode_rle
from .formats.segmented import Segment, SegmentedImage, common_folder, name_below
from .output import BoxedRow, Row, SegmentationOutput, boxes, segments
from .palettes import Palette, palette_for
from .visualization import draw_result, encoded, label_map_image, shown_names

if TYPE_CHECKING:
    from pandas import DataFrame
    from supervision import Detections
    from typing_extensions import Unpack

VOID = 255  # in `seg_map`, what `only` takes out; no class list is so long that a class has this id
NOTEBOOK_SIDE = 1024  # pixels, of the picture that a notebook shows
# How a picture is written, by the end of the file's name.
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    '.png': ('PNG', {}),
    '.jpg': ('JPEG', {'quality': 92}),
    '.jpeg': ('JPEG', {'quality': 92}),
    '.webp': ('WEBP', {'quality': 90}),
    '.bmp': ('BMP', {}),
    '.tif': ('TIFF', {}),
    '.tiff': ('TIFF', {}),
}


class ResultError(SegformerError, ValueError):
    """A result cannot give what it was asked for; the message says what is missing."""


class FileThereError(SegformerError, FileExistsError):
    """A file is in the way, and it was not said that it may be replaced."""


class Drawing(TypedDict, total=False):
    """The keyword arguments of `SegmentationResult.plot`."""

    classes: str | Iterable[str] | None
    opacity: float
    outline: bool
    legend: bool
    names: bool
    language: str
    max_side: int | None


class SegmentationResult(dict[str, Any]):
    """What the pipeline says of an image: a dict with the keys of `SegmentationOutput`, and methods to use it with.

    It equals the plain dict of the same content, prints like it, and is pickled and copied like it. Besides the content
    it knows the names and the colors of the model's classes and, where the image was given as a path, that path; it
    holds no copy of the picture. Methods that need the picture take, the first that is there: their argument `image`;
    `result['image']` (`with_image=True` in the call); the file, read again. A URL is not fetched again.

    An entry of a list whose image could not be segmented is such a result too: its methods raise `ResultError` with
    the reason.

    Args:
        content: the dict.
        classes: names by id.
        palette: 256×3 uint8 colors by class id, or (red, green, blue) per class; None for a palette of our own.
        source: path of the image.
    """

    def __init__(
        self,
        content: SegmentationOutput | Mapping[str, Any],
        classes: Sequence[str] = (),
        palette: Palette | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__(content)
        self._classes, self._palette, self._source = classes, palette, source

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, key: Literal['masks']) -> list[np.ndarray]: ...
        @overload
        def __getitem__(self, key: Literal['labels']) -> list[str]: ...
        @overload
        def __getitem__(self, key: Literal['scores']) -> list[float]: ...
        @overload
        def __getitem__(self, key: Literal['seg_map', 'image', 'confidence', 'margin']) -> np.ndarray: ...
        @overload
        def __getitem__(self, key: str) -> Any: ...
        def __getitem__(self, key: str) -> Any: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the model's classes by id."""
        return tuple(self._classes)

    @property
    def palette(self) -> np.ndarray:
        """256×3 uint8 RGB colors by class id, as the pictures have them."""
        if isinstance(self._palette, np.ndarray) and self._palette.shape == (256, 3):
            return self._palette
        return palette_for(self._classes, self._palette)

    @property
    def source(self) -> str | None:
        """Path of the image; None where it was not given as a path."""
        return self._source

    def plot(
        self,
        image: 'ImageSource | None' = None,
        *,
        classes: str | Iterable[str] | None = None,
        opacity: float = 0.55,
        outline: bool = True,
        legend: bool = True,
        names: bool = False,
        language: str = 'en',
        max_side: int | None = None,
    ) -> np.ndarray:
        """Draw the segments over the picture.

        Args:
            image: the picture, in any form that the pipeline takes (arrays are RGB); by default the one at hand, see
                the class.
            classes: names of the classes to color, all by default; the rest stays as photographed.
            opacity: of the colors, 0 to 1.
            outline: draw a thin light line between segments.
            legend: add a white panel at the right with each class's color, name, share of the image and score; the
                array is wider by it.
            names: write the names on large segments too.
            language: of COCO-Stuff's class names, `'en'` or `'zh'`.
            max_side: draw larger pictures this long, in pixels; by default at their own size.

        Returns:
            uint8 RGB array; without legend and `max_side` H×W×3 as the picture.

        Raises:
            ResultError: there is no picture, or it is not of the result's size.
            ArgumentError: an unknown class or language, or a number out of range.
        """
        if not 0 <= opacity <= 1:
            raise ArgumentError(f'opacity is {opacity!r}; accepted: 0 (the picture alone) to 1 (colors alone)')
        if max_side is not None and max_side < 1:
            raise ArgumentError(f'max_side is {max_side!r}; accepted: a positive number of pixels or None')
        rows = self._rows(classes)
        picture = self._picture(image)
        return draw_result(
            picture,
            self['seg_map'],
            rows,
            self.palette,
            max_side,
            opacity,
            outline,
            legend,
            shown=[row['id'] for row in rows],
            names=names,
            class_names=shown_names(self.classes, language) if language != 'en' else None,
        )

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        content: Literal['plot', 'labels'] = 'plot',
        overwrite: bool = False,
        **drawing: 'Unpack[Drawing]',
    ) -> Path:
        """Write a picture.

        Args:
            path: the suffix says the format: .png, .jpg, .webp, .bmp or .tif.
            content: `'plot'`: what `plot` draws. `'labels'`: the label map, an 8-bit palette image whose pixel values
                are the class ids; only as .png, .bmp or .tif, which keep them.
            overwrite: replace a file that is there.
            drawing: the arguments of `plot`.

        Returns:
            The path. The file is complete or not there.

        Raises:
            FileThereError: there is a file, and `overwrite` is False.
            ArgumentError: the suffix is none of these, or does not keep class ids; `drawing` for a label map.
            OSError: it cannot be written.
        """
        target = Path(path)
        format, options = self._format(target, content)
        if not overwrite and _in_the_way(target):
            raise FileThereError(f'{target}: the file is there; pass overwrite=True to replace it, or another path')
        if content == 'labels':
            if drawing:
                raise ArgumentError(f"{', '.join(drawing)}: for content='plot'; a label map is written as it is")
            self._whole()
            image = label_map_image(self['seg_map'], self.palette)
        else:
            image = Image.fromarray(self.plot(**drawing))
        with atomic_write(target) as temporary:
            temporary.write_bytes(encoded(image, format, **options))
        return target

    def _format(self, path: Path, content: str) -> tuple[str, dict[str, Any]]:
        if content not in ('plot', 'labels'):
            raise ArgumentError(f"content is {content!r}; accepted: 'plot' or 'labels'")
        accepted = [suffix for suffix in PICTURES if content == 'plot' or suffix in ('.png', '.bmp', '.tif', '.tiff')]
        if path.suffix.lower() not in accepted:
            reason = 'a label map is kept' if content == 'labels' else 'the suffix says the format'
            raise ArgumentError(f'{path}: {reason}; accepted: a name that ends in {", ".join(accepted)}')
        return PICTURES[path.suffix.lower()]

    def show(self, **drawing: 'Unpack[Drawing]') -> None:
        """Show what `plot` draws: below the cell of a notebook, else in the system's viewer of pictures.

        Args:
            drawing: the arguments of `plot`.

        Raises:
            ResultError: there is no viewer.
        """
        from PIL import ImageShow  # imported late: it brings IPython

        image = Image.fromarray(self.plot(**drawing))
        if _in_notebook():
            sys.modules['IPython'].display.display(image)
        elif not ImageShow.show(image):
            raise ResultError("no viewer of pictures is found on this machine; write a file: result.save('result.png')")

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the plot, or the colored label map without a picture; None without a result."""
        if 'seg_map' not in self:
            return None
        try:
            drawn = self.plot(max_side=NOTEBOOK_SIDE)
        except (SegformerError, OSError):
            ground = np.full((*self['seg_map'].shape, 3), 255, np.uint8)
            drawn = self.plot(ground, max_side=NOTEBOOK_SIDE, opacity=1)
        return encoded(Image.fromarray(drawn), 'PNG')

    def to_dicts(self) -> list[BoxedRow]:
        """A dict per segment, largest first, which `json.dumps` takes.

        Returns:
            Dicts of `id` (of the class), `label`, `score` (0–1), `pixels`, `share` (of the image, 0–1) and `box`
            ([left, top, width, height] in pixels, around all parts of the class).
        """
        rows = self._rows()
        found = boxes(self['seg_map'], [row['id'] for row in rows])
        return [BoxedRow(**row, box=found[row['id']]) for row in rows]

    def to_pandas(self) -> 'DataFrame':
        """The rows of `to_dicts` as a table, with `left`, `top`, `width` and `height` in place of `box`.

        Raises:
            ResultError: pandas is not installed.
        """
        self._whole()
        try:
            import pandas  # imported late: optional
        except ImportError as error:
            raise ResultError(
                f'a table needs pandas ({one_line(error)}): `pip install pandas`, or to_dicts()'
            ) from None
        rows = self.to_dicts()
        columns = {name: [row[name] for row in rows] for name in Row.__annotations__}  # type: ignore[literal-required]
        sides = {name: [row['box'][i] for row in rows] for i, name in enumerate(('left', 'top', 'width', 'height'))}
        return pandas.DataFrame({**columns, **sides})

    def to_json(self, name: str | None = None) -> str:
        """The text that `ms-segformer predict` writes.

        Args:
            name: what the image is called in it; by default its file's name, null without one.

        Returns:
            An object of `image`, `height`, `width` and `segments`: the dicts of `to_dicts`, each with the `mask` as
            COCO's compressed run lengths.
        """
        return _json_text({'image': name or self._name(), **self._described()}, indent=1)

    def to_json_line(self) -> str:
        """The line that `ms-segformer predict` writes of a frame of a video.

        Returns:
            An object of `index`, `time` (seconds), `height`, `width` and `segments`, which are those of `to_json`.
        """
        return _json_text({'index': self.get('index'), 'time': self.get('time'), **self._described()})

    def _described(self) -> dict[str, Any]:
        self._whole()
        by_columns = np.asfortranarray(self['seg_map'])  # as run lengths go
        found = [dict(row, mask=encode_rle(by_columns == row['id'])) for row in self.to_dicts()]
        height, width = self['seg_map'].shape
        return {'height': height, 'width': width, 'segments': found}

    def to_coco(
        self, name: str | None = None, *, regions: str = 'rle', simplify: float = SIMPLIFY, min_area: int = 0
    ) -> dict[str, Any]:
        """The segments as COCO's instances; `coco_of` takes many results.

        Args:
            name: the `file_name`; by default that of the image's file.
            regions: `'rle'`: run lengths, one annotation a class, exact. `'polygons'`: one a connected part.
            simplify: how far an outline of a polygon may move, in pixels.
            min_area: connected parts of fewer pixels are left out.

        Returns:
            `{'images': …, 'annotations': …, 'categories': …}`, which `json.dumps` takes; `category_id` is the class id
            plus 1.

        Raises:
            ResultError: there is no result, or no name.
            ArgumentError: `regions` is neither, or a number out of range.
        """
        self._whole()
        return coco_of([self], None if name is None else [name], regions=regions, simplify=simplify, min_area=min_area)

    def to_supervision(self) -> 'Detections':
        """The segments as `supervision.Detections`, largest first: masks, boxes (left, top, right, bottom at the
        pixels' edges), scores as `confidence`, class ids, and the names as `data['class_name']`.

        Raises:
            ResultError: supervision is not installed.
        """
        self._whole()
        try:
            import supervision  # imported late: optional
        except ImportError as error:
            raise ResultError(f'supervision is needed ({one_line(error)}): `pip install supervision`') from None
        rows = self.to_dicts()
        seg_map = self['seg_map']
        boxes = np.array([row['box'] for row in rows], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return supervision.Detections(
            xyxy=boxes,
            mask=np.array([seg_map == row['id'] for row in rows], bool).reshape(-1, *seg_map.shape),
            confidence=np.array([row['score'] for row in rows], np.float32),
            class_id=np.array([row['id'] for row in rows], int),
            data={'class_name': np.array([row['label'] for row in rows], str)},
        )

    def only(self, *classes: str) -> 'SegmentationResult':
        """A result with some of the classes.

        Args:
            classes: names; those that are not in the image give no segment.

        Returns:
            A result of the same form: masks, labels and scores of these; `seg_map` is 255, which is no class, where
            there was another. Whatever else it holds is the same, not copied.

        Raises:
            ArgumentError: the model has no class of this name; the message suggests near ones.
        """
        self._whole()
        ids = self._ids(classes)
        if len(self._classes) > VOID:
            raise ResultError(f'a model with {len(self._classes)} classes has no id left for what is taken out')
        keep = [i for i, label in enumerate(self['labels']) if label in classes]
        table = np.full(256, VOID, np.uint8)
        table[ids] = ids
        chosen: dict[str, Any] = dict(self)
        chosen.update(
            masks=[self['masks'][i] for i in keep] if self['masks'] else [],
            labels=[self['labels'][i] for i in keep],
            scores=[self['scores'][i] for i in keep],
            seg_map=table[self['seg_map']],
        )
        return SegmentationResult(chosen, self._classes, self._palette, self._source)

    def cutout(self, label: str, image: 'ImageSource | None' = None, *, crop: bool = False) -> np.ndarray:
        """The picture of one class, everything else transparent.

        Args:
            label: name of the class.
            image: as in `plot`.
            crop: cut to the rectangle around the class instead of keeping the picture's size.

        Returns:
            H×W×4 uint8 RGBA; transparent pixels are 0 throughout.

        Raises:
            ArgumentError: the model has no class of this name.
            ResultError: the class is not in the image, or there is no picture.
        """
        self._whole()
        (class_id,) = self._ids([label])
        if label not in self['labels']:
            found = some_of(self['labels'], 8) or 'nothing'
            raise ResultError(f'there is no {label!r} in this image; it shows {found}')
        mask, picture = self['seg_map'] == class_id, self._picture(image)
        if crop:
            left, top, width, height = boxes(self['seg_map'], [class_id])[class_id]
            part = slice(top, top + height), slice(left, left + width)
            mask, picture = mask[part], picture[part]
        alpha = mask.view(np.uint8)[..., None]
        return np.concatenate([picture * alpha, alpha * 255], -1)

    def segmented(self, name: str | None = None) -> SegmentedImage:
        """The form that the writers of `results.formats` take; for `name` see `to_coco`."""
        name = name or self._name()
        if name is None:
            raise ResultError('the image was not given as a path, so it has no name: pass one')
        height, width = self['seg_map'].shape
        by_columns = np.asfortranarray(self['seg_map'])  # as run lengths go
        rows = [Segment(**row, mask=encode_rle(by_columns == row['id'])) for row in self._rows()]
        return SegmentedImage(name, os.path.splitext(name)[0], self._source or name, height, width, rows)

    def _name(self) -> str | None:
        return None if self._source is None else os.path.basename(self._source)

    def _whole(self) -> None:
        """Raise `ResultError` where the image has no result."""
        if 'error' in self:
            raise ResultError(f'image {self.get("index")} of the list has no result: {self["error"]}')

    def _ids(self, names: Iterable[str]) -> list[int]:
        """Class ids of names."""
        ids = []
        for name in names:
            if name not in self._classes:
                near = difflib.get_close_matches(str(name), self._classes, 3)
                advice = f'did you mean {" or ".join(map(repr, near))}?' if near else 'result.classes lists them'
                raise ArgumentError(f'{name!r} is none of the {len(self._classes)} classes of the model; {advice}')
            ids.append(self._classes.index(name))
        return ids

    def _rows(self, classes: str | Iterable[str] | None = None) -> list[Row]:
        """Rows of the segments, of some classes or of all."""
        self._whole()
        rows = segments(self, self._classes)
        if classes is None:
            return rows
        ids = self._ids([classes] if isinstance(classes, str) else classes)
        return [row for row in rows if row['id'] in ids]

    def _picture(self, image: 'ImageSource | None') -> np.ndarray:
        """H×W×3 uint8 RGB of the result's size."""
        height, width = self['seg_map'].shape
        if image is not None:
            picture, what = load_image(image), 'the image given'
        elif 'image' in self:
            picture, what = self['image'], "result['image']"
        elif self._source is not None:
            picture, what = self._read_again(self._source), self._source
        else:
            raise ResultError(
                'the picture is not at hand, because the image was not given as a path: pass it (image=…), or call the '
                'pipeline with with_image=True'
            )
        if picture.shape[:2] != (height, width):
            raise ResultError(
                f'{what} has {picture.shape[1]}×{picture.shape[0]} pixels and the result {width}×{height}; expected '
                'the picture that was segmented'
            )
        return picture

    def _read_again(self, path: str) -> np.ndarray:
        try:
            return load_image(path, max_pixels=self['seg_map'].size)  # a larger one is not the picture
        except (ImageError, OSError) as error:
            raise ResultError(
                f'the picture cannot be read again ({one_line(error)}): pass it (image=…), or call the pipeline with '
                'with_image=True'
            ) from None


def coco_of(
    results: Iterable[SegmentationResult],
    names: Iterable[str] | None = None,
    *,
    regions: str = 'rle',
    simplify: float = SIMPLIFY,
    min_area: int = 0,
) -> dict[str, Any]:
    """One COCO document for many results of a model; entries without a result are left out.

    Args:
        results: of the pipeline, such as the list or the generator of a call, which are not kept.
        names: the `file_name` of each, by default its path below the folder that the files of all lie in.
        regions, simplify, min_area: as in `SegmentationResult.to_coco`.

    Raises:
        ArgumentError: `regions` is neither, or a number out of range; there are more or fewer names than results;
            results of models with different classes.
        ResultError: a result has no name, because its image was not given as a path.
    """
    if isinstance(results, SegmentationResult):
        raise ArgumentError('coco_of takes a list of results and was given one; its own method is to_coco()')
    given = None if names is None else list(names)
    if given is not None and isinstance(results, Sized) and len(given) != len(results):
        raise ArgumentError(f'{len(given)} names for {len(results)} results; expected one for each')
    coming = iter(results)
    first = next(coming, None)
    classes = first.classes if first is not None else ()
    options = FormatOptions(classes, np.zeros((256, 3), np.uint8), regions, simplify, min_area)
    places: list[str] = []

    def images() -> Iterator[SegmentedImage]:
        number = 0
        for number, result in enumerate(() if first is None else itertools.chain([first], coming), 1):
            if result.classes != classes:
                raise ArgumentError('results of models with different classes; expected those of one model')
            if given is not None and number > len(given):
                raise ArgumentError(f'{len(given)} names for more results; expected one for each')
            if 'error' not in result:
                image = result.segmented(None if given is None else given[number - 1])
                places.append(image.location)
                yield image
        if given is not None and number < len(given):
            raise ArgumentError(f'{len(given)} names for {number} results; expected one for each')

    document = coco_document(images(), options)
    root = common_folder(places) if given is None else None
    if root is not None:  # two folders may have images of the same name
        for image, place in zip(document['images'], places, strict=True):
            image['file_name'] = name_below(place, root)
    return document


def _json_text(content: dict[str, Any], indent: int | None = None) -> str:
    text = json.dumps(content, ensure_ascii=False, indent=indent) + '\n'
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no text; escaped, it comes back as it was
        text = json.dumps(content, indent=indent) + '\n'
    return text


def _in_the_way(path: Path) -> bool:
    """Whether a file would be replaced; devices and pipes are written into."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this, which is the case only where IPython has been imported."""
    ipython = sys.modules.get('IPython')
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, 'kernel')
