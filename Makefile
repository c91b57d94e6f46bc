# The product's front door: `make app` runs it, `make test` proves it.
# Both set up their own environment first; nothing outside $(VENV) is touched.

PYTHON ?= python3
VENV ?= .venv
BENCH ?= .bench-venv
ARGS ?=
PROCESSES ?= 3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: app test lint bench campaign tiny clean

app: $(VENV)/.app-ready
	$(BIN)/python app.py $(ARGS)

# Whole files are shared out among processes: one more than two cores, as browsers and servers are waited for.
test: $(VENV)/.test-ready
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .

campaign: $(VENV)/.test-ready
	$(BIN)/python -m tests.campaign $(ARGS)

bench: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks $(ARGS)

tiny: $(VENV)/.test-ready
	$(BIN)/python scripts/train_tiny.py $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH)

$(VENV)/.app-ready: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 10) else "Depthmap needs Python 3.10 or newer, this is %d.%d. Say: make PYTHON=/path/to/python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	@touch $@

# The page is tested in a real browser: the system's Chromium or Chrome if there is one, else playwright's own,
# else (as root, where only Debian's packages can be reached) Debian's. Without any, the tests of the page fail and say so.
$(VENV)/.test-ready: $(VENV)/.app-ready requirements-test.txt requirements-train.txt requirements-ray.txt
	$(PIP) -r requirements.txt -r requirements-test.txt
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
		|| $(BIN)/python -m playwright install chromium \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
		|| echo "No browser could be installed: the tests of the page will fail."
	@touch $@

# The peers live in an environment that borrows the app's packages, so that the pinned torch stays as it is.
$(BENCH)/.ready: $(VENV)/.app-ready requirements-bench.txt
	$(PYTHON) -m venv $(BENCH)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
		> "$$($(BENCH)/bin/python -c 'import site; print(site.getsitepackages()[0])')/app.pth"
	$(BENCH)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt -r requirements-bench.txt
	@touch $@
