"""SegFormer in Ray Data: `segment` adds the columns of a segmentation to a data set, in actors with one model each.

    dataset = ray.data.read_binary_files('s3://bucket/photos', include_paths=True)
    segment(dataset, 'b0').write_parquet('s3://bucket/segments')

Ray and Arrow (the extra `[ray]`) are imported where they are used.
"""

import difflib
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ..errors import ArgumentError, SegformerError, one_line
from ..metainfo import DEMO
from ..preprocessors.image import ImageError, ImageSource
from ..results.formats import encode_rle
from ..results.inputs import StoreImage
from ..results.parquet import ParquetFolder, Part, file_system, read_parquet, replaced, to_parquet, write_file
from ..results.result import SegmentationResult
from ..results.visualization import encoded, label_map_image
from ..stores import scheme_of, without_secrets
from .loading import load

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset
    from typing_extensions import Unpack

    from .image_segmentation import Sides

TRIES = 3  # of rows whose actor has died: an image that ends its process would end the next one too
MOST_ERRORS = 20  # of a part that are told
IMAGES = ('image', 'bytes', 'path')  # columns that hold the images, where none is named: the first that is there


class RayError(SegformerError, RuntimeError):
    """Ray is not installed, cannot be reached, or what it was asked for cannot be done there."""


class SegmentOptions(TypedDict, total=False):
    """The keyword arguments of `SegformerPipeline.__call__` that `segment` takes as well."""

    channel_order: str
    mode: str | None
    crop_size: 'Sides | None'
    stride: 'Sides | None'
    resize: bool
    max_pixels: int | None


def require_ray() -> None:
    """Raise `RayError` where Ray Data is not installed."""
    missing = [name for name in ('ray', 'pyarrow', 'fsspec') if find_spec(name) is None]
    if missing:
        raise RayError(f"{', '.join(missing)} not installed: pip install 'ms-segformer[ray]'")


def segmentation_schema() -> 'pyarrow.Schema':
    """The columns that `segment` adds. An image without a result has `error`, and null in all others."""
    import pyarrow as pa  # imported late: optional

    mask = pa.struct([('size', pa.list_(pa.int32())), ('counts', pa.string())])
    row = pa.struct(
        [
            ('id', pa.int32()),
            ('label', pa.string()),
            ('score', pa.float64()),
            ('pixels', pa.int64()),
            ('share', pa.float64()),
            ('box', pa.list_(pa.int32())),
            ('mask', mask),
        ]
    )
    return pa.schema(
        [
            ('height', pa.int32()),
            ('width', pa.int32()),
            ('label_map', pa.binary()),
            ('segments', pa.list_(row)),
            ('error', pa.string()),
        ]
    )


