#!/bin/sh
# Tests and benchmarks on a GPU, on a machine without a network: needs a Python whose torch can use CUDA, and a folder of
# wheels that `tools/gpu.sh wheels` has filled on a machine with one.
#
#   tools/gpu.sh wheels [DIR]      download what is needed besides torch, for this machine's Python and system
#   tools/gpu.sh run [DIR] [FILE]  install from DIR (default: wheels), test, measure; the report goes to FILE
#
# PYTHON names the Python; VENV the environment that is made (default: .venv-gpu), which uses its torch.
set -eu
began=$(date +%s)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv-gpu}
wheels=${2:-wheels}
case ${1:-run} in
wheels)
    mkdir -p "$wheels"
    # torch and what belongs to its CUDA are the machine's own
    $python -m pip download --disable-pip-version-check -q -d "$wheels" -c constraints.txt -r tools/gpu_requirements.txt
    rm -f "$wheels"/torch-* "$wheels"/nvidia_* "$wheels"/triton-*
    ;;
run)
    report=${3:-benchmarks/RESULTS_GPU.md}
    $python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU")'
    test -x "$venv/bin/python" || $python -m venv "$venv"
    # its torch, and what lies beside it, are found there, whether it is the system's or another environment's
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    $python -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch_of_this_machine.pth"
    "$venv/bin/python" -m pip install --disable-pip-version-check -q --no-index --find-links "$wheels" \
        -r tools/gpu_requirements.txt
    # the C kernel, which without a compiler torch stands in for
    "$venv/bin/python" setup.py -q build_ext --inplace
    # ten minutes for all of it, with ten seconds to spare
    "$venv/bin/python" -m benchmarks.gpu --output "$report" --seconds $((590 - $(date +%s) + began))
    ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
