# Needs git, make and Python 3.11 to 3.13 with its venv module; everything else is installed into .venv here.
#   make demo      the main job, small, on pictures drawn by code     make test      the tests
#   make quick     the pure tests, in a minute; of one room: make quick ROOM=shards
#   make lint      ruff and mypy                                      make test-all  the slow ones too
#   make lock      resolve pyproject.toml anew into .ci/requirements.txt, with hashes that an install is held to
#   make docs      the pages of docs/ as a site, in site/
#   make test-cluster  a build on three namespaced hosts, killed at random and ill; SEEDS=2: two seeds, not ten
#   make fuzz      damage every kind of file that is read, for ten minutes, and count what its readers do
#   make gpu-day   print the commands of a GPU day; they need nothing of make's, there or here
#   make test JOBS=4 on more cores; whatever their number, some tests measure time and memory, and want room

# The newest Python that the locked wheels exist for; `make PYTHON=/path/to/python` overrules.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$python; break; }; done)
BIN := .venv/bin
# Half of a test's time is waiting for processes that it starts. A file's tests share what it builds, so they stay together.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --durations 15

# Without its bytecode cache every process of a run would compile everything anew.
export PYTHONDONTWRITEBYTECODE :=
export NO_ALBUMENTATIONS_UPDATE := 1

SECONDS_OF_FUZZ ?= 600
SEED ?= 0

# Files whose tests start no process and take seconds.
QUICK = $(filter tests/$(ROOM)%,$(shell cat tests/quick.txt))

.PHONY: demo quick test test-all test-cluster fuzz lint docs lock gpu-day
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/stillreel demo

quick: .venv/installed
	$(PYTEST) -m "not slow and not long" $(QUICK)

test: .venv/installed
	$(PYTEST) -m "not slow"

test-all: .venv/installed
	$(PYTEST) -m "not cluster"

test-cluster: .venv/installed
	$(BIN)/python -m pytest --numprocesses 0 --durations 0 tests/cluster

# What is found is printed by its target and number, which make the same bytes again: python -m tests.fuzz target=TARGET seed=...
fuzz: .venv/installed
	$(BIN)/python -m tests.fuzz seconds=$(SECONDS_OF_FUZZ) seed=$(SEED) workers=$(JOBS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/mkdocs build --strict --quiet --site-dir site

lock: .venv/installed
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-package stillreel --generate-hashes \
		--custom-compile-command "make lock" --output-file .ci/requirements.txt --upgrade pyproject.toml

# What benchmarks.gpu_pretrain needs beside torch and torchvision, numba, OpenCV 4, numpy, pyarrow, PyYAML, fsspec, and tqdm,
# regex and safetensors: 5.6 MB. With the names of every platform tag that these wheels have, for pip matches each exactly.
GPU_PACKAGES := open-clip-torch ftfy wcwidth simplejpeg pydantic pydantic-core annotated-types typing-inspection
GPU_PINS = $(foreach name,$(GPU_PACKAGES),$(shell grep -o "^$(name)==[^ ;]*" .ci/requirements.txt))
GPU_TAGS := $(foreach tag,_2_28 _2_27 _2_17 2014 1,--platform manylinux$(tag)_x86_64)

gpu-day:
	@echo '# Here, in the repository, where there is a network: 5.6 MB of wheels for Python 3.12 on x86-64.'
	@echo 'python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp $(GPU_TAGS) --dest .wheels $(GPU_PINS)'
	@echo '# There, in a copy of the repository with .wheels; OUT is where results are taken from. First B/32, then in a call of its own B/16.'
	@echo 'python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .wheels/*.whl && export PYTHONPATH=/tmp/site'
	@echo 'python3 -m benchmarks.gpu_pretrain size=b32 seconds=380 out="$${OUT:-gpu-day}/b32"'
	@echo 'python3 -m benchmarks.gpu_pretrain size=b16 seconds=220 phases=race,stream,profile out="$${OUT:-gpu-day}/b16"'

.venv/installed: pyproject.toml .ci/requirements.txt
	@test -n "$(PYTHON)" || { echo "stillreel needs Python 3.11, 3.12 or 3.13, and none is on the PATH:" \
		"install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c "import ensurepip, venv" 2>/dev/null || { echo "$(PYTHON) has no venv module:" \
		"on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	@# uv reads no pip.conf; pip does, so pip fetches uv, and uv, where it can, the rest in parallel.
	@sed -n '/^uv==/,/# via/p' .ci/requirements.txt >.venv/uv.txt
	$(BIN)/python -m pip install --quiet --require-hashes --requirement .venv/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement .ci/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