def segment(
    dataset: 'Dataset',
    model: str | os.PathLike[str] = DEMO,
    *,
    column: str | None = None,
    keep_images: bool = False,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    threads: int | None = None,
    batch_size: int = 8,
    revision: str | None = None,
    engine: str = 'auto',
    precision: str = 'float32',
    **options: 'Unpack[SegmentOptions]',
) -> 'Dataset':
    """Segment the images of a data set of Ray, lazily: nothing runs before the result is asked for.

    Each actor holds one model and takes `batch_size` rows at a time. Ray Data hands out the rows, holds back what
    comes before when the actors are behind, replaces an actor that has died, and gives its rows to another.

    Args:
        dataset: one image a row: the bytes of a file, an array (RGB, as `preprocessors.image.load_image` takes it) or a
            path or URL (of a store too), which every node of the cluster has to reach.
        model: as for `ms_segformer.load`; each actor opens it, so a directory has to be there on every node, and a hub
            id is downloaded on every node.
        column: that holds the images; default: `image`, `bytes` or `path`, the first that is there.
        keep_images: False drops that column from the result, unless it holds paths.
        concurrency: number of actors, or (least, most); default: from one to as many as the cluster has room for.
        num_cpus, num_gpus: of an actor, as Ray counts them. With a GPU the network runs there, else on the CPU.
        threads: of an actor's network on the CPU; default: `num_cpus`, at least 1.
        batch_size: rows that an actor takes at a time. The results do not depend on it.
        revision, engine, precision: as for `ms_segformer.load`.
        options: of `SegformerPipeline.__call__`: `mode`, `crop_size`, `stride`, `resize`, `max_pixels`,
            `channel_order`.

    Returns:
        The data set with the columns of `segmentation_schema` behind its own: `height` and `width` in pixels;
        `label_map`, the class id of each pixel as an 8-bit palette PNG; `segments`, largest first, a struct each of
        `id`, `label`, `score` (0–1), `pixels`, `share` (0–1), `box` ([left, top, width, height]) and `mask` (COCO's
        compressed run lengths: `size`, `counts`); and `error`. An image that cannot be read has the reason in `error`
        and null in the others; the job goes on.

    Raises:
        ArgumentError, TypeError: an argument is not accepted.
        RayError: Ray Data is not installed.
    """
    _check(options)
    if batch_size < 1 or num_cpus < 0 or num_gpus < 0 or (threads is not None and threads < 1):
        raise ArgumentError(
            f'batch_size is {batch_size}, num_cpus {num_cpus}, num_gpus {num_gpus} and threads {threads}; accepted: '
            'batch_size and threads of at least 1, and nothing below 0'
        )
    require_ray()
    known = dataset.schema(fetch_if_missing=False)
    if known is not None:
        images_column(known.names, column)
    return dataset.map_batches(
        Segmenter,
        batch_size=batch_size,
        batch_format='pyarrow',
        zero_copy_batch=True,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        compute=pool(concurrency),
        fn_constructor_kwargs={
            'model': os.fspath(model),
            'opening': {
                'revision': revision,
                'device': 'gpu:0' if num_gpus else 'cpu',
                'engine': engine,
                'precision': precision,
            },
            'threads': threads or max(1, int(num_cpus)),
            'column': column,
            'keep_images': keep_images,
            'options': options,
        },
    )


def pool(concurrency: int | tuple[int, int] | None) -> Any:
    """Ray Data's pool of that many actors, or of (least, most).

    Raises:
        ArgumentError: it is no such number.
    """
    from ray.data import ActorPoolStrategy  # imported late: optional

    least, most = concurrency if isinstance(concurrency, tuple) else (concurrency or 1, concurrency)
    if least < 1 or (most is not None and most < least):
        raise ArgumentError(f'concurrency is {concurrency!r}; accepted: a number of actors, or (least, most)')
    return ActorPoolStrategy(min_size=least, max_size=most)


def images_column(names: Sequence[str], column: str | None = None) -> str:
    """The column that holds the images.

    Args:
        names: of a data set's columns.
        column: that was asked for.

    Raises:
        ArgumentError: it is not there, or columns have names of those that are to be added.
    """
    taken = [name for name in names if name in ('height', 'width', 'label_map', 'segments', 'error')]
    if taken:
        raise ArgumentError(
            f'the data set has the columns {", ".join(taken)} already, which segment() adds; rename them: '
            'dataset.rename_columns({…})'
        )
    found = next((name for name in ((column,) if column else IMAGES) if name in names), None)
    if found is None:
        raise ArgumentError(
            f'the data set has the columns {", ".join(names)}; expected {column or "image, bytes or path"}: name the '
            'one that holds the images (column=…)'
        )
    return found


def _check(options: Iterable[str]) -> None:
    known = [*SegmentOptions.__annotations__]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise TypeError(f'segment takes no argument {name!r}' + (f'; did you mean {near[0]!r}?' if near else ''))


