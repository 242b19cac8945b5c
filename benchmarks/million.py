"""(o) What a million images cost beside the network: the plan, the manifest, and writing files; no image is segmented.

python -m benchmarks.million --items 1000000 --written 2000
"""

import resource
import tempfile
import time
from pathlib import Path

from .measure import parser, quiet, report

SIZES = {'labels': 8_000, 'overlay': 104_000, 'json': 20_000}  # bytes, as `per_core` finds them


def main():
    p = parser(__doc__.splitlines()[0], rounds=1)
    p.add_argument('--items', type=int, default=1_000_000, help='images in the manifest (default: %(default)s)')
    p.add_argument('--written', type=int, default=2000, help='images whose files are written (default: %(default)s)')
    p.add_argument('--folder', help='where to write; default: the temporary folder of the system')
    args = p.parse_args()
    quiet()
    from ms_segformer.cli.predict import _keep
    from ms_segformer.pipelines.to_files import Made
    from ms_segformer.results import Input, Manifest, ResultWriter, Run, make_plan
    from ms_segformer.results.manifest import record_of

    run = Run({'name': 'b0', 'sha256': '0' * 64}, {'mode': 'whole', 'precision': 'float32'}, tuple(SIZES))
    rows = [('what', 'images', 'seconds', 'images/s', 'memory, MiB')]
    start = peak()

    def timed(what, count, work):
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        rows.append((what, f'{count:,}', f'{seconds:.1f}', f'{count / seconds:,.0f}', f'{peak() - start:,}'))
        return result

    with tempfile.TemporaryDirectory(dir=args.folder) as folder, Manifest(Path(folder, 'written')) as manifest:
        contents = {kind: bytes(size) for kind, size in SIZES.items()}
        jobs = make_plan(inputs(Input, args.written), manifest, run)
        writer = ResultWriter(manifest.folder, ['a'])
        made = Made(contents)

        def write():
            for job in jobs:
                assert _keep(writer, manifest, run, job, None, made)

        timed('files of an image written, with the manifest', args.written, write)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        with Manifest(folder) as manifest:
            jobs = timed('planned', args.items, lambda: make_plan(inputs(Input, args.items), manifest, run))
            record = record_of(b'')

            def enter():
                for job in jobs:
                    manifest.append(job.entry(run, None, dict.fromkeys(job.outputs.values(), record)))

            timed('entered in the manifest', args.items, enter)
            timed('manifest put in order', args.items, lambda: manifest.compact(job.input.key for job in jobs))
            size = manifest.path.stat().st_size
        jobs.clear()
        manifest.entries.clear()

        def read():
            with Manifest(folder) as again:
                return make_plan(inputs(Input, args.items), again, run)

        timed('read by the next run, and planned', args.items, read)
    notes = (
        f'The manifest has {size / args.items:.0f} bytes an image. Memory is the most so far beyond that of the '
        f'imports. Written: {", ".join(f"{kind} of {size // 1000} kB" for kind, size in SIZES.items())}, each put on '
        'the disk before the next.'
    )
    report('A million images beside the network', rows, args, 'million', notes)


def inputs(Input, count):
    for number in range(count):
        url = f'https://photos.example/{number // 1000:04}/{number:07}.jpg'
        yield Input(url, 'url', url)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == '__main__':
    main()
