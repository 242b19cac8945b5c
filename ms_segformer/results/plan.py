"""Decides before anything runs what each image's files are called, and which images have to be segmented."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

from ..errors import SegformerError
from ..files import is_text
from .inputs import Input, InputVersion
from .manifest import Entry, Manifest, ManifestError, ModelName, Record, records_in
from .writer import KINDS, VIDEO_KINDS

LONGEST_NAME = 255  # bytes; the limit of nearly every file system
_NOT_OURS = 'is not a result of this image; move it away, use --overwrite, or write to another folder (-o)'
_CONTENT = ('size', 'mtime_ns', 'link_to', 'sha256')  # of a version; the others are how a server calls it


class AlteredError(SegformerError, ValueError):
    """A result that is not as it was written; the message says which and what to do."""


@dataclass(frozen=True)
class Run:
    """What is the same for all images of a run.

    Attributes:
        model: as it was named, and what its results follow from.
        options: those that change results, by name.
        save: the kinds of files wanted; see `writer.KINDS`.
        overwrite: segment everything again, over whatever stands there.
        retry_failed: segment again what failed before.
    """

    model: ModelName
    options: dict[str, Any]
    save: tuple[str, ...]
    overwrite: bool = False
    retry_failed: bool = False


@dataclass
class Job:
    """One image of a run.

    Attributes:
        input: the image.
        outputs: kind to path, relative to the output folder with `/` on every system.
        state: `todo`, it has to be segmented; `done`; `skipped`, an earlier run has finished it; `failed`; or
            `failed before`, in an earlier run.
        error: why there is no result, when it failed.
        known: the version of a URL, or of an object that its store does not tell from a later one, whose result is
            there already: it is segmented only if it has changed.
    """

    input: Input
    outputs: dict[str, str]
    state: str = 'todo'
    error: str | None = None
    known: InputVersion | None = None

    def asked(self, run: Run) -> list[str]:
        """The files that a run wants of it; a video has none of some kinds."""
        return [self.outputs[kind] for kind in run.save if kind in self.outputs]

    def fail(self, error: str) -> None:
        self.state, self.error = 'failed', error

    def pass_over(self, entry: Entry) -> None:
        """Leave the image as the manifest's entry has it."""
        self.state, self.error = ('skipped' if entry['error'] is None else 'failed before'), entry['error']

    def entry(
        self, run: Run, version: InputVersion | None, outputs: dict[str, Record], error: str | None = None
    ) -> Entry:
        """The manifest's entry of this image."""
        return Entry(
            input={self.input.kind: self.input.key, **(version or {})},
            outputs=dict(sorted(outputs.items())),
            model=run.model,
            options=run.options,
            error=error,
        )

    def announcement(self, run: Run, version: InputVersion | None, change: 'Change') -> Entry:
        """The entry that goes before the files."""
        return {**self.entry(run, version, change.outputs), 'writing': True, 'before': change.before}


def make_plan(inputs: Iterable[Input], manifest: Manifest, run: Run) -> list[Job]:
    """Name the files of each image and decide what is to be done.

    A result lies below the output folder as its image does below the current directory. Of images whose results would
    have one name the first keeps it, and the others take their whole file name; a name that the manifest gives to an
    image stays this image's.

    Args:
        inputs: the images; one that comes twice is taken once.
        manifest: the output folder's, entered.
        run: what is wanted.

    Returns:
        One job an image, in order.

    Raises:
        ManifestError: a result would replace one of the images, or results of these images were made with another
            model or other options.
    """
    unique: dict[str, Input] = {}
    for each in inputs:
        unique.setdefault(each.key, each)
    inputs = list(unique.values())
    jobs = [Job(each, outputs) for each, outputs in zip(inputs, _name_all(inputs, manifest, run), strict=True)]
    if not run.overwrite:
        _refuse_other_results(jobs, manifest, run)
    images = {each.identity for each in inputs if each.identity}
    for job in jobs:
        _refuse_inputs(job, manifest, images)
        _decide(job, manifest, run)
    return jobs


