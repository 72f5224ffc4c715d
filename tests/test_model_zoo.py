"""The packaged models: their cards fill a menu at once, and names find files."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.zoo import default_model, file_hash, find_model, list_models, packaged, read_card

CONFIG = ModelConfig(features=(4, 3), channels=1)


def write_header(path: Path, header: Any, *, size: int | None = None) -> Path:
    """A .safetensors file that consists of its header."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(content) if size is None else size).to_bytes(8, "little") + content)
    return path


def described(**description: Any) -> dict[str, Any]:
    """A header with two tensors of 12 numbers together and a description of a network."""
    text = json.dumps({"configs": [CONFIG.to_dict()]} | description)
    return {"__metadata__": {"napari_mgbpv2": text}, "a": {"shape": [2, 3]}, "b": {"shape": [6]}}


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with four models."""
    for name, scale in (("x16", 16), ("x4-b", 4), ("any", None), ("x4-a", 4)):
        write_header(tmp_path / f"{name}.safetensors", described(scale=scale))
    monkeypatch.setattr(packaged, "WEIGHTS_FOLDER", tmp_path)
    return tmp_path


class TestPackagedModels:
    def test_there_is_one_for_a_scale_of_four(self) -> None:
        card = find_model("x4")
        assert card in list_models()
        assert (card.name, card.scale, card.channels) == ("x4", 4, 3)

    def test_every_card_says_what_a_menu_and_a_plan_need(self) -> None:
        for card in list_models():
            assert card.path.is_file()
            assert card.guard is not None
            assert card.trained_on
            assert str(card).startswith(f"{card.name}: x{card.scale}, {card.channels} channels, ")

    def test_cards_are_read_without_torch(self) -> None:
        code = (
            "import sys; from napari_mgbpv2.model.zoo import list_models; assert list_models();"
            "assert not {'torch', 'safetensors', 'numpy'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestNames:
    @pytest.mark.usefixtures("zoo")
    def test_models_are_listed_by_scale_and_name(self) -> None:
        assert [card.name for card in list_models()] == ["any", "x4-a", "x4-b", "x16"]

    def test_of_one_scale_those_of_colours_come_first_and_are_the_default(self, zoo: Path) -> None:
        write_header(zoo / "z.safetensors", described(scale=4, configs=[ModelConfig(channels=3).to_dict()]))
        assert [card.name for card in list_models()] == ["any", "z", "x4-a", "x4-b", "x16"]
        assert default_model(4).name == "z"

    def test_a_single_channel_gets_a_model_of_its_own_where_there_is_one(self, zoo: Path) -> None:
        write_header(zoo / "z.safetensors", described(scale=4, configs=[ModelConfig(channels=3).to_dict()]))
        write_header(zoo / "y.safetensors", described(scale=8, configs=[ModelConfig(channels=3).to_dict()]))
        assert [default_model(scale, 1).name for scale in (4, 8)] == ["x4-a", "y"]

    @pytest.mark.usefixtures("zoo")
    def test_every_name_finds_its_model(self) -> None:
        assert [find_model(card.name) for card in list_models()] == list(list_models())

    @pytest.mark.usefixtures("zoo")
    def test_an_unknown_name_is_an_error_that_lists_the_known_ones(self) -> None:
        with pytest.raises(ModelError, match=r"no model 'x5': it is neither .* which are any, x4-a, x4-b, x16"):
            find_model("x5")

    @pytest.mark.usefixtures("zoo")
    @pytest.mark.parametrize(("scale", "name"), [(4, "x4-a"), (16, "x16"), (None, "x4-a")])
    def test_a_scale_has_a_default_model(self, scale: int | None, name: str) -> None:
        assert default_model(scale).name == name

    @pytest.mark.usefixtures("zoo")
    def test_a_scale_without_a_model_is_an_error_that_lists_those_with_one(self) -> None:
        with pytest.raises(ModelError, match="no packaged model upscales 3 times; scales with a model: 4, 16"):
            default_model(3)


class TestCards:
    def test_a_card_says_what_the_file_says(self, tmp_path: Path) -> None:
        path = write_header(
            tmp_path / "cells.safetensors",
            described(scale=8, guard=24, trained_on="cells", scores={"PSNR": 31.5}, training={"steps": 9}),
        )
        card = read_card(path)
        assert (card.name, card.path, card.scale, card.guard) == ("cells", path, 8, 24)
        assert (card.channels, card.noise, card.parameters) == (1, True, 12)
        assert (card.trained_on, card.scores, card.training) == ("cells", {"PSNR": 31.5}, {"steps": 9})

    def test_what_it_does_not_say_is_open(self, tmp_path: Path) -> None:
        card = read_card(write_header(tmp_path / "a.safetensors", described()))
        assert (card.scale, card.guard, card.trained_on, card.scores, card.training) == (None, None, "", {}, {})
        assert str(card).startswith("a: any scale, 1 channels, 12 parameters")

    def test_a_missing_file_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"a\.safetensors: cannot be read \(No such file or directory\)"):
            read_card(tmp_path / "a.safetensors")

    def test_a_file_of_somebody_else_is_an_error(self, tmp_path: Path) -> None:
        path = write_header(tmp_path / "a.safetensors", {"a": {"shape": [2]}, "__metadata__": {"format": "pt"}})
        with pytest.raises(ModelError, match=r"a\.safetensors: does not describe its network"):
            read_card(path)

    @pytest.mark.parametrize(
        ("header", "size"),
        [
            (b"", 0),
            (b"{}", 2**62),
            (b"{", 1),
            (b"\xff\xfe{}", None),
            (b"[" * 100_000, None),
            ([1, 2], None),
            ({"a": 1}, None),
            ({"a": {}}, None),
            ({"a": {"shape": 3}}, None),
            ({"a": {"shape": ["3"]}}, None),
            ({"__metadata__": "text"}, None),
        ],
    )
    def test_a_damaged_header_is_an_error(self, header: Any, size: int | None, tmp_path: Path) -> None:
        path = write_header(tmp_path / "a.safetensors", header, size=size)
        with pytest.raises(ModelError, match=r"a\.safetensors: is not a complete \.safetensors file"):
            read_card(path)

    @pytest.mark.parametrize(
        ("text", "cause"),
        [
            ("{", "Expecting property name"),
            ("3", "'int' object is not iterable"),
            ("[" * 100_000, "maximum recursion depth"),
            ("{}", "'configs' is missing"),
            ('{"configs": []}', "it describes no network"),
            ('{"configs": {"steps": 2}}', "this version does not know"),
            ('{"configs": [{"steps": Infinity}]}', "numbers of a network must be integers"),
            ('{"configs": [{"layers": 2}]}', "unexpected keyword argument 'layers'"),
            ('{"configs": [{"kernel": 4}]}', "kernel is 4; it must be odd"),
            ('{"configs": [{}], "scale": "four"}', "scale is 'four'"),
            ('{"configs": [{}], "guard": 2.5}', "guard is 2.5"),
            ('{"configs": [{}], "scores": [1]}', r"scores is \[1\]"),
            ('{"configs": [{}], "training": "long"}', "training is 'long'"),
        ],
    )
    def test_a_damaged_description_is_an_error_that_names_the_cause(
        self, text: str, cause: str, tmp_path: Path
    ) -> None:
        path = write_header(tmp_path / "a.safetensors", {"__metadata__": {"napari_mgbpv2": text}})
        with pytest.raises(ModelError, match=rf"a\.safetensors: its description of the network is damaged \(.*{cause}"):
            read_card(path)


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"weights").hexdigest()
