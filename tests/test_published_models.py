"""The authors' files: brought once, gone on with, checked, held to, and used by name; and the downloads under them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import napari_mgbpv2 as mgbp
from examples import a_network, an_image
from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.checkpoints import download_model, export_model, load_model, published_state_dict, save_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.downloads import cache_folder, download
from napari_mgbpv2.model.network import Ensemble, MGBPv2, Network, configurations
from napari_mgbpv2.model.zoo import (
    PublishedModel,
    file_hash,
    find_published,
    find_published_by_path,
    list_published,
    preset,
    published,
)
from napari_mgbpv2.tiling.grid import plan_grid
from web import FileServer, serving, use_cache

PUBLISHED_SHAPES = json.loads((Path(__file__).parent / "data" / "published_state_dicts.json").read_text())
RECORDED_AS = {"boe-perceptual": "K3", "boe-fidelity": "merge"}

SMALL = (ModelConfig(features=(64, 32, 16)),)  # a file of several pieces
SMALL_ENSEMBLE = tuple(ModelConfig(features=(5, 4), kernel=kernel) for kernel in (3, 5, 7))
PIECE = 1 << 16


def a_network_of(configs: tuple[ModelConfig, ...], seed: int = 0) -> Network:
    if len(configs) == 1:
        return a_network(configs[0], seed=seed)
    ensemble = Ensemble(configs)
    for member, config in zip(ensemble.children(), configs, strict=True):
        member.load_state_dict(a_network(config, seed=seed + config.kernel).state_dict())
    return ensemble.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that stands for the user's cache."""
    return use_cache(tmp_path / "cache", monkeypatch)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(b"") as server:
        yield server


