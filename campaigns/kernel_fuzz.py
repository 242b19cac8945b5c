"""Random logits through every kernel on this machine, against the plain torch form: two interpolations and argmax.

    python -m campaigns.kernel_fuzz --seed 1 --seconds 600
    make sanitize FUZZ_SECONDS=600        # the same under AddressSanitizer and UBSan

Sides of 1 to 300 samples, 1 to 256 classes, any memory layout (with NaN between the classes), both conventions of
corners, ordinary and special values (NaN, ±inf, ±1e31, -1e30, 3.4e38, denormals, -0.0), sparse maps of odd weights and
wrong ones. A case is a result when every kernel gives the best class but for ties, its counts, and scores in (0, 1];
a clear error when every kernel refuses it for the right reason. Exit code 1 when there is anything else.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter

from campaigns.frame import ROOT, Tally, arguments, finish

SECONDS = 300  # that a case may take


def work(seed: int, first: int, end: float) -> None:
    """Run cases from a number on until a time; a line of JSON before and after each."""
    import signal

    from kernel_cases import judge, make_case

    from ms_segformer.postprocess.kernel import KERNELS, use

    number, names = first, KERNELS
    print(json.dumps({'kernels': names}), flush=True)
    while number == first or time.time() < end:
        signal.alarm(SECONDS)  # ends the process
        case = make_case(seed, number, budget=25_000_000 if number % 50 == 0 else 1_500_000)
        print(json.dumps({'number': number, 'kind': case.kind, 'case': str(case)}), flush=True)
        print(
            json.dumps({'outcome': judge(case, use, names), 'excused': case.excused, 'pixels': case.pixels}), flush=True
        )
        number += 1


def campaign(seed: int, cases: int, seconds: float, first: int = 0) -> tuple[Tally, Counter, list[str]]:
    """Run cases in processes of their own, a new one after each that dies.

    Returns:
        What came out, pixels by 'pixels' and 'excused', and the kernels that ran.
    """
    tally, pixels, names, number, end = Tally(), Counter(), [], first, time.time() + seconds
    while number < first + cases and time.time() < end:
        process = subprocess.Popen(
            [sys.executable, '-m', 'campaigns.kernel_fuzz', '--work', str(seed), str(number), str(end)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        case, stopped = None, False
        for line in process.stdout:
            found = json.loads(line)
            names = found.get('kernels', names)
            if 'case' in found:
                case, number = found, found['number'] + 1
            elif 'outcome' in found:
                _count(tally, case, found['outcome'])
                pixels.update({key: found[key] for key in ('pixels', 'excused')})
                case = None
                if number >= first + cases:
                    process.terminate()
                    stopped = True
                    break
        process.stdout.close()
        if process.wait() and not stopped:
            if case is None:
                raise RuntimeError(f'no case could be made after number {number}; the reason stands above')
            _count(tally, case, f'the process ended with {process.returncode}')
    return tally, pixels, names


def _count(tally: Tally, case: dict, outcome: str) -> None:
    known = {'equal': 'results', 'clear error': 'clear errors'}
    tally.add(case['kind'], known.get(outcome, 'anything else'))
    if outcome not in known:
        print(f'case {case["number"]}, {case["case"]}\n    {outcome}', flush=True)


def main() -> int:
    parser = arguments(__doc__, cases=10**9)
    parser.set_defaults(seconds=600.0)
    parser.add_argument('--work', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(int(args.work[0]), int(args.work[1]), float(args.work[2]))
        return 0
    started = time.monotonic()
    tally, pixels, names = campaign(args.seed, args.cases, args.seconds, args.first)
    code = finish('kernel', tally, args, time.monotonic() - started)
    print(
        f'\nKernels {", ".join(names)}; of {pixels["pixels"]} pixels {pixels["excused"]} '
        f'({pixels["excused"] / max(1, pixels["pixels"]):.2%}) have another class than the plain form in float64, '
        'which is as good within rounding.'
    )
    return code


if __name__ == '__main__':
    sys.exit(main())
