# make PYTHON=python3.12 ... works in a virtual environment of its own, beside the default one.
PYTHON ?= python3
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

PYX := $(shell find ext -name '*.pyx')
SOURCES := setup.py $(PYX) $(shell find fuzz tests benchmarks -name '*.py[x]') $(shell find ext fuzz -name '*.pxd' -o -name '*.h')
FLAGS := $(strip $(CDNA_CFLAGS) $(if $(filter 1,$(CDNA_COVERAGE)),coverage))
export CDNA_CFLAGS CDNA_COVERAGE
# The programs that tests start, hundreds of them, would otherwise compile all that they import, each anew.
export PYTHONDONTWRITEBYTECODE :=

# $(call install,KEYS): what pyproject.toml requires, which is written down there alone.
# No .pyc files in advance: most modules of the dependencies are never imported.
install = list=$$($(PY) -c 'import tomllib; t = tomllib.load(open("pyproject.toml", "rb")); \
	print(*$(1), sep="\n")') && echo "$$list" | $(PIP) install -qq --no-compile -r /dev/stdin

# Programs that tests, benchmarks and the tutorial start; a test without its program is skipped by name.
PEERS := curl ethtool iperf3 iproute2 iputils-ping libseccomp2 spin strace tshark
# Those of the coverage-guided fuzzers.
FUZZ_PEERS := clang-14 libclang-rt-14-dev
# Those of the tests with virtual machines and DPDK; the kernel is for guests, and brings no boot loader.
VM_PEERS := busybox-static dpdk dpdk-dev linux-image-cloud-amd64 qemu-system-x86 user-mode-linux
APT_GET := DEBIAN_FRONTEND=noninteractive apt-get

.PHONY: help run build test checks model fuzz coverage soak kills bench lint peers man wheel clean
.NOTPARALLEL:

help:  ## list these verbs
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' Makefile | expand -t 10

run: build  ## set up, build and run the comparison
	$(VENV)/bin/cdna compare --report report

build: $(VENV)/.built $(VENV)/.installed $(VENV)/share/man/man1/cdna.1  ## compile what has changed, into the source tree

# Most tests wait for programs that they start: side by side they take half the time.
SIDE_BY_SIDE := -n auto --maxprocesses=4 -p no:benchmark
# The tests of a file share what it has set up.
BY_FILE := --dist=loadfile --no-loadscope-reorder

test: build $(VENV)/.test  ## run the tests; the summaries say what was skipped and why
	$(PY) -m pytest $(SIDE_BY_SIDE) $(BY_FILE) -m "not alone"; side_by_side=$$?; $(PY) -m pytest -m alone && exit $$side_by_side

checks: build $(VENV)/.test  ## build with checks that can be switched off; each has to be missed by a test
	CDNA_VARIANT=checks $(PY) setup.py -q build --build-lib build/checks/lib
	CDNA_VARIANT=checks PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build/checks/lib" $(PY) -m pytest \
		-o pythonpath="build/checks/lib ." $(SIDE_BY_SIDE) $(BY_FILE) tests/checks

# MODEL="-DSLOTS1=4" make model: the second ring as long as the first, which takes much longer.
model:  ## search all states of the protection protocol; needs spin (docs/model.md)
	@mkdir -p build/model
	@cd build/model && for model in protection iommu; do \
		spin -a $(MODEL) $(CURDIR)/models/$$model.pml && gcc -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM=16000 -o pan pan.c && \
		./pan -m20000000 -w26 | tee $$model.txt | grep -E "errors:|assertion violated .*depth|states, stored|elapsed" && \
		grep -q "errors: 0" $$model.txt && ! grep -q "too small\|not completed" $$model.txt || exit; done

