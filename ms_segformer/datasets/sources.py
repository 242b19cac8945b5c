"""Where samples come from: folders of images and label maps, or a table of pairs.

A source knows its classes and colours, pairs every image with its label map, and loads a pair:

    source = SegSourceRaw(img_root='train2017', label_root='annotations/train2017', split='train.txt',
                          label_suffix='_labelTrainIds.png', classes=['person', …])
    sample = source.load(0)      # {'img': H×W×3 uint8 BGR, 'gt_semantic_seg': H×W uint8, 'filename': …}

Nothing is skipped or replaced: a file that is missing, unreadable, of another size than its partner, or with values
outside the classes raises `DatasetError` with its name.
"""
import inspect
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ..config.class_file import ClassFileError, read_class_file
from ..config.messages import shown
from ..config.schema import SOURCE, wrong_value
from ..metainfo import IGNORE_INDEX
from . import coco_stuff
from .errors import DatasetError
from .image_file import read_image
from .label_file import as_label, decode_label, label_of_image, read_label

logger = logging.getLogger('modelscope')
SOURCES = {}
MAX_CLASSES = 255  # ids 0-254 in a uint8 label map, 255 is "not labelled"
CONVERTED_SUFFIX = '_labelTrainIds.png'  # of COCO-Stuff's label maps with training ids
_LOOKED_AT = 128  # label maps, at most, before their ids count as unknown
_DO_NOT_MIX = 'Convert the official ones with "ms-segformer prepare coco-stuff" and do not mix the two'
_NAMED = 5  # files that an error message names before it only counts

VOC_CLASSES = ('background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
               'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
               'tvmonitor')


def _register(cls):
    SOURCES[cls.__name__] = cls
    return cls


def build_source(cfg, check=True):
    """Return the source that a `data_source` section describes.

    Args:
        cfg: `{'type': 'SegSourceRaw', …}`, or an object that already is a source (has `load`).
        check: raise when files are missing; False leaves them in `source.pairing`, for a report.

    Raises:
        DatasetError: unknown type or arguments, or files are missing.
    """
    if hasattr(cfg, 'load') and hasattr(cfg, '__len__'):
        return cfg
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise DatasetError('data_source is a dict with the key "type", e.g. {"type": "SegSourceRaw", "img_root": …}; '
                           f'got {cfg!r}')
    cls = SOURCES.get(cfg['type']) if isinstance(cfg['type'], str) else None
    if cls is None:
        raise DatasetError(f'unknown data source "{shown(cfg["type"], quoted=False)}"; known are: '
                           f'{", ".join(sorted(SOURCES))}')
    arguments = {key: value for key, value in cfg.items() if key != 'type'}
    names = list(inspect.signature(cls).parameters)
    unknown = sorted(set(arguments) - set(names))
    if unknown:
        raise DatasetError(f'{cfg["type"]} does not take {unknown}; its arguments are: {", ".join(names)}')
    wrong = wrong_value(arguments, SOURCE)
    if wrong:
        raise DatasetError(f'{cfg["type"]}: {wrong}')
    return cls(**arguments, **({} if check else {'check': False}))


def share_ids(sources):
    """Let the splits of a data set whose label maps show no ids of theirs count as those of another split do.

    Args:
        sources: what `build_source` returns, or anything else, which is left alone.
    """
    sources = [source for source in sources if isinstance(source, _Source)]
    for source in [source for source in sources if source.ids_unknown]:
        if any(other.official and other.reduce_zero_label == source.reduce_zero_label for other in sources):
            source.official, source.ids_unknown = True, False
            _tell(logger.info, 'label map %s and others of its split: official ones of COCO-Stuff, too, as those of '
                  'the other split are', source.label_path(0))


def say_if_255_looks_like_a_class(source, most=16):
    """Warn where label maps, evenly spread, hold nothing but 0 and 255, as masks of one thing do.

    Args:
        source: what `build_source` returns; anything else is left alone.
        most: label maps that are opened, at most.
    """
    if not isinstance(source, _Source) or not source.has_labels or len(source.CLASSES) < 2:
        return
    found = set()
    for index in source._spread(most):
        try:
            found |= set(np.flatnonzero(np.bincount(source.read_raw_label(index).ravel(), minlength=256)).tolist())
        except DatasetError:  # an error when its turn comes
            continue
        if found - {0, IGNORE_INDEX}:
            return
    if IGNORE_INDEX in found:
        _tell(logger.warning, 'label map %s and others hold nothing but 0 and 255: 255 is "not labelled", so no pixel '
              'is %s. Where 255 means that class, write 1 in its place', source.label_path(0), source.CLASSES[1])


