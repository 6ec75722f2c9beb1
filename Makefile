# make            what there is
# make demo       the whole way on a real model; start here
# make test       before every commit

PYTHON ?= python3
VENV ?= .venv
# Where torch comes from; empty: pip's default index, whose Linux build brings several gigabytes of CUDA.
# Give the address of PyTorch's CPU index to get the CPU-only build (README, Installation).
TORCH_INDEX ?=
# The oldest Python that the runtime supports, for the oldest line of torch; $(PYTHON) where there is none.
PYTHON_FLOOR ?= $(shell for python in python3.10 $$HOME/.pyenv/versions/3.10.*/bin/python $(PYTHON); do \
	"$$python" -c '' 2>/dev/null && echo "$$python" && break; done)

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
MINILM = $$($(BIN)/python examples/python/minilm_folder.py)
SOURCES := $(shell find exporter runtime -name '*.py')

TESTS_4 := $(addprefix tests/test_,$(addsuffix .py,adapter export_model folders kinds plan_and_inputs round_trip source trace traps unknown_model))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-lines test-transformers-4 lint types unit fuzz cpp bench bench-start soak kill traps coverage coverage-sample format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */make \1\t/' | expand -t 20

install: $(STAMP)  ## set up .venv and nothing else; a second run does nothing

$(STAMP): requirements/line-ipex.txt pyproject.toml
	@echo "setting up $(VENV): torch 2.8.0, IPEX 2.8.0, transformers; 2 to 10 minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url $(TORCH_INDEX) $$(grep '^torch==' requirements/line-ipex.txt))
	$(PIP) -r requirements/line-ipex.txt
	$(PIP) --no-deps -e .
	touch $@

# The other lines of PyTorch (docs/lines.md), kept between runs. requirements/line-NAME.txt → .venv-NAME
.venv-%/.installed: requirements/line-%.txt pyproject.toml
	@echo "setting up .venv-$*: $$(grep '^torch==' $<); 2 to 10 minutes, once"
	$(if $(filter before-2.0,$*),$(PYTHON_FLOOR),$(PYTHON)) -m venv .venv-$*
	$(if $(TORCH_INDEX),.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --index-url $(TORCH_INDEX) $$(grep '^torch==' $<))
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# The runtimes that the speed benchmark compares with. They need nothing of this project.
.venv-peers/.installed: requirements/peers.txt
	@echo "setting up .venv-peers: OpenVINO, ONNX Runtime, nncf; 1 to 5 minutes, once"
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

test-lines: $(STAMP) .venv-before-2.0/.installed .venv-after-ipex/.installed  ## the same round trips on torch 1.13, 2.8 with IPEX and 2.13; writes docs/lines.md (10 minutes)
	$(PYTHON) tests/lines.py before-2.0=.venv-before-2.0/bin/python ipex=$(BIN)/python after-ipex=.venv-after-ipex/bin/python

test-transformers-4: .venv-transformers-4/.installed  ## the tests of the exporter and of the kinds of models with transformers 4.55 (8 minutes)
	.venv-transformers-4/bin/python -m pytest $(TESTS_4)

demo: $(STAMP)  ## export a real model in bf16 with IPEX, load it without transformers, compare sentences
	mkdir -p build
	$(BIN)/export-model "$(MINILM)" --bf16 --backend ipex -o build/minilm-bf16.pt --force
	@echo
	$(BIN)/python examples/python/sentence_similarity.py build/minilm-bf16.pt

test: lint types unit  ## lint, types and all tests; what CI runs

lint: $(STAMP)  ## ruff: style, imports, docstrings, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

unit: $(STAMP)  ## the tests alone; ARGS="-k name" runs some
	$(BIN)/python -m pytest $(ARGS)

fuzz: $(STAMP)  ## load damaged and hostile artifacts; ARGS="--cases 20000 --seed 2"
	$(BIN)/python tests/fuzz_artifact.py $(ARGS)

cpp: build/check-golden build/minilm-bf16.pt build/minilm-fp32-plain.pt build/minilm-bf16-onednn.pt  ## build the C++ consumer, run it on a plain, an onednn and an IPEX artifact
	build/check-golden build/minilm-fp32-plain.pt
	build/check-golden build/minilm-bf16-onednn.pt
	build/check-golden build/minilm-bf16.pt --ipex-library "$$($(BIN)/python -m runtime.ops)"

build/check-golden: runtime/cpp/check_golden.cpp runtime/cpp/build.py $(STAMP)
	$(BIN)/python runtime/cpp/build.py --output $@

build/minilm-bf16.pt: $(SOURCES) $(STAMP)
	mkdir -p build
	$(BIN)/export-model "$(MINILM)" --bf16 --backend ipex -o $@ --force

build/minilm-fp32-plain.pt: $(SOURCES) $(STAMP)
	mkdir -p build
	$(BIN)/export-model "$(MINILM)" --fp32 --backend plain -o $@ --force

build/minilm-bf16-onednn.pt: $(SOURCES) $(STAMP)
	mkdir -p build
	$(BIN)/export-model "$(MINILM)" --bf16 --backend onednn -o $@ --force

bench-start: build/minilm-bf16.pt  ## time from process start to first answer; writes docs/benchmarks (2 minutes)
	$(BIN)/python benchmarks/start.py build/minilm-bf16.pt "$(MINILM)"

bench: $(STAMP) .venv-peers/.installed  ## time a call against every other way to run the same model; writes docs/benchmarks (4 hours; some minutes a row); ARGS="--rows minilm --rounds 3"
	$(BIN)/python -m benchmarks.speed $(ARGS)

soak: build/minilm-bf16.pt  ## 8 threads x 2,000 calls on one session: answers and memory (2 minutes)
	$(BIN)/python benchmarks/soak.py build/minilm-bf16.pt

kill: $(STAMP)  ## end 50 exports with SIGKILL at random moments (6 minutes)
	$(BIN)/python tests/kill_export.py "$(MINILM)"

traps: $(STAMP)  ## the known ways to be silently wrong, each refused or mended, as a table (2 minutes)
	$(BIN)/python -m pytest -q -m trap

coverage: $(STAMP)  ## every model type and task of transformers, as tiny models; writes docs/coverage.* (1 hour a precision); ARGS="--bf16"
	$(BIN)/python -m matrix $(ARGS)

coverage-sample: $(STAMP)  ## 60 pairs of them, the same ones every time (4 minutes)
	$(BIN)/python -m matrix --sample 60

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was built; .venv stays
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
