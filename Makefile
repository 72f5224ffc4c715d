# `make demo` shows the main job, `make test` proves the package; both set up everything that they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-output
SAMPLE := src/napari_mgbpv2/samples/astronaut.png

.PHONY: demo test clean

demo: $(VENV)/installed
	@mkdir -p $(DEMO)
	@rm -f $(DEMO)/astronaut_x4.png
	$(BIN)/mgbpv2-upscale $(SAMPLE) -o $(DEMO)/astronaut_x4.ome.zarr --preview $(DEMO)/astronaut_x4.png --overwrite
	@echo "result:  $(CURDIR)/$(DEMO)/astronaut_x4.ome.zarr"
	@echo "preview: $(CURDIR)/$(DEMO)/astronaut_x4.png (left: bicubic, right: this network)"

test: $(VENV)/tox
	$(BIN)/tox

$(VENV)/python:
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m pip install virtualenv && $(PYTHON) -m virtualenv $(VENV); }
	@touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/tox: $(VENV)/python constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt tox
	@touch $@

clean:
	rm -rf $(VENV) .tox $(DEMO) build dist
