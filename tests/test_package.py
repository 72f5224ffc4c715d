"""What is released, and what releases it. `tox -e package` builds and installs it; here is what can be told without."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zlib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

import napari_mgbpv2

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "release"))

from licences import is_free, not_free  # noqa: E402
from version import versions  # noqa: E402

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
needs_github = pytest.mark.skipif(not GITHUB.exists(), reason="an sdist has no workflows")


def test_contributing_names_files_that_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.partition("## Where do I change")[2].partition("## Requirements")[0]
    named = [name for name in re.findall(r"`([^`]+)`", table.partition("|---|---|")[2]) if "/" in name or "." in name]
    folders = (ROOT, ROOT / "src" / "napari_mgbpv2", ROOT / "src" / "napari_mgbpv2" / "io" / "writers" / "ome_zarr")
    assert len(named) > 20
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []


def test_the_wheel_is_smaller_than_20_megabytes() -> None:
    files = (ROOT / "src" / "napari_mgbpv2").rglob("*")
    packed = sum(len(zlib.compress(file.read_bytes())) for file in files if file.is_file() and file.suffix != ".pyc")
    assert 1e6 < packed < 20e6


def test_the_citation_has_the_version_of_the_package() -> None:
    said = versions()
    assert said["src/napari_mgbpv2/_version.py"] == said["CITATION.cff"] == napari_mgbpv2.__version__


def test_a_tag_of_another_version_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "release" / "version.py", "v99.0.0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"the tag is v99.0.0, but src/napari_mgbpv2/_version.py says {napari_mgbpv2.__version__}" in done.stderr


def test_the_paper_is_cited() -> None:
    (paper,) = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Navarrete Michelini", "Chen", "Liu", "Zhu"]
    assert [identifier["value"] for identifier in paper["identifiers"]] == ["arXiv:1909.12983"]


class TestLicences:
    @pytest.mark.parametrize(
        "licence",
        [
            "MIT License",
            "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
            "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSL-1.0",
            "Mozilla Public License 2.0 (MPL 2.0)",
            "Apache Software License; BSD License",
            "GPL-3.0-only OR MIT",
        ],
    )
    def test_free_ones_pass(self, licence: str) -> None:
        assert is_free(licence)

    @pytest.mark.parametrize(
        "licence",
        [
            "GNU General Public License v3 (GPLv3)",
            "MIT AND GPL-2.0-or-later",
            "BSD License; GNU Affero General Public License v3",
            "Proprietary, limited",
            "UNKNOWN",
            "",
        ],
    )
    def test_others_stop_a_release(self, licence: str) -> None:
        assert not_free([{"Name": "thing", "License": licence}]) == [f"thing ({licence})"]

    def test_what_torch_wants_for_cuda_is_left_to_nvidia(self) -> None:
        assert not not_free([{"Name": "nvidia-cublas", "License": "NVIDIA Proprietary Software"}])


@needs_github
@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("dependabot", ".github/dependabot.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_what_github_reads_has_its_schema(schema: str, pattern: str) -> None:
    files = sorted(ROOT.glob(pattern))
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_github
class TestWorkflows:
    def test_only_what_publishes_may_write_or_sign(self) -> None:
        allowed = {}
        for path in WORKFLOWS:
            told: dict[str, Any] = yaml.safe_load(path.read_text())
            assert told["permissions"] == {}
            for name, job in told["jobs"].items():
                if more := {what for what, how in job["permissions"].items() if how == "write"}:
                    allowed[path.name, name] = more
        assert allowed == {("release.yml", "publish"): {"id-token"}, ("release.yml", "github"): {"contents"}}

    def test_they_run_what_there_is(self) -> None:
        """Each environment of tox, each goal of make, each extra and each file that they name."""
        text = "\n".join(path.read_text() for path in WORKFLOWS)
        tox = ConfigParser()
        tox.read(ROOT / "tox.ini")
        environments = {name for each in re.findall(r"tox -e (\S+)", text) for name in each.split(",")}
        assert environments
        assert {f"testenv:{name}" for name in environments} <= set(tox.sections())
        goals = set(re.findall(r"run: make (\S+)", text))
        assert goals
        assert goals <= set(re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text()))
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = set(re.findall(r'"\.\[(\S+?)\]"', text))
        assert named
        assert named <= extras.keys()
        for file in re.findall(r"run: (?:python )?(\S+/\S+)", text):
            assert (ROOT / file).exists()

    def test_the_tests_run_on_every_python_that_is_promised(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        promised = [each.rpartition(" ")[2] for each in project["classifiers"] if re.search(r":: 3\.\d+$", each)]
        matrix = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())["jobs"]["tests"]["strategy"]["matrix"]
        assert matrix["python"] == promised
        assert matrix["system"] == ["ubuntu-latest", "windows-latest", "macos-latest"]
