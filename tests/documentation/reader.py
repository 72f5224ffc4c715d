"""A reader who does what a page says: every Python block and every command, in order, in a folder.

What is said to the tests alone stands in an HTML comment before a block:

``<!-- skip: next "why" -->``
    The block is not run, and why (a directive of Sybil's).
``<!-- shortened: mgbpv2-finetune --steps 2 -->``
    Commands of that name in the block get these options, too: they end sooner, or ask for less of the machine.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points, metadata
from pathlib import Path
from unittest import SkipTest

from packaging.requirements import Requirement
from sybil import Document, Example, Region
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer

ROOT = Path(__file__).parents[2]
PACKAGE = "napari-mgbpv2"
COMMANDS = {each.name: each for each in entry_points(group="console_scripts") if each.name.startswith("mgbpv2-")}
PROGRAMS = Path(sys.executable).parent

FENCED = re.compile(r"^```(\w*)\n.*?^```$", re.MULTILINE | re.DOTALL)


def languages(text: str) -> list[str]:
    """Languages of the blocks of a page."""
    return FENCED.findall(text)


def spans(text: str) -> list[str]:
    """Code within the sentences of a page."""
    return re.findall(r"`([^`]+)`", FENCED.sub("", text))


class Reader:
    """Reads in ``folder``, which is the current one, and finds addresses elsewhere than the page says.

    Parameters
    ----------
    folder
        Holds what the page speaks of.
    places
        What stands for an address that there is only on the page.

    Attributes
    ----------
    skipped
        Reasons of the blocks that were not run.
    """

    def __init__(self, folder: Path, places: Mapping[str, str]) -> None:
        self.folder, self.places = folder, places
        self.skipped: list[str] = []
        self._shortened: list[str] = []

    def read(self, page: Path) -> None:
        """Do all that a page says."""
        for example in self._parse(page).examples():
            self._forget()
            try:
                example.evaluate()
            except SkipTest as reason:
                self.skipped.append(str(reason))
            except Exception as error:
                raise AssertionError(f"{page.name}, line {example.line}: {error}") from error

    def _parse(self, page: Path) -> Document:
        text = page.read_text(encoding="utf-8")
        for there, here in self.places.items():
            text = text.replace(there, here)
        document = Document(text, str(page))
        document.namespace["__name__"] = "__main__"
        for parser in (SkipParser(), self._notes, CodeBlockParser("console", self._type), PythonCodeBlockParser()):
            for region in parser(document):
                document.add(region)
        return document

    def _notes(self, document: Document) -> Iterable[Region]:
        lexer = DirectiveInHTMLCommentLexer("shortened", arguments=".+?")
        return (Region(each.start, each.end, each.lexemes["arguments"], self._shorten) for each in lexer(document))

    def _shorten(self, example: Example) -> None:
        self._shortened = shlex.split(example.parsed)

    def _type(self, example: Example) -> None:
        """Run the lines that begin with a dollar sign; others show what is printed."""
        for line in example.parsed.splitlines():
            if line.startswith("$ "):
                self._forget()
                program, *arguments = words(line.removeprefix("$ "))
                arguments += self._shortened[1:] if self._shortened[:1] == [program] else []
                if program == "mgbpv2-finetune" and not {"--steps", "--minutes"} & {*arguments}:
                    raise SkipTest("trains for ten minutes, and the page does not say how to shorten it")
                run(program, arguments)
        self._shortened = []

    def _forget(self) -> None:
        """Remove upscaled images: pages show several ways to the same result."""
        for path in [path for path in self.folder.iterdir() if "_x" in path.name or path.name == "upscaled"]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def words(line: str) -> list[str]:
    """Split a command as the shell does it: patterns, quotes, comments."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], check=True, capture_output=True, text=True)
    return done.stdout.split("\0")[:-1]


def run(program: str, arguments: list[str]) -> None:
    """Run a program; our own in this process, and nothing is installed or made."""
    if program in COMMANDS:
        try:
            status = COMMANDS[program].load()(arguments)
        except SystemExit as ended:  # the parser of options ends so
            status = ended.code
        assert status == 0, f"{shlex.join([program, *arguments])} ends with status {status}"
    elif program == "pip":
        assert arguments[0] == "install"
        for requirement in arguments[1:]:
            assert_has_its_extras(requirement)
    elif program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    elif program == "python":
        subprocess.run([sys.executable, ROOT / arguments[0], *arguments[1:]], check=True)
    else:
        subprocess.run([PROGRAMS / program, *arguments], check=True, capture_output=True)


def assert_has_its_extras(requirement: str) -> None:
    """Check that this package has the extras that pip is asked for."""
    wanted = Requirement(requirement.replace(".", PACKAGE, 1) if requirement.startswith(".") else requirement)
    provided = set(metadata(PACKAGE).get_all("Provides-Extra") or [])
    assert wanted.name != PACKAGE or wanted.extras <= provided, f"{requirement}: there is no such extra"
