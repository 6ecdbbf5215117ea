# make PYTHON=python3.12 ... works in a virtual environment of its own, beside the default one.
PYTHON ?= python3
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

PYX := $(shell find ext -name '*.pyx')
SOURCES := setup.py $(PYX) $(shell find ext cdna -name '*.pxd' -o -name '*.h')
FLAGS := $(strip $(CDNA_CFLAGS) $(if $(filter 1,$(CDNA_COVERAGE)),coverage))
export CDNA_CFLAGS CDNA_COVERAGE

# $(call install,KEYS): what pyproject.toml requires, which is written down there alone.
# No .pyc files in advance: most modules of the dependencies are never imported.
install = list=$$($(PY) -c 'import tomllib; t = tomllib.load(open("pyproject.toml", "rb")); \
	print(*$(1), sep="\n")') && echo "$$list" | $(PIP) install -qq --no-compile -r /dev/stdin

# Programs that tests, benchmarks and the tutorial start; a test without its program is skipped by name.
PEERS := curl ethtool iperf3 iproute2 iputils-ping tshark
# Those of the tests with virtual machines and DPDK; the kernel is for guests, and brings no boot loader.
VM_PEERS := busybox-static dpdk dpdk-dev linux-image-cloud-amd64 qemu-system-x86
APT_GET := DEBIAN_FRONTEND=noninteractive apt-get

.PHONY: help run build test bench lint peers man wheel clean
.NOTPARALLEL:

help:  ## list these verbs
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' Makefile | expand -t 8

run: build  ## set up, build and run the comparison
	$(VENV)/bin/cdna compare --report report

build: $(VENV)/.built $(VENV)/.installed  ## compile what has changed, into the source tree

test: build $(VENV)/.test  ## run the tests; the summary says what was skipped and why
	$(PY) -m pytest

bench: build $(VENV)/.test  ## run the unit benchmarks
	$(PY) -m pytest benchmarks --benchmark-only

lint: build $(VENV)/.lint  ## check style, types, stubs and spelling
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint ext cdna
	$(PY) -m mypy
	$(PY) -m mypy.stubtest --concise --mypy-config-file pyproject.toml --ignore-disjoint-bases \
		--allowlist tests/stubtest_allowlist.txt --ignore-unused-allowlist \
		$(subst /,.,$(PYX:ext/%.pyx=cdna/%))
	$(VENV)/bin/codespell

peers:  ## install the programs that tests start, from Debian's packages; needs root
	@dpkg -s $(PEERS) $(VM_PEERS) >/dev/null 2>&1 || { $(APT_GET) update -qq && \
		for peers in "$(PEERS)" "$(VM_PEERS)"; do \
			$(APT_GET) install -y -qq --no-install-recommends $$peers >/dev/null || exit; done; }

man: build  ## write the man pages anew, after a change of the command line
	$(PY) man/make.py

wheel: $(VENV)/.ready  ## build a wheel in dist/
	rm -rf build/lib.* build/bdist.*
	$(PIP) wheel -q --no-build-isolation --no-deps -w dist .

clean:  ## remove what was built; the virtual environment stays
	rm -rf build dist cdna.egg-info .mypy_cache .pytest_cache .ruff_cache $(VENV)/.built
	find $(wildcard cdna ext tests benchmarks) \( -name '*.so' -o -path 'ext/*.c' -o -name '*.pyc' \) -delete

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing what pyproject.toml requires"; $(call install,t["build-system"]["requires"] + t["project"]["dependencies"])
	@touch $@

$(VENV)/.built: $(VENV)/.ready $(SOURCES)
	$(PY) setup.py -q build_ext --inplace
	@echo '$(FLAGS)' > $@
ifneq ($(shell cat $(VENV)/.built 2>/dev/null),$(FLAGS))
.PHONY: $(VENV)/.built
endif

# Finds everything compiled: it adds the tree to the path, and the command cdna.
$(VENV)/.installed: $(VENV)/.ready | $(VENV)/.built
	$(PIP) install -qq --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.test $(VENV)/.lint: $(VENV)/.%: $(VENV)/.ready
	@echo "installing the $* tools"; $(call install,t["project"]["optional-dependencies"]["$*"])
	@touch $@