def _name_all(inputs: list[Input], manifest: Manifest, run: Run) -> list[dict[str, str]]:
    bases = {key: _base_of(min(entry['outputs'])) for key, entry in manifest.entries.items() if entry['outputs']}
    taken = set(map(os.path.normcase, bases.values()))
    named = []
    for each in inputs:
        base = bases.get(each.key)
        if base is None:
            base = next(name for name in _candidates(each.place) if os.path.normcase(name) not in taken)
            taken.add(os.path.normcase(base))
        owned = set(manifest.owned(each.key))
        # What an earlier run saved besides is written too: it must not stay behind when the image has changed.
        named.append(
            {
                kind: base + suffix
                for kind, suffix in (VIDEO_KINDS if each.video else KINDS).items()
                if kind in run.save or base + suffix in owned
            }
        )
    return named


def _base_of(output: str) -> str:
    suffixes = (*KINDS.values(), *VIDEO_KINDS.values())
    return next((output.removesuffix(suffix) for suffix in suffixes if output.endswith(suffix)), output)


def _candidates(place: tuple[str, ...]) -> Iterable[str]:
    """Names for an image's results, without their suffixes, the best one first."""
    whole = '/'.join(place)
    yield '/'.join((*place[:-1], os.path.splitext(place[-1])[0]))
    yield whole
    number = 2
    while True:
        yield f'{whole}_{number}'
        number += 1


def _refuse_other_results(jobs: list[Job], manifest: Manifest, run: Run) -> None:
    """Results of one image made in two ways do not share a folder unless the user says so."""
    for job in jobs:
        entry = manifest.entries.get(job.input.key)
        if not _has_result(entry):
            continue
        if entry['model']['sha256'] != run.model['sha256']:
            what = f'another model ("{entry["model"]["name"]}", now "{run.model["name"]}"), or its weights have changed'
        elif entry['options'] != run.options:
            what = f'other options ({_differences(entry["options"], run.options)})'
        else:
            continue
        raise ManifestError(
            f'{manifest.folder}: the result of {job.input.name} was made with {what}; --overwrite '
            'makes it again, another folder (-o) keeps both'
        )


def _has_result(entry: Entry | None) -> TypeGuard[Entry]:
    return entry is not None and not entry.get('writing') and bool(entry['outputs'])


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    return ', '.join(
        f'{key} {before.get(key)}, now {now.get(key)}' for key in {**before, **now} if before.get(key) != now.get(key)
    )


def _refuse_inputs(job: Job, manifest: Manifest, images: set[tuple[int, int] | str]) -> None:
    for output in job.outputs.values():
        if manifest.identity_of(output) in images:
            raise ManifestError(
                f'{manifest.folder}/{output}: the result of {job.input.name} would replace this file, which is '
                'one of the images to segment; write to another folder (-o)'
            )


def _decide(job: Job, manifest: Manifest, run: Run) -> None:
    error = job.input.refusal or obstacle(job, job.asked(run), manifest, run)
    if error:
        job.fail(error)
        return
    entry = manifest.entries.get(job.input.key)
    if entry is None or entry.get('writing') or run.overwrite or (run.retry_failed and entry['error'] is not None):
        return
    if _differs(entry, run) or not (entry['error'] or _complete(job, entry, manifest, run)):
        return
    version = _version(entry, job)
    if job.input.kind == 'store':
        listed = job.input.version or InputVersion()
        if version and {'etag', 'last_modified'} & set(listed):  # size alone does not tell contents apart
            if all(version.get(name) == value for name, value in listed.items()):
                job.pass_over(entry)
        else:
            job.known = version or None
    elif job.input.kind == 'url':
        job.known = version or None
    elif version == (job.input.version or {}) and (version or job.input.kind == 'data'):
        job.pass_over(entry)


