"""Random logits through every kernel on this machine, against the plain torch form: two interpolations and argmax.

    python campaigns/kernel_fuzz.py --seed 1 --seconds 600
    make sanitize FUZZ_SECONDS=600        # the same under AddressSanitizer and UBSan

Sides of 1 to 300 samples, 1 to 256 classes, any memory layout (with NaN between the classes), both conventions of
corners, ordinary and special values (NaN, ±inf, ±1e31, -1e30, 3.4e38, denormals, -0.0), sparse maps of odd weights and
wrong ones. A case is 'equal' when every kernel gives the best class but for ties, its counts, and scores in (0, 1];
'clear error' when every kernel refuses it for the right reason. Exit code 1 when there is anything else.
"""
import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 300  # that a case may take


def work(seed: int, first: int, end: float) -> None:
    """Run cases from a number on until a time; a line of JSON before and after each."""
    import signal
    sys.path.insert(0, str(ROOT / 'tests'))
    from kernel_cases import judge, kernels, make_case

    from ms_segformer import postprocess
    compiled = postprocess._segment

    def use(name: str) -> None:
        postprocess._segment = None if name == 'torch' else compiled
        if name != 'torch':
            compiled.use(name)

    number, names = first, kernels()
    print(json.dumps({'kernels': names}), flush=True)
    while time.time() < end:
        signal.alarm(SECONDS)  # ends the process
        case = make_case(seed, number, budget=25_000_000 if number % 50 == 0 else 1_500_000)
        print(json.dumps({'number': number, 'kind': case.kind, 'case': str(case)}), flush=True)
        print(json.dumps({'outcome': judge(case, use, names), 'excused': case.excused, 'pixels': case.pixels}),
              flush=True)
        number += 1


def campaign(seed: int, cases: int, seconds: float, first: int = 0) -> tuple[Counter, Counter, list[str]]:
    """Run cases in processes of their own, a new one after each that dies.

    Returns:
        Cases by (kind, outcome), pixels by 'pixels' and 'excused', and the kernels that ran.
    """
    outcomes, pixels, names, number, end = Counter(), Counter(), [], first, time.time() + seconds
    while number < first + cases and time.time() < end:
        process = subprocess.Popen([sys.executable, __file__, '--work', str(seed), str(number), str(end)],
                                   stdout=subprocess.PIPE, text=True)
        case, stopped = None, False
        for line in process.stdout:
            found = json.loads(line)
            names = found.get('kernels', names)
            if 'case' in found:
                case, number = found, found['number'] + 1
            elif 'outcome' in found:
                outcomes[case['kind'], _counted(case, found['outcome'])] += 1
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
            outcomes[case['kind'], _counted(case, f'the process ended with {process.returncode}')] += 1
    return outcomes, pixels, names


def _counted(case: dict, outcome: str) -> str:
    """'equal', 'clear error' or 'anything else', which is printed."""
    if outcome in ('equal', 'clear error'):
        return outcome
    print(f'case {case["number"]}, {case["case"]}\n    {outcome}', flush=True)
    return 'anything else'


def table(outcomes: Counter) -> str:
    """Rows by kind of case, in Markdown."""
    columns = 'equal', 'clear error', 'anything else'
    rows = [['kind', 'tried', *columns], ['-'] * 5]
    for kind in sorted({kind for kind, _ in outcomes}):
        counts = [outcomes[kind, column] for column in columns]
        rows.append([kind, sum(counts), *counts])
    counts = [sum(outcomes[key] for key in outcomes if key[1] == column) for column in columns]
    rows.append(['all', sum(counts), *counts])
    return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cases', type=int, default=10 ** 9)
    parser.add_argument('--seconds', type=float, default=600, help='no new case after this time')
    parser.add_argument('--first', type=int, default=0, help='number of the first case, to see one again')
    parser.add_argument('--work', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(int(args.work[0]), int(args.work[1]), float(args.work[2]))
        return 0
    outcomes, pixels, names = campaign(args.seed, args.cases, args.seconds, args.first)
    print(f'{table(outcomes)}\n\nSeed {args.seed}, kernels {", ".join(names)}; of {pixels["pixels"]} pixels '
          f'{pixels["excused"]} ({pixels["excused"] / max(1, pixels["pixels"]):.2%}) have another class than the plain '
          'form in float64, which is as good within rounding.')
    return 1 if any(outcome == 'anything else' for _, outcome in outcomes) else 0


if __name__ == '__main__':
    sys.exit(main())
