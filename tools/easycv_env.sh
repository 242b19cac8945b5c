#!/usr/bin/env bash
# Builds an environment with the real EasyCV and runs tests/easycv/ in it: ours against theirs in one process.
#
#   tools/easycv_env.sh [pytest arguments]      default: tests/easycv
#
#   VENV=.venv-easycv     where the environment goes; kept and used again while requirements/easycv.txt is unchanged
#   PYTHON310=…           the Python 3.10 to build it with, when none is found
#   MMCV=full             compiles mmcv-full (about 15 minutes on two cores) instead of standing in for its operators
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv-easycv}
mmcv=${MMCV:-plain}
export PIP_DISABLE_PIP_VERSION_CHECK=1

python310() {
    local python
    for python in "${PYTHON310:-}" python3.10 python3 "$HOME"/.pyenv/versions/3.10.*/bin/python; do
        if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo 'error: no Python 3.10 found, which is the newest that the real EasyCV runs on: install one and name it, PYTHON310=…' >&2
    return 1
}

# EasyCV's import runs whatever `pip` stands first on the PATH when a package of its own is missing.
activate() {
    export PATH="$(cd "$venv" && pwd)/bin:$PATH"
}

build() {
    rm -rf "$venv"
    "$(python310)" -m venv "$venv"
    activate
    # Source distributions of this age (mmcv among them) need setuptools with pkg_resources, and no newer one beside it.
    pip install --quiet --no-cache-dir setuptools==69.5.1 wheel==0.43.0
    if [ "$mmcv" = full ]; then
        sed 's/^mmcv==/mmcv-full==/' requirements/easycv.txt > "$venv/requirements.txt"
        export MMCV_WITH_OPS=1 FORCE_CUDA=0
        # mmcv-full's build imports torch, which therefore comes first.
        sed '/^mmcv-full==/d' "$venv/requirements.txt" > "$venv/before-mmcv.txt"
        pip install --quiet --no-cache-dir --no-deps --no-build-isolation -r "$venv/before-mmcv.txt"
    else
        cp requirements/easycv.txt "$venv/requirements.txt"
    fi
    pip install --quiet --no-cache-dir --no-deps --no-build-isolation -r "$venv/requirements.txt"
    if [ "$mmcv" != full ]; then
        stand_in_for_mmcv_operators
    fi
    pip install --quiet --no-deps --no-build-isolation --editable .
    stamp > "$venv/built-from"
}

stand_in_for_mmcv_operators() {
    cat > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mmcv/_ext.py" <<'PYTHON'
"""Stands in for mmcv's compiled operators: importing them succeeds, calling one says that it is missing."""


def __getattr__(name):
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(f'the mmcv operator {name!r} is not compiled here: build again with MMCV=full')

    return missing
PYTHON
}

stamp() {
    echo "$mmcv $(sha256sum < requirements/easycv.txt)"
}

started=$SECONDS
if [ "$(cat "$venv/built-from" 2>/dev/null)" = "$(stamp)" ]; then
    activate
    echo "environment: $venv, as built before"
else
    build
    echo "environment: $venv built in $((SECONDS - started)) s, $(du -sm "$venv" | cut -f1) MB"
fi
# With AVX-512 the oneDNN of this torch computes a training step of EasyCV's own network up to 3e-3 off the one in float64
# on some processors (ours: 1e-5); with AVX2 both are right.
export ONEDNN_MAX_CPU_ISA=AVX2
python -m pytest "${@:-tests/easycv}"
