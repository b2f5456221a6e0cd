# Needs git, make and Python 3.11 to 3.13 with its venv module; everything else is installed into .venv here.
#   make demo      the main job, small, on pictures drawn by code     make test      the tests
#   make lint      ruff and mypy                                      make test-all  the slow ones too
#   make lock      resolve pyproject.toml anew into .ci/requirements.txt
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

.PHONY: demo test test-all lint lock
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/stillreel demo

test: .venv/installed
	$(PYTEST) -m "not slow"

test-all: .venv/installed
	$(PYTEST)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: .venv/installed
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-package stillreel \
		--custom-compile-command "make lock" --output-file .ci/requirements.txt --upgrade pyproject.toml

.venv/installed: pyproject.toml .ci/requirements.txt
	@test -n "$(PYTHON)" || { echo "stillreel needs Python 3.11, 3.12 or 3.13, and none is on the PATH:" \
		"install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c "import ensurepip, venv" 2>/dev/null || { echo "$(PYTHON) has no venv module:" \
		"on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	@# uv reads no pip.conf; pip does, so pip fetches uv, and uv, where it can, the rest in parallel.
	$(BIN)/python -m pip install --quiet "uv>=0.5"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement .ci/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
