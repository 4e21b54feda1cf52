# kobox: `make demo` shows the main job, `make test` passes the tests; both set themselves up.
# Everything is built into .venv; nothing outside the checkout is touched but apt packages (as root) and the user's cache.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

.PHONY: demo test test-full bench lint fuzz man packages clean

demo: $(STAMP)
	$(BIN)/kobox run examples/prebuilt/hello.ko --image bare my_param=7

test: $(STAMP) packages
	$(BIN)/python -m pytest -n $(JOBS) -m "not full" $(PYTEST_ARGS)

test-full: $(STAMP) packages
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check src tests tools
	$(BIN)/ruff format --check src tests tools
	$(BIN)/mypy

bench: $(STAMP) packages
	$(BIN)/python -m tools.bench $(BENCH_ARGS)
	$(BIN)/python -m tools.bench_depot
	$(BIN)/python -m tools.bench_modprobe
	$(BIN)/python -m tools.bench_watch
	$(BIN)/python -m tools.bench_session
	$(BIN)/python -m tools.bench_devices

man: $(STAMP)
	$(BIN)/kobox man --dir build/man/man1

# Mutated modules through kobox's loader and the image's own; random modprobe.d and module trees through
# kobox and kmod.
FUZZ_COUNT ?= 2000
fuzz: $(STAMP) packages
	$(BIN)/python -m tools.fuzz_loader --count $(FUZZ_COUNT) $(wildcard examples/prebuilt/*.ko) $(FUZZ_ARGS)
	$(BIN)/python -m tools.fuzz_modprobe --cases $$(( $(FUZZ_COUNT) / 4 ))
	$(BIN)/python -m tools.compare_depmod --cases $$(( $(FUZZ_COUNT) / 4 ))

# As root, install what the tests use; otherwise name what is missing and go on: such tests skip, under CI=true they fail.
packages:
	@missing=$$(sed 's/#.*//' apt-packages.txt | while read -r name; do \
	    [ -z "$$name" ] || dpkg-query -W -f '$${Status}' "$$name" 2>/dev/null | grep -q 'ok installed' || echo "$$name"; done); \
	if [ -n "$$missing" ]; then \
	    if [ "$$(id -u)" = 0 ]; then \
	        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	    else \
	        echo "not installed, tests that need them will say so:" $$missing; \
	    fi; \
	fi

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