@pytest.fixture
def small(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """A published model with a small network, and a server that has it."""
    model = replace(
        find_published("boe-perceptual"), name="small", configs=SMALL, url=f"{server.address}/a%23K3.model?raw=1"
    )
    monkeypatch.setitem(published.PUBLISHED, "small", model)
    server.content = export_model(a_network_of(SMALL), tmp_path / "small.model").read_bytes()
    assert len(server.content) > 3 * PIECE
    return model


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class TestRegistry:
    """What is known of the two before their files are here."""

    def test_there_are_both(self) -> None:
        assert [model.name for model in list_published()] == ["boe-perceptual", "boe-fidelity"]

    @pytest.mark.parametrize("name", RECORDED_AS)
    def test_their_addresses_are_the_authors_with_the_number_sign_inside_the_name(self, name: str) -> None:
        url = find_published(name).url
        assert url.startswith("https://www.dropbox.com/s/")
        assert url.endswith(".model?raw=1")
        assert "_FE256-192-128-48-9_Filter%23K3" in url  # a plain "#" would cut the address off

    @pytest.mark.parametrize("name", RECORDED_AS)
    def test_their_networks_have_the_recorded_tensors(self, name: str) -> None:
        model = find_published(name)
        with torch.device("meta"):
            network = Ensemble(model.configs) if len(model.configs) > 1 else MGBPv2(model.configs[0])
        shapes = {key: list(tensor.shape) for key, tensor in published_state_dict(network).items()}
        assert shapes == PUBLISHED_SHAPES[RECORDED_AS[name]]
        assert model.parameters == sum(parameter.numel() for parameter in network.parameters())

    def test_an_unknown_one_is_an_error_that_lists_them(self) -> None:
        with pytest.raises(ModelError, match="no published model 'boe'; those are boe-perceptual, boe-fidelity"):
            find_published("boe")

    def test_the_cache_is_the_users_unless_a_variable_names_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert find_published("boe-fidelity").path == tmp_path / "cache" / "boe-fidelity.model"
        monkeypatch.delenv("MGBPV2_CACHE")
        monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "home" / project)
        assert cache_folder() == tmp_path / "home" / "napari-mgbpv2"

    def test_all_of_this_loads_neither_torch_nor_pooch(self) -> None:
        code = (
            "import sys; from napari_mgbpv2.model.zoo import list_published, preset\n"
            "assert [(model.card, model.is_here) for model in list_published()] and preset('boe-fidelity')\n"
            "assert not {'torch', 'numpy', 'pooch', 'requests'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestPresets:
    @pytest.mark.parametrize(("name", "tile", "distance"), [("boe-perceptual", 767, 64), ("boe-fidelity", 667, 128)])
    def test_tiles_are_the_papers_with_their_centres_no_further_apart(
        self, name: str, tile: int, distance: int
    ) -> None:
        configs = find_published(name).configs
        settings = {key: preset(name)[key] for key in ("tile", "overlap", "guard", "window")}
        for axis in (grid := plan_grid(4320, 7680, configs, **settings)).rows, grid.columns:
            assert axis.tile == configs[0].natural_down(tile)
            assert max(np.diff(axis.starts)) == distance

    def test_noise_is_that_of_the_track(self) -> None:
        assert [preset(model.name)["noise"] for model in list_published()] == [1.0, 0.0]

    def test_they_are_options_of_upscale(self, small: PublishedModel) -> None:
        download_model("small")
        image = an_image(5, 6, 3)
        result = mgbp.upscale(image, **preset("small"))
        assert result.shape == (80, 96, 3)
        by_hand = mgbp.upscale(image, model="small", noise=1.0, tile=767, overlap=703, guard=0)
        assert np.array_equal(result.compute(), by_hand.compute())


class TestUse:
    """By name, once the file is there."""

    def test_without_the_file_it_says_what_to_run(self, small: PublishedModel, server: FileServer) -> None:
        with pytest.raises(ModelError, match="small is not on this machine: run `mgbpv2-models download small`"):
            load_model("small")
        assert server.requests == []

    @pytest.mark.parametrize("configs", [SMALL, SMALL_ENSEMBLE], ids=["network", "ensemble"])
    def test_it_loads_with_its_scale(
        self,
        configs: tuple[ModelConfig, ...],
        small: PublishedModel,
        server: FileServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(published.PUBLISHED, "small", replace(small, configs=configs))
        network = a_network_of(configs)
        server.content = export_model(network, tmp_path / "other.model").read_bytes()
        path = download_model("small")
        for source in ("small", path):
            loaded = load_model(source)
            assert (loaded.scale, configurations(loaded)) == (16, configs)
            for name, tensor in network.state_dict().items():
                assert torch.equal(loaded.state_dict()[name], tensor)

    def test_it_upscales(self, small: PublishedModel) -> None:
        download_model("small")
        image = an_image(5, 6, 3)
        result = mgbp.upscale(image, model="small").compute()
        network = a_network_of(SMALL)
        network.scale = 16
        assert np.array_equal(result, mgbp.upscale(image, model=network).compute())

    def test_a_copy_elsewhere_is_a_file_like_any_other(self, small: PublishedModel, tmp_path: Path) -> None:
        download_model("small")
        (tmp_path / small.file_name).write_bytes(small.path.read_bytes())
        assert find_published_by_path(small.path) == small
        assert find_published_by_path(tmp_path / small.file_name) is None
        assert load_model(tmp_path / small.file_name).scale is None

    def test_a_file_that_has_changed_is_refused(self, small: PublishedModel) -> None:
        download_model("small")
        content = bytearray(small.path.read_bytes())
        content[len(content) // 2] ^= 1
        small.path.write_bytes(content)
        with pytest.raises(ModelError, match=r"has changed since it was downloaded, its SHA-256 .* download small"):
            load_model("small")

    def test_so_is_one_that_nobody_has_checked(self, small: PublishedModel, cache: Path, server: FileServer) -> None:
        cache.mkdir()
        small.path.write_bytes(server.content)
        assert not small.is_here
        with pytest.raises(ModelError, match=r"its hash is not recorded: run `mgbpv2-models download small`"):
            load_model("small")


class TestDownloading:
    def test_it_is_brought_once_and_its_hash_recorded_as_sha256sum_does(
        self, small: PublishedModel, server: FileServer, cache: Path
    ) -> None:
        assert [download_model("small") for _ in range(2)] == [small.path] * 2
        assert server.requests == [None]
        assert names(cache) == ["small.model", "small.model.sha256"]
        assert small.path.read_bytes() == server.content
        assert small.hash_path.read_text() == f"{file_hash(small.path)}  small.model\n"
        assert small.is_here

    @pytest.mark.slow
    def test_a_file_of_the_real_shape_is_accepted(self, server: FileServer, tmp_path: Path) -> None:
        shapes = PUBLISHED_SHAPES["K3"]
        state = {name: torch.rand(shape) - 0.5 for name, shape in shapes.items()}
        state |= {f"synthesis.{kind}": state[f"Synthesis.{kind}"] for kind in ("weight", "bias")}
        torch.save(state, tmp_path / "a.model", _use_new_zipfile_serialization=False)  # as torch did in 2019
        server.content = (tmp_path / "a.model").read_bytes()
        assert len(server.content) == pytest.approx(find_published("boe-perceptual").size, rel=0.01)
        server.broken, server.most_bytes = 1, len(server.content) // 2
        download_model("boe-perceptual", f"{server.address}/a.model")
        assert len(server.requests) == 2
        network = load_model("boe-perceptual")
        assert (network.scale, sum(each.numel() for each in network.parameters())) == (16, 28_170_450)
        assert torch.equal(network.state_dict()["Analysis_2.weight"], state["Analysis_2.weight"])

    def test_a_file_that_somebody_has_takes_the_place_of_a_download(
        self, small: PublishedModel, server: FileServer, tmp_path: Path, cache: Path
    ) -> None:
        (tmp_path / "mine").write_bytes(server.content)
        assert download_model("small", tmp_path / "mine") == small.path
        assert server.requests == []
        assert names(cache) == ["small.model", "small.model.sha256"]
        assert load_model("small").scale == 16

    @pytest.mark.parametrize("content", [b"", b"none\n", b"\xff\xfe"])
    def test_a_damaged_record_of_the_hash_is_not_taken_for_a_first_download(
        self, small: PublishedModel, server: FileServer, content: bytes
    ) -> None:
        download_model("small")
        small.hash_path.write_bytes(content)
        small.path.unlink()
        with pytest.raises(ModelError, match=r"small\.model\.sha256: is damaged"):
            download_model("small")
        assert not small.path.exists()

    def test_so_does_one_that_has_been_put_there(self, small: PublishedModel, cache: Path, server: FileServer) -> None:
        cache.mkdir()
        small.path.write_bytes(server.content)
        download_model("small")
        assert server.requests == []
        assert small.is_here

    def test_a_changed_file_is_brought_again(self, small: PublishedModel, server: FileServer) -> None:
        download_model("small")
        small.path.write_bytes(b"damaged")
        download_model("small")
        assert server.requests == [None, None]
        assert load_model("small").scale == 16

    def test_another_file_than_the_first_is_refused_and_not_kept(
        self, small: PublishedModel, server: FileServer, tmp_path: Path, cache: Path
    ) -> None:
        first = download_model("small").read_bytes()
        server.content = export_model(a_network_of(SMALL, seed=1), tmp_path / "other.model").read_bytes()
        small.path.unlink()
        for source in (None, tmp_path / "other.model"):
            with pytest.raises(
                ModelError, match=r"another file than the earlier small: .* delete .*small\.model\.sha256"
            ):
                download_model("small", source)
            assert names(cache) == ["small.model.sha256"]
        small.hash_path.unlink()
        assert download_model("small").read_bytes() != first


class TestWrongFiles:
    """Refused with one sentence, and not kept."""

    def refused(self, match: str, cache: Path) -> None:
        with pytest.raises(ModelError, match=match) as caught:
            download_model("small")
        assert "\n" not in str(caught.value)
        assert names(cache) == []

    def test_a_web_page(self, small: PublishedModel, server: FileServer, cache: Path) -> None:
        server.content, server.kind = b"<html>" + bytes(PIECE), "text/html; charset=utf-8"
        self.refused(r"K3\.model: the server sent a web page", cache)

    @pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"PK\3\4 no archive", b"\x80\2"])
    def test_something_else(self, content: bytes, small: PublishedModel, server: FileServer, cache: Path) -> None:
        server.content = content
        self.refused(r"K3\.model: is not the file of small and was discarded: ", cache)

    def test_a_file_of_ours(self, small: PublishedModel, server: FileServer, cache: Path, tmp_path: Path) -> None:
        server.content = save_model(a_network_of(SMALL), tmp_path / "ours.safetensors").read_bytes()
        self.refused("was discarded: it is not a torch file", cache)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"Analysis_1.bias": None}, "misses the tensor 'Analysis_1.bias'"),
            ({"synthesis.bias": None}, "misses the tensor 'synthesis.bias'"),
            ({"extra": torch.ones(1)}, "has an unknown tensor 'extra'"),
            ({"Analysis_1.bias": torch.ones(7)}, r"'Analysis_1.bias' has shape \(7,\) instead of \(32,\)"),
            ({"Analysis_1.bias": torch.full((32,), torch.nan)}, "'Analysis_1.bias' holds NaN or infinity"),
        ],
    )
    def test_other_tensors(
        self,
        change: dict[str, torch.Tensor | None],
        reason: str,
        small: PublishedModel,
        server: FileServer,
        cache: Path,
        tmp_path: Path,
    ) -> None:
        state = published_state_dict(a_network_of(SMALL)) | change
        torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "a.model")
        server.content = (tmp_path / "a.model").read_bytes()
        self.refused(f"is not the file of small and was discarded: .*{reason}", cache)

    def test_a_member_instead_of_the_ensemble(
        self, small: PublishedModel, server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(published.PUBLISHED, "small", replace(small, configs=SMALL_ENSEMBLE))
        self.refused(r"misses the tensor 'model0\.", cache)

    def test_a_wrong_file_of_ones_own(self, small: PublishedModel, cache: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").write_bytes(b"weights")
        with pytest.raises(ModelError, match="mine: is not the file of small and was discarded"):
            download_model("small", tmp_path / "mine")
        assert names(cache) == []

    @pytest.mark.parametrize("status", [403, 404, 500])
    def test_a_refusal_of_the_server(self, status: int, small: PublishedModel, server: FileServer, cache: Path) -> None:
        server.status = status
        self.refused(f"cannot be downloaded .*{status}.*run the command again to resume, or get .*--from FILE", cache)

    def test_a_server_that_is_not_there(self, small: PublishedModel, server: FileServer, cache: Path) -> None:
        server.http.socket.close()
        self.refused("cannot be downloaded", cache)

    def test_a_file_that_is_not_there(self, small: PublishedModel, cache: Path) -> None:
        with pytest.raises(ModelError, match=r"gone\.model: cannot be downloaded .*No such file"):
            download_model("small", "gone.model")
        assert names(cache) == []


def give_up_after(connections: int) -> None:
    """Try to download over a line that breaks as often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_mgbpv2.model.downloads._MAX_CONNECTIONS", connections)
        with pytest.raises(ModelError, match=r"cannot be downloaded .*run the command again to resume"):
            download_model("small")


class TestBrokenConnections:
    """Nothing that has come is asked for twice, unless it no longer fits."""

    @pytest.fixture
    def half(self, small: PublishedModel, server: FileServer) -> int:
        """Bytes after which connections break."""
        server.most_bytes = len(server.content) // 2
        return server.most_bytes // PIECE * PIECE  # a piece that is not complete is lost

    def test_the_rest_is_asked_for_at_once(self, small: PublishedModel, server: FileServer, half: int) -> None:
        server.broken = 1
        download_model("small")
        assert server.requests == [None, f"bytes={half}-"]
        assert small.path.read_bytes() == server.content

    def test_or_by_the_next_download(self, small: PublishedModel, server: FileServer, half: int, cache: Path) -> None:
        server.broken, server.most_bytes = 2, PIECE
        give_up_after(2)
        assert names(cache) == [".small.model.partial", ".small.model.partial.json"]
        assert not small.is_here
        download_model("small")
        assert server.requests == [None, f"bytes={PIECE}-", f"bytes={2 * PIECE}-"]
        assert names(cache) == ["small.model", "small.model.sha256"]
        assert small.path.read_bytes() == server.content

    def test_a_server_that_gives_no_parts_gives_the_whole_again(
        self, small: PublishedModel, server: FileServer, half: int
    ) -> None:
        server.broken, server.ranges = 1, False
        download_model("small")
        assert server.requests == [None, f"bytes={half}-"]
        assert small.path.read_bytes() == server.content

    def test_where_no_connection_brings_more_it_ends(
        self, small: PublishedModel, server: FileServer, half: int
    ) -> None:
        server.broken, server.ranges = 1000, False
        with pytest.raises(ModelError, match="cannot be downloaded"):
            download_model("small")
        assert len(server.requests) == 2

    @pytest.mark.parametrize("marks", [True, False], ids=["with a mark", "by its length"])
    def test_parts_of_two_versions_are_not_put_together(
        self, marks: bool, small: PublishedModel, server: FileServer, half: int, tmp_path: Path
    ) -> None:
        server.broken, server.marks = 1, marks
        give_up_after(1)
        newer = export_model(a_network_of(SMALL, seed=1), tmp_path / "newer.model").read_bytes()
        assert newer[:PIECE] != server.content[:PIECE]
        server.content = newer
        if not marks:
            torch.save(published_state_dict(a_network_of(SMALL, seed=1)), tmp_path / "longer name of an archive.model")
            server.content = (tmp_path / "longer name of an archive.model").read_bytes()
            assert len(server.content) != len(newer)
        download_model("small")
        assert server.requests == [None, f"bytes={half}-", None]
        assert small.path.read_bytes() == server.content

    def test_what_came_from_another_address_is_not_gone_on_with(
        self, small: PublishedModel, server: FileServer, half: int
    ) -> None:
        server.broken = 1
        give_up_after(1)
        download_model("small", f"{server.address}/mirror.model")
        assert server.requests == [None, None]
        assert small.path.read_bytes() == server.content

    def test_a_part_longer_than_the_file_is_dropped(
        self, small: PublishedModel, server: FileServer, half: int, cache: Path
    ) -> None:
        server.broken = 1
        give_up_after(1)
        with (cache / ".small.model.partial").open("ab") as file:
            file.write(bytes(len(server.content)))
        download_model("small")
        assert small.path.read_bytes() == server.content

    def test_a_file_that_is_complete_needs_no_connection(self, server: FileServer, tmp_path: Path) -> None:
        server.content = bytes(3 * PIECE)

        def interrupted(_: Path) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            download(f"{server.address}/a", tmp_path / "a", check=interrupted)
        assert not (tmp_path / "a").exists()
        download(f"{server.address}/a", tmp_path / "a", check=lambda _: None)
        assert server.requests == [None]
        assert (tmp_path / "a").read_bytes() == server.content