def _version(entry: Entry, job: Job) -> InputVersion:
    return cast(InputVersion, {key: value for key, value in entry['input'].items() if key != job.input.kind})


def _differs(entry: Entry, run: Run) -> bool:
    return entry['model']['sha256'] != run.model['sha256'] or entry['options'] != run.options


def _complete(job: Job, entry: Entry, manifest: Manifest, run: Run) -> bool:
    """Whether all files that this run is asked for are there, each as large as it was written."""
    for output in job.asked(run):
        record = entry['outputs'].get(output)
        if record is None or manifest.size_of(output) != record['size']:
            return False
    return True


def obstacle(job: Job, outputs: Iterable[str], manifest: Manifest, run: Run) -> str | None:
    """Why files of an image cannot be written, whatever they will hold; None when they may be."""
    owned = manifest.owned(job.input.key)
    for output in outputs:
        longest = max(map(len, os.fsencode(output).split(b'/')))
        if longest > LONGEST_NAME:
            what_to_do = (
                'rename the image'
                if job.input.kind == 'path'
                else 'save the image to a file with a shorter name, and pass that'
            )
            return f'{job.input.name}: the name of its result has {longest} bytes, {LONGEST_NAME} at most; {what_to_do}'
        if manifest.longest and len(os.fsencode(output)) > manifest.longest:
            return (
                f'{job.input.name}: the name of its result has {len(os.fsencode(output))} bytes below '
                f'{manifest.folder}, where {manifest.longest} are left; write to a folder with a shorter name (-o)'
            )
        if manifest.longest and not is_text(output):
            return f'{job.input.name}: its name is not UTF-8, as names in stores are; rename the image'
        present, special = manifest.look(output)
        if special:
            return (
                f'{job.input.name}: {special} is a symbolic link, folder or device, which nothing is written to; '
                'move it away, or write to another folder (-o)'
            )
        if output not in owned and not run.overwrite and present:
            return f'{job.input.name}: {manifest.folder}/{output} is there already and {_NOT_OURS}'
    return None


def out_of_date(job: Job, version: InputVersion | None, manifest: Manifest, run: Run) -> dict[str, str]:
    """The files to make of an image, kind to path: those asked for, and what was saved before of what has changed."""
    entry = manifest.entries.get(job.input.key)
    version = version or {}
    same = (
        entry is not None
        and not entry.get('writing')
        and not _differs(entry, run)
        and all(_version(entry, job).get(key) == version.get(key) for key in _CONTENT)
    )
    return {kind: output for kind, output in job.outputs.items() if kind in run.save or not same}


@dataclass(frozen=True)
class Change:
    """What the files of an image become; `change` makes it.

    Attributes:
        files: those that do not hold it yet.
        outputs, before: the manifest's records of them, and of what they replace.
    """

    files: list[str]
    outputs: dict[str, Record]
    before: dict[str, Record]


def change(job: Job, manifest: Manifest, run: Run, files: dict[str, Record]) -> Change:
    """Compare what an image's files shall hold, by path, with what they do.

    Raises:
        AlteredError: one holds neither that nor what the manifest says: somebody has worked on it.
        OSError: one cannot be read.
    """
    entry = manifest.entries.get(job.input.key)
    outputs = dict(manifest.owned(job.input.key))
    before: dict[str, Record] = {}
    unequal: list[str] = []
    for output, record in files.items():
        outputs[output] = record
        try:
            equal = manifest.holds_one_of(output, [record])
        except OSError:  # not there, or its writing says what is wrong
            unequal.append(output)
            continue
        if equal:
            continue
        ours = records_in(entry, output) if entry else []
        known = next((one for one in ours if manifest.holds_one_of(output, [one])), None)
        if known is None and not run.overwrite:
            raise AlteredError(
                f'{job.input.name}: {manifest.folder}/{output} has been changed since it was written, and {_NOT_OURS}'
            )
        unequal.append(output)
        if known:
            before[output] = known
    return Change(unequal, outputs, before)