class Segmenter:
    """An actor's model, and what it does with a block of a data set.

    Args:
        model, opening: of `load`.
        threads: of the network on the CPU.
        column, keep_images, options: see `segment`.

    Raises:
        SegformerError, OSError: the model cannot be opened.
    """

    def __init__(
        self,
        model: str,
        opening: dict[str, Any],
        threads: int,
        column: str | None = None,
        keep_images: bool = False,
        options: SegmentOptions | None = None,
    ) -> None:
        import torch  # imported late: an actor's

        logging.getLogger('ms_segformer.pipelines').setLevel(logging.ERROR)  # bad images are in the rows
        torch.set_num_threads(threads)
        self.pipeline = load(model, **opening)
        self._column, self._keep_images, self._options = column, keep_images, options or {}
        self.pipeline.options(**self._options)  # what is not accepted is said before the first image
        self.pipeline.prepare_model()

    def __call__(self, table: 'pyarrow.Table') -> 'pyarrow.Table':
        """Add the columns to some rows."""
        name = images_column(table.column_names, self._column)
        images, are_paths = images_in(table.column(name))
        rows = self.rows(images)
        if not (self._keep_images or are_paths):
            table = table.drop_columns([name])
        for added, column in zip(rows.schema, rows.columns, strict=True):
            table = table.append_column(added, column)
        return table

    def rows(self, images: 'Iterable[ImageSource | None]') -> 'pyarrow.Table':
        """A row of `segmentation_schema` for each image; a bad one has its `error`."""
        import pyarrow as pa  # imported late: optional

        results = self.pipeline(map(_source, images), with_masks=False, **self._options)
        return pa.Table.from_pylist([_row(result) for result in results], schema=segmentation_schema())


def _source(image: 'ImageSource | None') -> 'ImageSource':
    """What the pipeline reads for an image of a row."""
    if image is None:
        return _Missing()
    return StoreImage(image, None) if isinstance(image, str) and scheme_of(image) else image


class _Missing:
    """Null in place of an image."""

    def read(self) -> bytes:
        raise ImageError('null; expected an image')


def _row(result: SegmentationResult) -> dict[str, Any]:
    if 'error' in result:
        return {'error': result['error']}
    try:
        seg_map = result['seg_map']
        by_columns = np.asfortranarray(seg_map)  # as run lengths go
        return {
            'height': seg_map.shape[0],
            'width': seg_map.shape[1],
            'label_map': encoded(label_map_image(seg_map, result.palette), 'PNG'),
            'segments': [dict(row, mask=encode_rle(by_columns == row['id'])) for row in result.to_dicts()],
        }
    except (SegformerError, MemoryError) as error:  # of this image
        return {'error': one_line(error)}