def read_classes(classes):
    """Return class names as a list.

    Args:
        classes: list of names, or the path of a text file with one name per line.

    Raises:
        DatasetError: no regular text file of at most 1 MiB there, no names, a name twice, or more than 255.
    """
    if isinstance(classes, (str, os.PathLike)):
        try:
            classes = read_class_file(classes)
        except FileNotFoundError as error:
            raise DatasetError(f'classes names a file that does not exist ({error}); '
                               'give its path, or the class names as a list') from None
        except ClassFileError as error:
            raise DatasetError(str(error)) from None
    if not isinstance(classes, (list, tuple)) or not classes:
        raise DatasetError(f'classes is a list of names or the path of a text file with one name per line; '
                           f'got {classes!r}')
    names = [str(name) for name in classes]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DatasetError(f'classes holds {repeated} more than once; every class needs its own name')
    if len(names) > MAX_CLASSES:
        raise DatasetError(f'{len(names)} classes: label maps are uint8, with room for {MAX_CLASSES}; merge some')
    return names


def make_palette(palette, classes):
    """Return one [red, green, blue] per class.

    Args:
        palette: colours 0-255, one per class; None: COCO-Stuff's for its classes, random ones otherwise (always the
            same, those that EasyCV draws).
        classes: list of class names.
    """
    if palette is None and list(classes) == list(coco_stuff.CLASSES):
        palette = coco_stuff.PALETTE
    if palette is None:
        palette = np.random.RandomState(42).randint(0, 255, size=(len(classes), 3))
    try:
        colours = np.asarray(palette)
    except ValueError:  # lists of different lengths
        colours = np.empty(0)
    if colours.shape != (len(classes), 3) or colours.dtype.kind not in 'iuf' or not (
            (colours >= 0) & (colours <= 255)).all():
        raise DatasetError(f'palette holds one (red, green, blue) of 0-255 for each of the {len(classes)} classes; '
                           f'got {shown(palette)}')
    return colours.astype(int).tolist()


_REDUCE = np.concatenate([[255], np.arange(254), [255]]).astype(np.uint8)


def reduce_zero_label(label):
    """Return a uint8 label map with 0 turned into 255 and 1-254 moved down by one; 255 stays."""
    return cv2.LUT(label, _REDUCE)


def _label_table(reduce, ignore_index):
    """Return 256 uint8 that turn stored values into class ids, None when they are the same."""
    identity = np.arange(256, dtype=np.uint8)
    table = _REDUCE.copy() if reduce else identity.copy()
    if ignore_index is not None:
        table[table == ignore_index] = IGNORE_INDEX
    return None if np.array_equal(table, identity) else table


def bad_values(label, num_classes):
    """Return {value: pixels} of the values of a uint8 label map that are neither a class id nor 255."""
    if label.max(initial=0) < num_classes:
        return {}
    counts = np.bincount(label.ravel(), minlength=256)
    return {value: int(counts[value]) for value in range(num_classes, IGNORE_INDEX) if counts[value]}


@dataclass
class Pairing:
    """Images with their label maps, and what has no partner.

    Attributes:
        names: relative name of each pair, without suffix.
        images, labels: paths, one per pair; `labels` is empty for a source without labels.
        missing_images: entries of the split file (and the path looked for) that no image exists for.
        missing_labels: image paths without a label map, with the path looked for.
        ambiguous: groups of images that one name, and so one label map, stands for; at most the first of them is used.
    """

    names: list = field(default_factory=list)
    images: list = field(default_factory=list)
    labels: list = field(default_factory=list)
    missing_images: list = field(default_factory=list)
    missing_labels: list = field(default_factory=list)
    ambiguous: list = field(default_factory=list)

    def require_distinct(self):
        """Raise `DatasetError` where a name stands for more than one image."""
        if self.ambiguous:
            raise DatasetError(f'images that differ in their ending only take the same label map: '
                               f'{_name_some([" and ".join(group) for group in self.ambiguous])}. Rename or remove all '
                               'but one, or set img_suffix to the ending that counts')


class _Folder:
    """File names of a root and its subfolders, each folder listed once, found whatever their case."""

    def __init__(self, root):
        self.root = root
        self._listings = {}

    def find(self, name):
        """Return the path of the file `name` (relative), preferring its own case, or None."""
        folder, base = os.path.split(name)
        listing = self._listing(folder)
        actual = listing.get(base) or listing.get(base.lower())
        return os.path.join(self.root, folder, actual) if actual else None

    def _listing(self, folder):
        if folder not in self._listings:
            path = os.path.join(self.root, folder)
            names = os.listdir(path) if os.path.isdir(path) else []
            self._listings[folder] = {**{name.lower(): name for name in names}, **{name: name for name in names}}
        return self._listings[folder]


