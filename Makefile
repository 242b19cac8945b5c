# `make demo` and `make test` do all of their own set-up in .venv; Python 3.10 or later, pip and make are all they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= outputs
IMAGE ?= assets/china.jpg
MODEL ?= demo
CAMPAIGN_SECONDS ?= 600
CAMPAIGN_SEED ?= 1

.PHONY: demo test test-low test-new easycv interop gpu studio modelscope-server sanitize campaign docs lint clean

demo: $(VENV)/.ready
	$(BIN)/ms-segformer predict $(IMAGE) --model $(MODEL) -o $(OUT) --overwrite

test: $(VENV)/.ready-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 \
		$(PYTEST_ARGS)

# The model cards with the oldest ModelScope that is supported, in an environment of its own. Its extras pin a setuptools
# that no recent torch goes with, so what they ask for is named here.
test-low: $(VENV)/.ready-test
	test -x .venv-low/bin/python || $(PYTHON) -m venv .venv-low
	.venv-low/bin/python -m pip install --disable-pip-version-check -q torch==2.13.0 modelscope==1.18.1 \
		addict attrs 'datasets<3' einops 'setuptools<81' oss2 Pillow python-dateutil scipy simplejson sortedcontainers \
		opencv-python safetensors pycocotools
	MS_SEGFORMER_OTHER_PYTHON=$(CURDIR)/.venv-low/bin/python $(BIN)/python -m pytest tests/cards/test_other_modelscope.py

# The model cards with the newest ModelScope that the registry has, and the newest of what it asks for; the constraints
# hold them back elsewhere. Run again, it takes what has come out since.
test-new: $(VENV)/.ready-test
	test -x .venv-new/bin/python || $(PYTHON) -m venv .venv-new
	.venv-new/bin/python -m pip install --disable-pip-version-check -q -U --upgrade-strategy eager torch==2.13.0 \
		modelscope -e '.[train]'
	.venv-new/bin/python -c 'from importlib.metadata import version; print("ModelScope", version("modelscope"))'
	MS_SEGFORMER_OTHER_PYTHON=$(CURDIR)/.venv-new/bin/python $(BIN)/python -m pytest tests/cards/test_other_modelscope.py

# Ours against the real EasyCV in one process, in an environment of its own (Python 3.10); MMCV=full compiles mmcv-full.
easycv:
	tools/easycv_env.sh $(PYTEST_ARGS)

# The files of `predict --format`, read by other projects' own readers in an environment of theirs. panopticapi is not on
# PyPI: its test is skipped unless you install it into .venv-interop from its repository, cocodataset/panopticapi.
interop: $(VENV)/.ready-test
	test -x .venv-interop/bin/python || $(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install --disable-pip-version-check -q pycocotools supervision label-studio-sdk \
		labelme datumaro
	MS_SEGFORMER_INTEROP_PYTHON=$(CURDIR)/.venv-interop/bin/python $(BIN)/python -m pytest tests/interop

# Tests and benchmarks on a GPU, with the torch of $(PYTHON) and wheels from a folder; the report goes to
# benchmarks/RESULTS_GPU.md. `tools/gpu.sh wheels` fills the folder.
WHEELS ?= wheels
gpu:
	PYTHON=$(PYTHON) tools/gpu.sh run $(WHEELS)

# app.py with Gradio, which asks for an older Pillow than the other tests run with, in an environment of its own.
studio:
	test -x .venv-studio/bin/python || $(PYTHON) -m venv .venv-studio
	.venv-studio/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt -r requirements.txt pytest
	.venv-studio/bin/python -m pytest tests/test_app.py

# ModelScope's own server, which asks for a Starlette before 1.0, in an environment of its own.
modelscope-server:
	test -x .venv-server/bin/python || $(PYTHON) -m venv .venv-server
	.venv-server/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[openvino]' \
		'modelscope[server]' 'starlette<1' httpx pytest
	.venv-server/bin/python -m pytest tests/integrations/modelscope/test_server.py

# The C kernel's tests and fuzz under AddressSanitizer and UBSan (gcc).
sanitize: $(VENV)/.ready-test
	tools/sanitize.sh $(BIN)/python

# Thousands of damaged files, kills, full disks and crowds, each in bounds: ten minutes, a table at the end (Linux).
campaign: $(VENV)/.ready-test
	OMP_NUM_THREADS=1 $(BIN)/python -m campaigns --seed $(CAMPAIGN_SEED) --seconds $(CAMPAIGN_SECONDS)

# README's guides and the API reference as HTML, in English and Chinese; a warning is an error.
docs: $(VENV)/.ready-docs
	$(BIN)/python -m sphinx -W --keep-going -q -c docs docs/en build/docs/en
	$(BIN)/python -m sphinx -W --keep-going -q -c docs -D language=zh_CN docs/zh build/docs/zh

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

$(VENV)/.ready: setup.cfg setup.py pyproject.toml constraints.txt ms_segformer/postprocess/_segment.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo 'ms-segformer needs Python 3.10 or later; name one: make demo PYTHON=python3.11'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[test,dev]'
	touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info $(OUT)
