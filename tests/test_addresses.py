"""Addresses and names: what of them is shown, and how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from napari_mgbpv2.addresses import (
    escape_undecodable,
    expand_path,
    parse_destination,
    public_address,
    redact,
    url_name,
)
from napari_mgbpv2.formatting import escape_control_characters

SECRET = "https://user:pass@host.org:8443/a%20b/cells.zarr?X-Amz-Signature=abc,(d)&t=1#part"


def test_an_address_is_shown_by_scheme_host_and_path_alone() -> None:
    assert public_address(SECRET) == "https://host.org:8443/a%20b/cells.zarr"
    assert public_address('https://token@part@host/it\'s "b".zarr?x') == 'https://host/it\'s "b".zarr'
    assert public_address("S3://Bucket/Key") == "S3://Bucket/Key"


def test_what_an_address_leads_to_is_named_without_its_query() -> None:
    assert (url_name(SECRET), url_name("https://me@host?x=1")) == ("cells.zarr", "host")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"GET {SECRET} failed", "GET https://host.org:8443/a%20b/cells.zarr failed"),
        ('HTTPStore("http://u:p@h/z.zarr?sig=S#f")', 'HTTPStore("http://h/z.zarr")'),
        ("https://h/a.zarr?sig=S: cannot be read", "https://h/a.zarr: cannot be read"),
        ("Max retries exceeded with url: /p?sig=S (Caused by x)", "Max retries exceeded with url: /p (Caused by x)"),
        ("/home/me/what?.tif and C:\\d\\e#1.png", "/home/me/what?.tif and C:\\d\\e#1.png"),
    ],
)
def test_addresses_in_a_text_lose_what_is_secret(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_tilde_is_the_home_folder_unless_something_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert expand_path("~/a.tif") == os.path.join(str(tmp_path / "home"), "a.tif").replace(os.sep, os.sep)
    assert parse_destination("~/a.ome.zarr") == tmp_path / "home" / "a.ome.zarr"
    (tmp_path / "~").mkdir()
    assert expand_path("~") == "~"
    assert expand_path("a~b") == "a~b"


def test_an_address_of_a_file_is_its_path() -> None:
    assert expand_path("file:///data/a%20b%231.tif") == os.path.normpath("/data/a b#1.tif")


@pytest.mark.skipif(os.name == "nt", reason="names there are no bytes")
def test_a_name_that_is_no_text_can_be_recorded() -> None:
    assert escape_undecodable(os.fsdecode(b"K\xfcche")) == r"K\xfcche"
    assert escape_undecodable("Küche") == "Küche"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert escape_control_characters("a\n\x1b[2J\x07\u202egnp\udcfc.png") == r"a\n\x1b[2J\x07\u202egnp\xfc.png"
    assert escape_control_characters("細胞 Küche\u3000é.png") == "細胞 Küche\u3000é.png"
