# make run    set-up and the main job: binary MNIST on the embedded data
# make test   the same set-up, then all tests
# make check  the linters and the quick tests, within a minute
# make lint   the linter and the formatter's check
# make bench  speed and memory, as ratios measured in one run
# make lock   renews requirements.lock: the newest versions that requirements-dev.txt allows

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check lint bench lock

run: $(VENV)/ready
	$(BIN)/python binary_mnist_pathnet.py --control=scratch,pathnet --runs=3

test: $(VENV)/ready
	$(BIN)/python -m pytest

check: lint
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/ready
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/atari_speed.py

# The stamp is made last, so that an interrupted set-up is taken up again.
$(VENV)/ready: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

lock:
	rm -rf $(VENV)/lock
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	( echo "# Exact versions, which make installs; \`make lock\` renews them from requirements-dev.txt."; \
	  $(VENV)/lock/bin/python -m pip freeze ) > $(VENV)/lock/requirements.lock
	mv $(VENV)/lock/requirements.lock .
	rm -rf $(VENV)/lock
