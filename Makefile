# `make demo` shows the main job, `make test` proves the package, `make docs` builds its site; each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-output
SAMPLE := src/napari_mgbpv2/samples/astronaut.png

.PHONY: demo test docs system clean

demo: $(VENV)/installed
	@mkdir -p $(DEMO)
	@rm -f $(DEMO)/astronaut_x4.png
	$(BIN)/mgbpv2-upscale $(SAMPLE) -o $(DEMO)/astronaut_x4.ome.zarr --preview $(DEMO)/astronaut_x4.png --overwrite
	@echo "result:  $(CURDIR)/$(DEMO)/astronaut_x4.ome.zarr"
	@echo "preview: $(CURDIR)/$(DEMO)/astronaut_x4.png (left: bicubic, right: this network)"

test: $(VENV)/tox system
	$(BIN)/tox

docs: $(VENV)/tox
	$(BIN)/tox -e docs
	@echo "site: $(CURDIR)/site/index.html"

# What a window needs on a machine without a screen; asked of Debian and Ubuntu, where it may be.
SYSTEM := xvfb xauth libgl1 libegl1 libgl1-mesa-dri libdbus-1-3 libglib2.0-0 libfontconfig1 fonts-dejavu-core \
	libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 \
	libxcb-xinerama0

system:
	@dpkg -s $(SYSTEM) >/dev/null 2>&1 || { \
		if [ "$$(id -u)" = 0 ]; then SUDO=; else SUDO="sudo -n"; fi; \
		$$SUDO apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq --no-install-recommends $(SYSTEM); \
	} || echo "could not install what a window on a virtual screen needs, such as: $(SYSTEM)"

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
	rm -rf $(VENV) .tox $(DEMO) build dist site
