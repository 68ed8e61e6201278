# `make demo` and `make test` need nothing but Python and make: both create the environment they run in.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test test-browser test-peers test-wheel bench chaos docs notebooks lint format clean

demo: $(INSTALLED)  ## train on the embedded digits, print accuracy over timesteps, write a report
	$(BIN)/spikedistill train digits-twsd --epochs 10 --out runs/demo --overwrite

test: $(INSTALLED) lint  ## everything, under 15 minutes on two cores
	$(BIN)/pytest -n 2 --dist worksteal  # neighbours share what modules make

test-browser: $(INSTALLED)  ## the report as headless Chromium shows it; needs the packages chromium and chromium-driver
	$(BIN)/pytest -m browser

lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarks chaos
	$(BIN)/ruff format --check src tests benchmarks chaos
	$(BIN)/mypy src benchmarks chaos

format: $(INSTALLED)
	$(BIN)/ruff check --fix src tests benchmarks chaos
	$(BIN)/ruff format src tests benchmarks chaos

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"spikedistill needs Python 3.11 or newer; this is {v.major}.{v.minor}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# SpikingJelly asks for torchvision, beside which Lightning does not import: peers go without it, in an environment of their own.
# ExecuTorch asks for much that exporting does not use.
test-peers: .venv-peers/installed  ## the README's lines on SpikingJelly and snnTorch networks
	.venv-peers/bin/pytest tests/peers tests/benchmarks/test_peer_neurons.py

.venv-peers/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[figures,cluster,nir,onnx]' tqdm loguru h5py pytest ruamel.yaml tabulate expecttest pandas parameterized py-cpuinfo
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --no-deps spikingjelly==2.0.0 snntorch==1.0.0 torchattacks==3.5.1 nirtorch==2.6 executorch==1.5.1 torchao==0.18.0
	touch $@

# Other Pythons than 3.11 get the CUDA build of PyTorch from its registry, some 5 GB.
test-wheel: .venv-wheel/installed  ## what pip installs from the wheel, in the Python that PYTHON names
	rm -rf .venv-wheel/wheels
	.venv-wheel/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir .venv-wheel/wheels .
	.venv-wheel/bin/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .venv-wheel/wheels/spikedistill-*.whl
	.venv-wheel/bin/pytest -n 2 tests/cli/test_command_line.py tests/cli/test_public_names.py tests/docs/test_documented_code.py

.venv-wheel/installed: pyproject.toml constraints.txt
	rm -rf .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt '.[hub,nir,onnx,test]'
	touch $@

bench: .venv-peers/bench  ## a training step, inference and neurons beside other libraries; goes on where it was stopped
	for command in step objectives inference neurons; do \
	  .venv-peers/bin/python -m benchmarks $$command && \
	  .venv-peers/bin/python -m benchmarks table runs/bench/$$command.jsonl && \
	  .venv-peers/bin/python -m benchmarks plot runs/bench/$$command.jsonl --out runs/bench/$$command.svg || exit; \
	done

# Norse asks for torchvision too, for its examples alone.
.venv-peers/bench: .venv-peers/installed
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --no-deps norse==1.1.0 nir==1.0.8 nirtorch==2.6
	touch $@

chaos: $(INSTALLED)  ## kills, damage, full disks, missing permissions, hostile files; at most an hour; goes on where it was stopped
	$(BIN)/python -m chaos --out runs/chaos

docs: .venv/docs  ## the documentation, into site/; to search in it: $(BIN)/python -m http.server -d site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/pytest tests/docs/test_site.py

notebooks: .venv/docs  ## run the notebooks anew and keep their outputs
	$(BIN)/python docs/execute.py

.venv/docs: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-peers .venv-wheel runs/demo site