# DESCRIPTORS=1e9: the hostile guests go on for so many; SECONDS=3600: each fuzzer goes on for so long.
fuzz: build $(VENV)/.test $(VENV)/.fuzz  ## hostile guests, coverage-guided fuzzers, coverage; SECONDS (60) each (docs/fuzz.md)
	$(VENV)/bin/cdna fuzz --seconds $(if $(DESCRIPTORS),86400 --descriptors $(DESCRIPTORS),$(or $(SECONDS),60))
	$(PY) fuzz/run.py --seconds $(or $(SECONDS),60)
	$(MAKE) --no-print-directory coverage

coverage: build $(VENV)/.test  ## lines and branches of the data path that the fuzzers' inputs and the tests reach
	CDNA_VARIANT=coverage $(PY) setup.py -q build --build-lib build/coverage/lib
	$(PY) fuzz/coverage.py $(if $(MISSING),--missing)

HOURS ?= 2
soak: build $(VENV)/.test  ## mixed traffic and attackers for HOURS (2) or for given SECONDS; writes soak/ (docs/soak.md)
	$(PY) benchmarks/soak.py --seconds $(or $(SECONDS),$(shell expr $(HOURS) \* 3600)) --report soak --json soak.json

kills: build $(VENV)/.test  ## kill -9 every party at every step, in compiled code too (docs/kills.md)
	$(PY) benchmarks/kills.py
	CDNA_VARIANT=checks $(PY) setup.py -q build --build-lib build/checks/lib
	PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build/checks/lib" $(PY) benchmarks/kills.py

bench: build $(VENV)/.test  ## run the unit benchmarks
	$(PY) -m pytest benchmarks --benchmark-only

lint: build $(VENV)/.lint  ## check style, types, stubs and spelling
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint ext fuzz tests benchmarks
	$(PY) -m mypy
	$(PY) -m mypy.stubtest --concise --mypy-config-file pyproject.toml --ignore-disjoint-bases \
		--allowlist tests/stubtest_allowlist.txt --ignore-unused-allowlist \
		$(subst /,.,$(PYX:ext/%.pyx=%))
	$(VENV)/bin/codespell

peers:  ## install the programs that tests start, from Debian's packages; needs root
	@dpkg -s $(PEERS) $(FUZZ_PEERS) $(VM_PEERS) >/dev/null 2>&1 || { $(APT_GET) update -qq && \
		for peers in "$(PEERS)" "$(FUZZ_PEERS)" "$(VM_PEERS)"; do \
			$(APT_GET) install -y -qq --no-install-recommends $$peers >/dev/null || exit; done; }

man: build  ## write the man pages anew, after a change of the command line
	$(PY) man/make.py

# What is compiled in the tree is put where the wheel's build looks whether it has to compile.
wheel: build  ## build a wheel in dist/
	rm -rf build/lib.* build/bdist.*
	@set -- $$($(PY) -c 'import sys, sysconfig as s; print("build/lib.%s-%s" % (s.get_platform(), \
		sys.implementation.cache_tag), s.get_config_var("EXT_SUFFIX"))') && mkdir -p $$1 && \
		for module in $(PYX:ext/%.pyx=%); do cp -a --parents $$module$$2 $$1 || exit; done
	$(PIP) wheel -q --no-build-isolation --no-deps -w dist .

clean:  ## remove what was built; the virtual environment stays
	rm -rf build dist cdna.egg-info .mypy_cache .pytest_cache .ruff_cache $(VENV)/.built
	find $(wildcard cdna ext fuzz tests benchmarks) \( -name '*.so' -o -name '*.c' -o -name '*.pyc' \) -delete

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

# man(1) looks beside the command's directory; an editable install puts no pages there.
$(VENV)/share/man/man1/cdna.1: | $(VENV)/.ready
	@mkdir -p $(@D) && ln -sf $(CURDIR)/man/man1/*.1 $(@D)

$(VENV)/.test $(VENV)/.lint $(VENV)/.fuzz: $(VENV)/.%: $(VENV)/.ready
	@echo "installing the $* tools"; $(call install,t["project"]["optional-dependencies"]["$*"])
	@touch $@