def _walk(root):
    """Return the sorted relative names of all files under `root`, hidden ones left out."""
    names = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        relative = os.path.relpath(folder, root)
        names += [os.path.normpath(os.path.join(relative, name)) for name in files if not name.startswith('.')]
    return sorted(names)


def _suffixes(value, what):
    suffixes = [value] if isinstance(value, str) else list(value)
    if not suffixes or not all(isinstance(suffix, str) and suffix for suffix in suffixes):
        raise DatasetError(f'{what} is a file name ending such as ".jpg", or a list of them; got {value!r}')
    return suffixes


def _strip_suffix(name, suffixes):
    """Return `name` without the first of `suffixes` that it ends with (any case), or None when it ends with none."""
    for suffix in suffixes:
        if name.lower().endswith(suffix.lower()) and len(os.path.basename(name)) > len(suffix):
            return name[:-len(suffix)]
    return None


def read_split(path):
    """Return the non-empty lines of a split file, one relative sample name each.

    Raises:
        DatasetError: no such file, not UTF-8 text, or nothing in it.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f'split file {path} does not exist; correct "split" in the data_source section, '
                           'or leave it out to take every image under img_root')
    try:
        text = path.read_text(encoding='utf-8-sig')  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise DatasetError(f'split file {path} is not UTF-8 text ({error}); save it as UTF-8') from None
    entries = [line.strip() for line in text.splitlines() if line.strip()]
    if not entries:
        raise DatasetError(f'split file {path} is empty; it holds one sample name per line')
    return entries


def pair_files(img_root, label_root, img_suffix, label_suffix, split=None):
    """Pair images with label maps by their relative name, without opening any of them.

    Args:
        img_root, label_root: folders; `label_root` None: images only.
        img_suffix, label_suffix: lists of file name endings, tried in order; case does not matter.
        split: path of a text file with one relative name per line, with or without the image's ending; None: every
            image under `img_root`.

    Returns:
        A `Pairing`.
    """
    images, labels = _Folder(img_root), _Folder(label_root) if label_root else None
    pairing, taken = Pairing(), {}  # label map, or image without one -> the image that takes it
    for name, own in _names(img_root, img_suffix, split):
        found = _images(images, name, own, img_suffix)
        if not found:
            pairing.missing_images.append(os.path.join(img_root, name + img_suffix[0]))
            continue
        image, label = found[0], None
        if labels:
            label = next(filter(None, (labels.find(name + suffix) for suffix in label_suffix)), None)
            if label is None:
                pairing.missing_labels.append((image, os.path.join(label_root, name + label_suffix[0])))
                continue
        first = taken.setdefault(label or os.path.join(img_root, name), image)
        if first != image or len(found) > 1:
            pairing.ambiguous.append(tuple(dict.fromkeys([first, *found])))
            if first != image:
                continue
        if label:
            pairing.labels.append(label)
        pairing.names.append(name)
        pairing.images.append(image)
    return pairing


def _names(img_root, img_suffix, split):
    """(name without ending, name with the ending it was given with or None) of every sample."""
    if split is None:
        names = ((_strip_suffix(name, img_suffix), name) for name in _walk(img_root))
        return [(stem, name) for stem, name in names if stem is not None]
    entries = split if isinstance(split, (list, tuple)) else read_split(split)
    stems = ((_strip_suffix(entry, img_suffix), entry) for entry in entries)
    return [(entry, None) if stem is None else (stem, entry) for stem, entry in stems]


def _images(folder, name, own, suffixes):
    """The images that a name means: the one with the ending it was given with, else those with any of the endings."""
    exact = own and folder.find(own)
    if exact:
        return [exact]
    return list(dict.fromkeys(filter(None, (folder.find(name + suffix) for suffix in suffixes))))


def _tell(log, *message):
    """Log in one of several processes."""
    from modelscope.utils.torch_utils import is_master
    if is_master():
        log(*message)


def _name_some(items):
    shown = ', '.join(map(str, items[:_NAMED]))
    return shown + (f' and {len(items) - _NAMED} more' if len(items) > _NAMED else '')


class _Source:
    """What all sources share: classes, colours, and loading a pair with its checks.

    Attributes:
        official: the label maps hold COCO-Stuff's official ids (0-181), which are turned into training ids.
        ids_unknown: nothing shows whether they do, and nobody has said it; they are taken for training ids.
    """

    def __init__(self, classes, palette, reduce_zero_label, ignore_index, to_float32):
        self.CLASSES = read_classes(classes)
        self.PALETTE = make_palette(palette, self.CLASSES)
        self.reduce_zero_label = reduce_zero_label
        self.ignore_index = ignore_index
        self._table = _label_table(reduce_zero_label, ignore_index)
        self.to_float32 = to_float32
        self.official = self.ids_unknown = False

    @property
    def _is_coco_stuff(self):
        return list(self.CLASSES) == list(coco_stuff.CLASSES)

    def _settle_ids(self, raw_ids, doubtful=False):
        """Find out whether the label maps hold COCO-Stuff's official ids; `doubtful`: refuse what does not show it."""
        if raw_ids and not self._is_coco_stuff:
            raise DatasetError(f'raw_ids is for the {len(coco_stuff.CLASSES)} classes of COCO-Stuff 164k; these are '
                               f'{len(self.CLASSES)} others. Leave it out')
        if raw_ids is not None:
            self.official = bool(raw_ids)
        elif self._is_coco_stuff and self.has_labels and len(self):
            self._look_at_ids(doubtful)

    def _look_at_ids(self, doubtful):
        """Decide by what label maps, evenly spread, are seen to hold: until one way of counting is left."""
        against, possible = {}, list(coco_stuff.KINDS)
        for index in self._spread(_LOOKED_AT):
            try:
                values = self._values(index)
            except DatasetError:  # an error when its turn comes
                continue
            for kind, value in coco_stuff.foreign_ids(values, self.reduce_zero_label).items():
                against.setdefault(kind, (index, value))
            possible = [kind for kind in possible if kind not in against]
            if IGNORE_INDEX in values and not self.reduce_zero_label and possible != [coco_stuff.FROM_ONE]:
                possible = [kind for kind in possible if kind != coco_stuff.FROM_ONE]  # there 0 is "not labelled"
            if len(possible) <= 1:
                break
        self._decide(possible, against, doubtful)

    def _decide(self, possible, against, doubtful):
        """Decide by the kinds that are left, and {kind: (number of a label map, value in it that the kind lacks)}."""
        if not possible:
            raise DatasetError(f'{self._shown(against[coco_stuff.TRAINING])}, which only official label maps of '
                               f'COCO-Stuff do, and {self._shown(against[coco_stuff.OFFICIAL])}, which none of them '
                               f'does. {_DO_NOT_MIX}')
        if coco_stuff.TRAINING not in possible:
            wanted = coco_stuff.FROM_ONE if self.reduce_zero_label else coco_stuff.OFFICIAL
            seen = self._shown(against[coco_stuff.TRAINING])
            if possible != [wanted]:
                sure = (f'{self._shown(against[wanted])}, so they count from {0 if self.reduce_zero_label else 1}'
                        if wanted not in possible else 'nothing shows whether they count from 0 or from 1')
                raise DatasetError(
                    f'{seen}: the label maps hold official ids of COCO-Stuff, and {sure}. In the data_source section '
                    'set reduce_zero_label to true if they are those of 10k (1-182, 0 is "not labelled"), or to false '
                    'with raw_ids set to true if they are those of 164k (0-181, 0 is a person)')
            self.official = True
            counted = '1-182' if self.reduce_zero_label else '0-181'
            _tell(logger.info, '%s: the label maps are the official ones of COCO-Stuff (ids %s); they are turned into '
                  'training ids', seen, counted)
        elif len(possible) > 1:
            unknown = (f'nothing in label map {self.label_path(0)} and others shows whether they hold training ids '
                       '(0-170) or the official ids of COCO-Stuff (0-181)')
            if doubtful:
                raise DatasetError(f'{unknown}; set raw_ids to false or true in the data_source section, or convert '
                                   'them with "ms-segformer prepare coco-stuff"')
            self.ids_unknown = True
            _tell(logger.warning, '%s; they are taken for training ids. Convert official ones with "ms-segformer '
                  'prepare coco-stuff", or set raw_ids to true in the data_source section', unknown)

    def _values(self, index):
        """The values in a label map as stored, without the one that `ignore_index` means."""
        values = np.flatnonzero(np.bincount(self._stored_label(index).ravel(), minlength=256)).tolist()
        ignored = None if self.ignore_index in (None, IGNORE_INDEX) else self.ignore_index + self.reduce_zero_label
        return [value for value in values if value != ignored]

    def _shown(self, seen):
        return f'label map {self.label_path(seen[0])} holds {seen[1]}'

    def _spread(self, most):
        """Numbers of samples spread evenly over all of them."""
        return sorted({len(self) * number // most for number in range(most)} if len(self) > most
                      else range(len(self)))

    def read_raw_label(self, index):
        """Return the H×W uint8 ids of a label map, whether there are such classes or not; 255 is "not labelled".

        `reduce_zero_label` is applied, `ignore_index` is 255, and COCO-Stuff's official ids are training ids.
        """
        label = self._stored_label(index)
        label = label if self._table is None else cv2.LUT(label, self._table)
        if not self.official:
            return label
        try:
            return coco_stuff.raw_label_to_train(label)
        except ValueError as error:
            raise DatasetError(f'label map {self.label_path(index)}: {error}. {_DO_NOT_MIX}; where none is official, '
                               'set raw_ids to false') from error

    def load_label(self, index):
        """Return the H×W uint8 label map of a sample: class ids, and 255 where nothing is labelled.

        Raises:
            DatasetError: the file cannot be used, or holds other values.
        """
        label = self.read_raw_label(index)
        count = len(self.CLASSES)
        bad = bad_values(label, count)
        if bad:
            raise DatasetError(f'label map {self.label_path(index)} holds the values {sorted(bad)} '
                               f'({sum(bad.values())} pixels); the {count} classes are 0-{count - 1} and '
                               f'255 is "not labelled". {self.hint(bad)}')
        return label

    def ids_outside(self, most=64):
        """Look at label maps spread evenly over the samples for values that are neither a class id nor 255.

        Args:
            most: label maps that are opened, at most.

        Returns:
            ({value: number of label maps that hold it}, path of the first such label map or None). One that cannot be
            read counts as none: it is an error when its turn comes.
        """
        found, first = {}, None
        for index in self._spread(most):
            try:
                label = self.read_raw_label(index)
            except DatasetError:
                continue
            for value in bad_values(label, len(self.CLASSES)):
                found[value] = found.get(value, 0) + 1
                first = first or self.label_path(index)
        return dict(sorted(found.items())), first

    def hint(self, bad):
        """Return what to do about values of label maps that are no class ids."""
        if max(bad) == len(self.CLASSES) and not self.reduce_zero_label:
            return 'If 0 means background, set reduce_zero_label to true'
        if list(self.CLASSES) == list(coco_stuff.CLASSES) and max(bad) < coco_stuff.NUM_RAW_IDS:
            return ('These look like the official COCO-Stuff ids: convert them with "ms-segformer prepare coco-stuff" '
                    'and set label_suffix to "_labelTrainIds.png"')
        return 'Correct the label map or the list of classes; if the value means "not labelled", set ignore_index to it'

    def load(self, index):
        """Return a sample as the dict that transforms take.

        Raises:
            DatasetError: a file is missing, unreadable, of another size than its partner, or holds wrong values.
        """
        img = self.read_raw_image(index)
        sample = {'filename': self.image_path(index), 'ori_filename': self.name(index), 'img_fields': ['img'],
                  'img_shape': img.shape, 'ori_shape': img.shape, 'pad_shape': img.shape, 'seg_fields': []}
        if self.has_labels:
            label = self.load_label(index)
            if label.shape != img.shape[:2]:
                raise DatasetError(f'label map {self.label_path(index)} is {label.shape[1]}×{label.shape[0]} pixels '
                                   f'and its image {self.image_path(index)} is {img.shape[1]}×{img.shape[0]} '
                                   '(width×height, upright after EXIF rotation). Both must agree: correct or remove '
                                   'the pair')
            sample.update(seg_filename=self.label_path(index), gt_semantic_seg=label, seg_fields=['gt_semantic_seg'])
        sample['img'] = img.astype(np.float32) if self.to_float32 else img
        return sample


@_register
class SegSourceRaw(_Source):
    """Images and label maps in two folders, paired by their relative name.

    Args:
        img_root: folder of the images, searched with its subfolders.
        label_root: folder of the label maps, laid out in the same way; None: images without labels.
        split: text file with one relative name per line, with or without the image's ending (or a list of names);
            None: every image under `img_root`.
        classes: list of names, or a text file with one per line; the class id is the position.
        img_suffix, label_suffix: file name ending or list of endings; case does not matter.
        reduce_zero_label: label 0 becomes "not labelled" and the others move down by one.
        raw_ids: for the classes of COCO-Stuff 164k: whether the label maps hold its official ids (0-181) in place of
            training ids (0-170). None: those named `_labelTrainIds.png` do not; of others as many as it takes, evenly
            spread, are looked at: 172-181 are official, 11, 25, 28, 29, 44, 65, 67, 68, 70, 82 and 90 are in no
            official map. What they show holds for all, and one that contradicts it is an error when it is read. Where
            none shows it, they are training ids, with a warning. With `reduce_zero_label`, official ids are those of
            COCO-Stuff 10k (1-182, 0 is "not labelled"); which of the two ways they count is looked at too.
        palette: one (red, green, blue) per class; None: COCO-Stuff's colours for its classes, random ones otherwise.
        ignore_index: value in the files for "not labelled" besides 255 (counted after `reduce_zero_label`); samples
            carry 255 in its place, the one value that padding, loss and metric ignore.
        to_float32: load images as float32, so that resizing does not round to grey levels, as in the original.
        num_processes, cache_at_init, cache_on_the_fly: accepted for published configurations, without effect: listing
            takes one process, and the operating system keeps files in memory.
        check: raise when files are missing; False leaves them in `pairing`.

    Raises:
        DatasetError: a folder or the split file does not exist, nothing is found, or an image or a label is missing.
    """

    def __init__(self, img_root, label_root=None, split=None, classes=None, img_suffix='.jpg', label_suffix='.png',
                 reduce_zero_label=False, palette=None, ignore_index=IGNORE_INDEX, to_float32=True,
                 num_processes=None, cache_at_init=False, cache_on_the_fly=False, raw_ids=None, check=True):
        super().__init__(classes, palette, reduce_zero_label, ignore_index, to_float32)
        self.img_root, self.label_root, self.split = os.fspath(img_root), label_root and os.fspath(label_root), split
        self.img_suffix = _suffixes(img_suffix, 'img_suffix')
        self.label_suffix = _suffixes(label_suffix, 'label_suffix')
        self._check_folders()
        self.pairing = pair_files(self.img_root, self.label_root, self.img_suffix, self.label_suffix, split)
        renamed = self._take_official_names()
        if check:
            self._check_pairing()
        converted = any('labelTrainIds' in suffix for suffix in self.label_suffix)
        self._settle_ids(False if converted and raw_ids is None else raw_ids, doubtful=renamed)

    def _take_official_names(self):
        """Use `<id>.png`, the names of the official label maps, where all of them are there and no converted one is."""
        if not self._is_coco_stuff or self.label_suffix != [CONVERTED_SUFFIX] or self.pairing.labels:
            return False
        pairing = pair_files(self.img_root, self.label_root, self.img_suffix, ['.png'], self.split)
        if not pairing.labels or pairing.missing_labels:
            return False
        self.pairing, self.label_suffix = pairing, ['.png']
        _tell(logger.info, 'no *%s in %s: its *.png are taken', CONVERTED_SUFFIX, self.label_root)
        return True

    def _check_folders(self):
        for what, folder in (('img_root', self.img_root), ('label_root', self.label_root)):
            if folder and not os.path.isdir(folder):
                raise DatasetError(f'{what} {folder} is not a folder (looked for from {os.getcwd()}). Put the data '
                                   f'there, or set {what} in the data_source section to where they are')

    def _check_pairing(self):
        pairing = self.pairing
        pairing.require_distinct()
        if pairing.missing_images:
            raise DatasetError(f'{len(pairing.missing_images)} images that the split file {self.split} lists do not '
                               f'exist: {_name_some(pairing.missing_images)}. Correct the split file, img_root or '
                               f'img_suffix ({", ".join(self.img_suffix)})')
        if pairing.missing_labels:
            wanted = [label for _, label in pairing.missing_labels]
            raise DatasetError(f'{len(wanted)} images have no label map; missing are {_name_some(wanted)}. Add them, '
                               'leave their images out of the split file, or correct label_root or label_suffix')
        if not pairing.images:
            raise DatasetError(f'no images ending in {", ".join(self.img_suffix)} under {self.img_root}; '
                               'correct img_root or img_suffix')

    def __len__(self):
        return len(self.pairing.images)

    @property
    def has_labels(self):
        """Whether samples carry a label map."""
        return self.label_root is not None

    def without_labels(self):
        """Return what to do about samples without label maps."""
        return f'the images in {self.img_root} have no label maps; set label_root in the data_source section'

    def name(self, index):
        """Return the image's name relative to `img_root`."""
        return os.path.relpath(self.pairing.images[index], self.img_root)

    def image_path(self, index):
        """Return the path of an image."""
        return self.pairing.images[index]

    def label_path(self, index):
        """Return the path of a label map, None without labels."""
        return self.pairing.labels[index] if self.has_labels else None

    def read_raw_image(self, index):
        """Return the H×W×3 uint8 BGR image."""
        return read_image(self.image_path(index))

    def _stored_label(self, index):
        return read_label(self.label_path(index))


@_register
class SegSourceCocoStuff164k(SegSourceRaw):
    """COCO-Stuff 164k with its official label maps or with converted ones.

    Without `classes`, the label maps are the official ones (`stuffthingmaps`, ids 0-181 and 255), unless `label_suffix`
    is `_labelTrainIds.png`, and are turned into training ids while loading.

    Args: as for `SegSourceRaw`.
    """

    def __init__(self, img_root, label_root=None, split=None, classes=None, img_suffix='.jpg', label_suffix='.png',
                 reduce_zero_label=False, palette=None, ignore_index=IGNORE_INDEX, to_float32=True,
                 num_processes=None, cache_at_init=False, cache_on_the_fly=False, raw_ids=None, check=True):
        converted = any('labelTrainIds' in suffix for suffix in _suffixes(label_suffix, 'label_suffix'))
        if raw_ids is None and classes is None:
            raw_ids = not converted
        super().__init__(img_root, label_root, split, list(coco_stuff.CLASSES) if classes is None else classes,
                         img_suffix, label_suffix, reduce_zero_label, palette, ignore_index, to_float32,
                         raw_ids=raw_ids, check=check)


@_register
class SegSourceCocoStuff10k(SegSourceRaw):
    """COCO-Stuff 10k: images, and `.mat` label maps (key `S`, 0 unlabelled, 1-182) or PNGs, listed in a file.

    Args:
        path: the list of sample names (`imageLists/train.txt`).
        classes: None: `unlabeled` and the 182 raw names, ids as stored.
        The others as for `SegSourceRaw`.
    """

    def __init__(self, path, img_root, label_root=None, classes=None, img_suffix='.jpg', label_suffix='.mat',
                 reduce_zero_label=False, palette=None, ignore_index=IGNORE_INDEX, to_float32=True,
                 num_processes=None, cache_at_init=False, cache_on_the_fly=False, check=True):
        names = ['unlabeled', *coco_stuff.RAW_NAMES][1 if reduce_zero_label else 0:]
        super().__init__(img_root, label_root, path, classes or names, img_suffix, label_suffix, reduce_zero_label,
                         palette, ignore_index, to_float32, check=check)


class _SegSourceVoc(SegSourceRaw):
    """Pascal VOC in its own layout: `<path>/VOCdevkit/<year>/{JPEGImages,SegmentationClass,ImageSets/Segmentation}`.

    Args:
        path: folder that holds `VOCdevkit`. Nothing is downloaded.
        split: train, val or trainval.
        The others as for `SegSourceRaw`.
    """

    YEAR = None

    def __init__(self, path, split='trainval', reduce_zero_label=False, palette=None, ignore_index=IGNORE_INDEX,
                 to_float32=True, num_processes=None, cache_at_init=False, cache_on_the_fly=False, check=True):
        root = Path(path) / 'VOCdevkit' / self.YEAR
        classes = VOC_CLASSES[1 if reduce_zero_label else 0:]
        super().__init__(root / 'JPEGImages', root / 'SegmentationClass',
                         root / 'ImageSets' / 'Segmentation' / f'{split}.txt', classes, '.jpg', '.png',
                         reduce_zero_label, palette, ignore_index, to_float32, check=check)


@_register
class SegSourceVoc2010(_SegSourceVoc):
    __doc__ = _SegSourceVoc.__doc__
    YEAR = 'VOC2010'


@_register
class SegSourceVoc2012(_SegSourceVoc):
    __doc__ = _SegSourceVoc.__doc__
    YEAR = 'VOC2012'


IMAGE_COLUMNS = ('img', 'image', 'image:FILE', 'pixel_values')
LABEL_COLUMNS = ('label', 'gt_semantic_seg', 'annotation', 'mask', 'segmentation_mask', 'label:FILE', 'seg_map')


NOT_A_TABLE = ('Name the column of the label maps with label_column in the data_source section. Files in folders '
               '(train2017, annotations, …) make no such table: give the folder itself, data_root=…, in place of the '
               'data sets (of a data set on the hub the one that dataset_snapshot_download returns)')


class SegSourcePairs(_Source):
    """Pairs from a table in memory: a `datasets.Dataset`, an `MsDataset` over one, or a list.

    Args:
        pairs: sequence of (image, label) or of dicts. An image is whatever `load_image` takes (PIL image, path, bytes,
            RGB array …); a label map is a PIL image, an H×W integer array, a path or bytes.
        classes, palette, reduce_zero_label, ignore_index, to_float32, raw_ids: as for `SegSourceRaw`.
        image_column, label_column: keys of the dicts; None: the first of the usual names that is there.
    """

    def __init__(self, pairs, classes, palette=None, reduce_zero_label=False, ignore_index=IGNORE_INDEX,
                 to_float32=True, image_column=None, label_column=None, raw_ids=None):
        super().__init__(classes, palette, reduce_zero_label, ignore_index, to_float32)
        self._pairs = _plain_table(pairs)
        if not len(self._pairs):
            raise DatasetError('the data set has no samples')
        self._image_key, self._label_key = _keys(self._pairs[0], image_column, label_column)
        if self.has_labels and isinstance(self._pairs[0][self._label_key], (int, float)):
            raise DatasetError(f'the column "{self._label_key}" holds numbers, not label maps. {NOT_A_TABLE}')
        self._pairs = _with_stored(self._pairs, self._label_key)
        self._last = (None, None)
        self._settle_ids(raw_ids)

    def __len__(self):
        return len(self._pairs)

    def _row(self, index):
        """Return a sample of the table; the last one is kept, since a table decodes it on every access."""
        if self._last[0] != index:
            self._last = (index, self._pairs[index])
        return self._last[1]

    @property
    def has_labels(self):
        """Whether samples carry a label map."""
        return self._label_key is not None

    def without_labels(self):
        """Return what to do about samples without label maps."""
        first = self._row(0)
        columns = ', '.join(map(str, first)) if isinstance(first, dict) else 'the image'
        return f'the table holds no label maps (its columns: {columns}). {NOT_A_TABLE}'

    def name(self, index):
        """Return a name for messages: the file's where it is known, `sample N` otherwise."""
        return self.image_path(index)

    def image_path(self, index):
        """Return the image's file name where it has one, `sample N` otherwise."""
        image = self._row(index)[self._image_key]
        path = image if isinstance(image, (str, os.PathLike)) else getattr(image, 'filename', None)
        return os.fspath(path) if path else f'sample {index}'

    def label_path(self, index):
        """Return a name of the label map for messages."""
        return f'of {self.image_path(index)}' if self.has_labels else None

    def read_raw_image(self, index):
        """Return the H×W×3 uint8 BGR image."""
        from ms_segformer.preprocessors.image import load_image
        image = self._row(index)[self._image_key]
        if isinstance(image, dict):
            image = image.get('bytes') or image.get('path')
        try:
            return np.ascontiguousarray(load_image(image)[..., ::-1])
        except (ValueError, OSError) as error:
            raise DatasetError(f'image of sample {index} cannot be decoded: {error}') from error

    def _stored_label(self, index):
        label = self._row(index)[self._label_key]
        if isinstance(label, dict):
            label = label.get('bytes') or label.get('path')
        if label is None:
            raise DatasetError(f'label map {self.label_path(index)} is empty: the column "{self._label_key}" holds '
                               'nothing there; add it, or leave the row out')
        if isinstance(label, (str, os.PathLike)):
            return read_label(os.fspath(label))
        if isinstance(label, (bytes, bytearray)):
            return decode_label(np.frombuffer(label, np.uint8), self.label_path(index))
        if hasattr(label, 'mode') and hasattr(label, 'getbands'):
            return label_of_image(label, self.label_path(index))
        return as_label(label, self.label_path(index))


def _plain_table(pairs):
    """Return a sequence of samples: the table inside an MsDataset, without an output format."""
    if hasattr(pairs, 'to_hf_dataset'):
        pairs = pairs.to_hf_dataset()
    if hasattr(pairs, 'with_format'):
        pairs = pairs.with_format(None)
    if not hasattr(pairs, '__len__') or not hasattr(pairs, '__getitem__'):
        raise DatasetError(f'a {type(pairs).__name__} has no length or no index; pass a datasets.Dataset or a list of '
                           '(image, label) pairs')
    return pairs


def _with_stored(table, column):
    """Return a `datasets.Dataset` whose images in a column come as the files they are, other tables as they are.

    Decoded, grey PNGs of 2 or 4 bits have other values, and lossy files look like others.
    """
    feature = getattr(table, 'features', {}).get(column)
    if type(feature).__name__ != 'Image' or not hasattr(table, 'cast_column'):
        return table
    stored = table.cast_column(column, type(feature)(decode=False))
    return stored if all(_is_stored(stored[index][column]) for index in (0, len(stored) - 1)) else table


def _is_stored(cell):
    """Whether a cell holds a file's content, or the path of one on this machine."""
    return not isinstance(cell, dict) or bool(cell.get('bytes')) or os.path.isfile(cell.get('path') or '')


def _keys(sample, image_column, label_column):
    if isinstance(sample, (list, tuple)):
        return 0, 1 if len(sample) > 1 else None
    if not isinstance(sample, dict):
        raise DatasetError(f'a sample is an (image, label) pair or a dict, got {type(sample).__name__}')
    image = image_column or next((name for name in IMAGE_COLUMNS if name in sample), None)
    label = label_column or next((name for name in LABEL_COLUMNS if name in sample), None)
    for key in (image, label_column and label):
        if key is not None and key not in sample:
            raise DatasetError(f'the samples have no column "{key}"; they have {sorted(sample)}')
    if image is None:
        raise DatasetError(f'none of the columns {sorted(sample)} is known as the image; name it with image_column '
                           f'(known names: {", ".join(IMAGE_COLUMNS)})')
    return image, label