def images_in(column: 'pyarrow.ChunkedArray') -> tuple[Iterator[Any], bool]:
    """The images of a column of Ray Data: bytes, texts, arrays (Ray's own tensor types among them), or null.

    Returns:
        They, one after the other; and whether they are paths or URLs.
    """
    import pyarrow as pa  # imported late: optional

    def images() -> Iterator[Any]:
        for chunk in column.chunks:
            if isinstance(chunk, pa.ExtensionArray):  # Ray's tensors, without a copy
                yield from chunk.to_numpy(zero_copy_only=False)
            else:
                for value in chunk.to_pylist():
                    yield np.asarray(value) if isinstance(value, list) else value

    return images(), pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        part: its images.
        failed: how many of them have an error in place of a result.
        errors: the first of these.
        lost: it is not in its folder, because its actor died every time.
    """

    part: Part
    failed: int
    errors: list[str]
    lost: bool = False


def segment_parts(
    folder: ParquetFolder,
    parts: Iterable[Part],
    model: str,
    opening: dict[str, Any],
    *,
    num_cpus: float,
    num_gpus: float,
    concurrency: int | tuple[int, int] | None = None,
    locations: Mapping[str, str] | None = None,
    options: SegmentOptions | None = None,
    segmenter: 'type[PartSegmenter] | None' = None,
) -> Iterator[Outcome]:
    """Segment parts of a folder on the cluster that this process is connected to, and put them there.

    An actor that dies is replaced, and its parts are given out again. What is not there after that is tried once more,
    image by image, so that an image that ends its process does not take others with it.

    Args:
        folder: entered; every node has to reach it.
        parts: as `ParquetFolder.plan` deals them out.
        model, opening: of `load`, for the actors.
        num_cpus, num_gpus, concurrency, options: see `segment`.
        locations: what an image is read from, where that is not its key.
        segmenter: `PartSegmenter`, or what stands for it.

    Yields:
        What became of each part, in the order they are finished; those that are lost come last.

    Raises:
        RayError: a part cannot be written; the model cannot be opened in an actor; the cluster is gone.
    """
    left = {part.name: part for part in parts}
    arguments = {
        'location': folder.location,
        'unfinished': folder.unfinished,
        'model': model,
        'opening': opening,
        'threads': max(1, int(num_cpus)),
        'options': options,
    }
    for _ in range(2):
        rows = [
            {
                'name': part.name,
                'keys': list(part.keys),
                'locations': [(locations or {}).get(key, key) for key in part.keys],
                'again': part.again,
            }
            for part in left.values()
        ]
        if not rows:
            return
        found = in_actors(
            segmenter or PartSegmenter,
            rows,
            arguments,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            concurrency=concurrency,
        )
        for row in found:
            if row['problem'] is not None:
                raise RayError(f'{folder.location}: {row["problem"]}')
            folder.commit(left[row['name']])
            yield Outcome(left.pop(row['name']), row['failed'], list(row['errors']))
        left = {single.name: single for part in left.values() for single in part.single()}
    for part in left.values():
        reason = 'the process that segments it was ended every time, usually for want of memory; it has no row'
        yield Outcome(part, len(part.keys), [f'{key}: {reason}' for key in part.keys], lost=True)


def in_actors(
    actor: type,
    rows: list[dict[str, Any]],
    arguments: dict[str, Any],
    *,
    num_cpus: float,
    num_gpus: float,
    concurrency: int | tuple[int, int] | None,
) -> Iterator[dict[str, Any]]:
    """Have actors work on rows, each a task of its own.

    Args:
        actor: a class; what it makes of an Arrow table of one row is another.
        rows: for it.
        arguments: of its constructor.
        num_cpus, num_gpus, concurrency: see `segment`.

    Yields:
        The rows that come out, in the order they are finished. What belongs to a row whose actor has died every time is
        left out.

    Raises:
        RayError: an actor cannot be made; the cluster is gone.
    """
    from ray.data import from_items  # imported late: optional
    from ray.exceptions import RayError as ErrorOfRay
    from ray.util.annotations import RayDeprecationWarning

    dataset = from_items(rows, override_num_blocks=len(rows))
    dataset.context.max_errored_blocks = -1
    dataset.context.max_consecutive_actor_init_deaths = TRIES  # of those killed while they start
    with warnings.catch_warnings():
        # The only way to bound the tries: by default Ray gives a row out again without end.
        warnings.simplefilter('ignore', RayDeprecationWarning)
        done = dataset.map_batches(
            actor,
            batch_size=1,
            batch_format='pyarrow',
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            compute=pool(concurrency),
            fn_constructor_kwargs=arguments,
            max_task_retries=TRIES - 1,
        )
    try:
        yield from done.iter_rows()
    except ErrorOfRay as error:  # its text holds tracebacks of other processes; the reason is their last line
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), '')
        raise RayError(f'the processes of the cluster cannot work: {without_secrets(one_line(reason))}') from error


class PartSegmenter(Segmenter):
    """An actor that segments the images of a part and writes its rows.

    Args:
        location: of the folder.
        unfinished: where rows are written to, in the folder's file system.
        arguments: of `Segmenter`.
    """

    def __init__(self, location: str, unfinished: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._files, self._path = file_system(location)
        self._unfinished = unfinished

    def __call__(self, table: 'pyarrow.Table') -> 'pyarrow.Table':
        """Segment parts, a row each of `name`, `keys`, `locations` and `again`; returns what became of them."""
        import pyarrow as pa  # imported late: optional

        outcome = pa.schema(
            [('name', pa.string()), ('failed', pa.int32()), ('errors', pa.list_(pa.string())), ('problem', pa.string())]
        )
        return pa.Table.from_pylist([self._part(**row) for row in table.to_pylist()], schema=outcome)

    def _part(self, name: str, keys: list[str], locations: list[str], again: bool) -> dict[str, Any]:
        import pyarrow as pa  # imported late: optional

        rows = self.rows(locations)
        rows = rows.add_column(0, pa.field('path', pa.string()), [pa.array(keys, pa.string())])
        errors = rows.column('error').drop_null().to_pylist()
        try:
            if again:
                rows = replaced(read_parquet(self._files, f'{self._path}/{name}'), rows)
            write_file(self._files, f'{self._unfinished}/{name}', to_parquet(rows))
        except Exception as error:  # a full disk, a store that is gone: it would be the same for the others
            return {'name': name, 'problem': without_secrets(one_line(error))}
        return {'name': name, 'failed': len(errors), 'errors': errors[:MOST_ERRORS]}
