#!/usr/bin/env bash
# Builds the C kernel with AddressSanitizer and UBSan, in a temporary copy, and runs its tests and its fuzz: any read or
# write outside an array, any undefined behaviour ends the run. Needs gcc and a Python with what the tests need.
#
#   tools/sanitize.sh [python]
#
#   FUZZ_SECONDS=60       how long campaigns/kernel_fuzz.py runs
#   FUZZ_SEED=0           its seed
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${1:-python3}")
case $python in /*) ;; *) python=$PWD/$python ;; esac

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/project"
[ -d ../shared ] && ln -s "$(cd ../shared && pwd)" "$copy/shared"
cp -r ms_segformer configuration tests campaigns setup.py setup.cfg pyproject.toml README.md LICENSE "$copy/project"
cd "$copy/project"
rm -f ms_segformer/postprocess/_segment.*.so

checks='-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined'
CC=gcc CFLAGS=$checks LDFLAGS=$checks "$python" setup.py --quiet build_ext --inplace
nm -D ms_segformer/postprocess/_segment.*.so | grep -q __asan_report || { echo 'error: the kernel was not built with AddressSanitizer' >&2; exit 1; }

export LD_PRELOAD=$(gcc -print-file-name=libasan.so) PYTHONPATH=$PWD OMP_NUM_THREADS=1 PYTHONMALLOC=malloc
# Python itself never frees all it holds.
export ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1
# What the sanitizers say goes to file descriptor 2, which pytest would keep to itself.
"$python" -m pytest -q -p no:cacheprovider --capture=sys tests/postprocess/test_segmentation.py tests/postprocess/test_sliding_window.py
"$python" -m campaigns.kernel_fuzz --seed "${FUZZ_SEED:-0}" --seconds "${FUZZ_SECONDS:-60}"
