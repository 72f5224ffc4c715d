"""README and the pages of docs/: what they say can be done, as they say it, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest
from reader import COMMANDS, ROOT, Reader, languages, spans
from stand_ins import stand_ins

import napari_mgbpv2 as mgbp

PAGES = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
TO_BE_DONE = [
    pytest.param(name, marks=pytest.mark.slow if name == "docs/models.md" else ())  # it exports to every form
    for name, text in PAGES.items()
    if {"python", "console"} & {*languages(text)}
]
SUBCOMMANDS = {"mgbpv2-models": ("list", "info", "download", "export")}

# What is not run, page by page.
LEFT_OUT = {
    "docs/conversion.md": ["needs a SLURM cluster and dask-jobqueue", "needs a Kubernetes cluster and dask-kubernetes"],
    "docs/fine-tuning.md": ["needs a package index, and an hour"],
    "docs/napari.md": ["opens a window; tests/gui runs it"],
}

every_page = pytest.mark.parametrize("name", PAGES)


@pytest.fixture
def options(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """All options of our commands."""
    for name, command in COMMANDS.items():
        for subcommand in ("", *SUBCOMMANDS.get(name, ())):
            with pytest.raises(SystemExit, match="0"):
                command.load()([*filter(None, [subcommand]), "--help"])
    return options_in(capsys.readouterr().out)


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))


@pytest.mark.parametrize("name", TO_BE_DONE)
def test_what_a_page_says_can_be_done(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with stand_ins(tmp_path, PAGES[name], monkeypatch) as places:
        reader = Reader(tmp_path, places)
        reader.read(ROOT / name)
    assert reader.skipped == LEFT_OUT.get(name, [])


@every_page
def test_every_block_says_what_it_is(name: str) -> None:
    assert {*languages(PAGES[name])} <= {"console", "python", "text"}


@every_page
def test_options_that_a_sentence_names_are_there(name: str, options: set[str]) -> None:
    for span in spans(PAGES[name]):
        program = re.match(r"(?:xvfb-run )?python (\S+\.py)", span)
        if program:
            assert options_in(span) <= options_in((ROOT / program[1]).read_text(encoding="utf-8")), span
        elif not re.match(r"eval|torchrun|tensorboard", span):
            assert options_in(span) <= options, span


@every_page
def test_names_and_files_that_a_sentence_names_are_there(name: str) -> None:
    for span in spans(PAGES[name]):
        dotted = re.match(r"(?:napari_mgbpv2|mgbp)((?:\.\w+)+)", span)
        if dotted:
            resolve_name(f"napari_mgbpv2{dotted[1]}")
        if re.fullmatch(r"(benchmarks|docs|recipes|src|tests)/\S+", span):
            assert (ROOT / span).exists(), span


@every_page
def test_every_picture_says_in_words_what_it_shows(name: str) -> None:
    for words, _ in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", PAGES[name]):
        assert len(words.split()) >= 3, words


def test_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)", PAGES["README.md"]):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_reference_has_every_public_name() -> None:
    described = re.findall(r"^::: napari_mgbpv2\.(\w+)$", PAGES["docs/reference/package.md"], re.MULTILINE)
    assert {*described} == {*mgbp.__all__} - {"__version__"}
