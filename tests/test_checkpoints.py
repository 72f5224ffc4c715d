"""Model files: what is written comes back, tensors alone suffice, nothing runs, and every damage has its sentence."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from examples import a_network
from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.checkpoints import (
    export_model,
    find_model_file,
    load_model,
    make_card,
    published_state_dict,
    save_model,
)
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import Ensemble, MGBPv2, Network, configurations
from napari_mgbpv2.model.zoo import find_model, read_card

State = dict[str, Tensor]

SMALL = ModelConfig(features=(3, 2), steps=1)

configs = st.builds(
    ModelConfig,
    features=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    steps=st.integers(1, 2),
    cycles=st.integers(1, 3),
    kernel=st.sampled_from([3, 5]),
    channels=st.just(3),
    noise_channels=st.integers(0, 2),
    bias=st.booleans(),
)
networks = st.one_of(configs.map(a_network), st.lists(configs, min_size=1, max_size=3).map(Ensemble))


def write_ours(network: Network, folder: Path) -> Path:
    return save_model(network, folder / "ours.safetensors", overwrite=True)


def write_tensors(network: Network, folder: Path) -> Path:
    save_file(network.state_dict(), folder / "tensors.safetensors")
    return folder / "tensors.safetensors"


def write_authors(network: Network, folder: Path) -> Path:
    return export_model(network, folder / "authors.model", overwrite=True)


def write_old_torch(network: Network, folder: Path) -> Path:
    torch.save(published_state_dict(network), folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


@cache
def written(write: Callable[[Network, Path], Path], folder: Path) -> bytes:
    """What one network's file holds; written once, as torch's old format has addresses in it, of whatever length."""
    return write(a_network(SMALL), folder).read_bytes()


def only(name: str) -> Callable[[Network, Path], Path]:
    """Write a file with one of the two names of the synthesis."""

    def write(network: Network, folder: Path) -> Path:
        state = published_state_dict(network)
        other = "synthesis" if name == "Synthesis" else "Synthesis"
        torch.save({key: tensor for key, tensor in state.items() if f"{other}." not in key}, folder / "one.pth")
        return folder / "one.pth"

    return write


def assert_same_tensors(network: Network, other: Network) -> None:
    first, second = network.state_dict(), other.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


class TestRoundTrip:
    @settings(deadline=None, max_examples=50)
    @given(network=networks)
    def test_our_file_brings_configuration_and_weights_back(self, network: Network, folder: Path) -> None:
        loaded = load_model(write_ours(network, folder))
        assert configurations(loaded) == configurations(network)
        assert_same_tensors(loaded, network)

    @pytest.mark.parametrize(
        "write", [write_tensors, write_authors, write_old_torch, only("Synthesis"), only("synthesis")]
    )
    @settings(deadline=None, max_examples=30)
    @given(network=networks, cycles=st.integers(1, 3))
    def test_tensors_alone_bring_back_all_but_the_number_of_cycles(
        self, network: Network, cycles: int, write: Callable[[Network, Path], Path], folder: Path
    ) -> None:
        loaded = load_model(write(network, folder), cycles=cycles)
        described = [config.to_dict() | {"cycles": cycles} for config in configurations(network)]
        assert [config.to_dict() for config in configurations(loaded)] == described
        assert_same_tensors(loaded, network)

    def test_without_a_word_on_cycles_there_is_one(self, tmp_path: Path) -> None:
        network = a_network(ModelConfig(features=(3, 2), cycles=3))
        assert configurations(load_model(write_authors(network, tmp_path)))[0].cycles == 1
        assert configurations(load_model(write_ours(network, tmp_path)))[0].cycles == 3

    def test_the_authors_format_holds_the_synthesis_twice(self, tmp_path: Path) -> None:
        state = torch.load(write_authors(a_network(SMALL), tmp_path), weights_only=True)
        assert list(state)[:2] == ["synthesis.weight", "synthesis.bias"]
        assert torch.equal(state["synthesis.weight"], state["Synthesis.weight"])

    def test_half_precision_halves_the_file_and_rounds_the_weights(self, tmp_path: Path) -> None:
        network = a_network(ModelConfig(features=(30, 20)))
        whole = save_model(network, tmp_path / "whole.safetensors")
        half = save_model(network, tmp_path / "half.safetensors", precision="float16")
        assert half.stat().st_size < 0.6 * whole.stat().st_size
        for name, tensor in load_model(half).state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name].half().float())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_weights_of_any_float_type_become_float32(self, dtype: torch.dtype, tmp_path: Path) -> None:
        state = published_state_dict(a_network(SMALL).to(dtype))
        torch.save(state, tmp_path / "a.pth")
        loaded = load_model(tmp_path / "a.pth")
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}

    @pytest.mark.skipif(sys.platform != "linux", reason="threads are counted as Linux shows them")
    def test_loading_leaves_no_threads_behind(self) -> None:
        """They would share the processors with those of the engine, which would take twice as long."""
        count = "len(os.listdir('/proc/self/task'))"
        script = f"""
            import os, time, torch
            from napari_mgbpv2.model.checkpoints import load_model
            before, deadline = {count}, time.monotonic() + 30
            load_model("x4")  # in half precision: taking it to single is work for several threads
            while {count} > before:  # the system takes them from its list a moment after they have ended
                assert time.monotonic() < deadline, "they are still there"
        """
        threads = os.environ | {"OMP_NUM_THREADS": "2"}
        done = subprocess.run(
            [sys.executable, "-c", dedent(script)], env=threads, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def test_a_loaded_network_is_ready_for_use(self) -> None:
        network = load_model("x4")
        assert isinstance(network, MGBPv2)
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


class TestDescription:
    def test_scale_and_guard_come_along(self, tmp_path: Path) -> None:
        network = a_network(SMALL, scale=8, guard=12)
        loaded = load_model(save_model(network, tmp_path / "a.safetensors"))
        assert (loaded.scale, loaded.guard) == (8, 12)

    def test_what_is_said_at_saving_counts_more(self, tmp_path: Path) -> None:
        network = a_network(SMALL, scale=8, guard=12)
        loaded = load_model(save_model(network, tmp_path / "a.safetensors", scale=2, guard=0))
        assert (loaded.scale, loaded.guard) == (2, 0)

    def test_a_scale_may_be_given_for_files_that_do_not_say(self, tmp_path: Path) -> None:
        path = write_authors(a_network(SMALL), tmp_path)
        assert load_model(path).scale is None
        assert load_model(path, scale=16).scale == 16

    def test_everything_arrives_on_the_card(self, tmp_path: Path) -> None:
        path = save_model(
            a_network(SMALL, scale=4, guard=8),
            tmp_path / "cells.safetensors",
            trained_on="cells",
            scores={"PSNR": 31.25},
            training={"steps": 100, "rates": [0.1, 0.01]},
        )
        card = read_card(path)
        assert (card.name, card.scale, card.guard, card.channels, card.noise) == ("cells", 4, 8, 3, True)
        assert card.parameters == sum(parameter.numel() for parameter in a_network(SMALL).parameters())
        assert (card.trained_on, card.scores) == ("cells", {"PSNR": 31.25})
        assert card.training == {"steps": 100, "rates": [0.1, 0.01]}

    def test_the_card_of_a_loaded_model_is_the_one_in_its_file(self, tmp_path: Path) -> None:
        path = save_model(
            a_network(SMALL, scale=4, guard=8), tmp_path / "a.safetensors", trained_on="cells", training={"steps": 9}
        )
        assert make_card(path, load_model(path)) == read_card(path)

    def test_a_file_that_says_nothing_has_a_card_of_what_its_network_says(self, tmp_path: Path) -> None:
        for path in (write_authors(a_network(SMALL), tmp_path), write_tensors(a_network(SMALL), tmp_path)):
            card = make_card(path, load_model(path, scale=16))
            assert (card.name, card.scale, card.guard, card.channels, card.noise) == (path.stem, 16, None, 3, True)
            assert card.parameters == sum(parameter.numel() for parameter in a_network(SMALL).parameters())

    def test_it_arrives_whatever_the_length_of_the_header(self, tmp_path: Path) -> None:
        first_bytes = set()
        for length in range(0, 256, 8):  # 8 bytes at a time, as headers grow: one of them begins like a pickle
            path = tmp_path / f"{length}.safetensors"
            save_model(a_network(SMALL, scale=4), path, trained_on="x" * length)
            first_bytes.add(path.read_bytes()[0])
            assert load_model(path).scale == 4
        assert 0x80 in first_bytes


class TestNames:
    def test_a_packaged_model_has_a_name(self) -> None:
        assert find_model_file("x4") == find_model("x4").path

    def test_a_file_of_that_name_goes_before_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_authors(a_network(SMALL), tmp_path).rename("x4")
        assert find_model_file("x4") == Path("x4")

    def test_a_folder_of_that_name_does_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("x4").mkdir()
        assert find_model_file("x4") == find_model("x4").path

    def test_the_ending_of_a_file_means_nothing(self, tmp_path: Path) -> None:
        network = a_network(SMALL)
        for number, path in enumerate((write_authors(network, tmp_path), write_ours(network, tmp_path))):
            for ending in (".safetensors", ".pth", ".txt", ""):
                other = tmp_path / f"{number}{ending}"
                other.write_bytes(path.read_bytes())
                assert_same_tensors(load_model(other), network)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("unheard-of", "there is no model 'unheard-of': it is neither a file nor a packaged model, which are .*x4"),
            ("", "there is no model ''"),
            ("missing.safetensors", r"missing\.safetensors: there is no such file"),
            ("nowhere/x4", "nowhere/x4: there is no such file"),
            (Path("x4"), "x4: there is no such file"),
            (Path(__file__).parent, "tests: is not a file"),
            ("x" * 300, r"x{300}: cannot be read \(File name too long\)"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_what_is_neither_is_an_error(self, source: str | Path, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            load_model(source)


def state_with(changes: dict[str, Tensor | None]) -> State:
    """Tensors of a small network, some of them changed, added, or (with None) left out."""
    state = {**published_state_dict(a_network(SMALL)), **changes}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


NANS = torch.full((3,), torch.nan)


class TestTensors:
    @pytest.mark.parametrize(
        ("state", "message"),
        [
            (state_with({"Analysis_1.bias": None}), "misses the tensor 'Analysis_1.bias'; it is not a complete"),
            (state_with({"Analysis_1.weight": None}), "no tensor 'Analysis_1.weight' of four dimensions"),
            (state_with({"Analysis_1.weight": torch.tensor(1.0)}), "no tensor 'Analysis_1.weight' of four dimensions"),
            (
                state_with({"AnalysisN_0.weight": torch.tensor(1.0)}),
                "no tensor 'AnalysisN_0.weight' of four dimensions",
            ),
            ({"weight": torch.ones(3)}, "is not an MGBPv2 network: it has no tensor 'Analysis_0.weight'"),
            (state_with({"a": torch.ones(1), "b": torch.ones(1)}), "has an unknown tensor 'a' and 1 more"),
            (state_with({"Downscale_1-1.weight": torch.ones(1)}), "misses the tensor 'Downscale_1-1.bias' and 2 more"),
            (state_with({"Downscale_1-999.weight": torch.ones(1)}), "too few for the 2000 modules of 1000 steps"),
            (
                state_with({"Analysis_0.bias": torch.ones(4)}),
                r"tensor 'Analysis_0.bias' has shape \(4,\) instead of \(3,\)",
            ),
            (state_with({"Analysis_1.weight": torch.ones(2, 3, 1, 2)}), r"has shape \(2, 3, 1, 2\) instead of"),
            (
                state_with({"Downscale_1-0.weight": torch.ones(3, 2, 4, 4)}),
                "kernel is 4; it must be odd and at least 3",
            ),
            (
                state_with({"Analysis_0.bias": torch.ones(3, dtype=torch.int32)}),
                "'Analysis_0.bias' holds torch.int32, not floating-point numbers",
            ),
            (state_with({"Analysis_0.bias": torch.ones(3) * 1j}), "'Analysis_0.bias' holds torch.complex64"),
            (state_with({"Analysis_0.bias": NANS}), "'Analysis_0.bias' holds NaN or infinity"),
            (
                state_with({"synthesis.bias": NANS, "Synthesis.bias": NANS}),
                "'synthesis.bias' holds NaN or infinity",
            ),
            (
                state_with({"synthesis.bias": torch.ones(3)}),
                "'synthesis.bias' and 'Synthesis.bias' are two names of one",
            ),
            (state_with({"Analysis_0.bias": torch.ones(3).to_sparse()}), "'Analysis_0.bias' is not a plain array"),
            (state_with({"Analysis_0.bias": torch.ones(1).expand(10**12)}), "'Analysis_0.bias' is not a plain array"),
            (state_with({"Analysis_0.bias": torch.ones(3, device="meta")}), "'Analysis_0.bias' is not a plain array"),
        ],
    )
    def test_each_that_is_wrong_is_named(self, state: State, message: str, tmp_path: Path) -> None:
        torch.save(state, tmp_path / "a.pth")
        with pytest.raises(ModelError, match=rf"a\.pth: .*{message}"):
            load_model(tmp_path / "a.pth")

    def test_a_member_of_an_ensemble_that_is_missing_is_named(self, tmp_path: Path) -> None:
        state = published_state_dict(Ensemble([SMALL, SMALL, SMALL]))
        torch.save({name: state[name] for name in state if not name.startswith("model1.")}, tmp_path / "a.pth")
        with pytest.raises(ModelError, match=r"a\.pth: misses the tensor 'model1\..*' and \d+ more"):
            load_model(tmp_path / "a.pth")


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


class TestSafety:
    """Promise 11."""

    @pytest.mark.parametrize("new", [True, False], ids=["zip", "pickle"])
    def test_code_in_a_file_is_refused_and_does_not_run(self, new: bool, tmp_path: Path) -> None:
        target = tmp_path / "executed"
        torch.save(state_with({}) | {"a": Attack(target)}, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        with pytest.raises(ModelError, match=r"a\.pth: refers to \w+\.mkdir and was not loaded, because it could run"):
            load_model(tmp_path / "a.pth")
        assert not target.exists()
        torch.load(tmp_path / "a.pth", weights_only=False)
        assert target.exists()  # the attack is a real one

    def test_a_plain_pickle_is_refused_and_does_not_run(self, tmp_path: Path) -> None:
        (tmp_path / "a.pth").write_bytes(pickle.dumps(Attack(tmp_path / "executed"), protocol=2))
        with pytest.raises(ModelError, match=r"a\.pth: .* was not loaded, because it could run code"):
            load_model(tmp_path / "a.pth")
        assert not (tmp_path / "executed").exists()

    def test_a_whole_pickled_network_is_refused(self, tmp_path: Path) -> None:
        torch.save(a_network(SMALL), tmp_path / "a.pth")
        with pytest.raises(
            ModelError, match=r"refers to napari_mgbpv2\.model\.network\.MGBPv2 and .* plain state dict"
        ):
            load_model(tmp_path / "a.pth")


def deflated(state: Any, **entry: Any) -> bytes:
    """Return a model's archive, compressed, with other numbers in the directory entries."""
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(state, plain)
    with zipfile.ZipFile(plain) as model, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in model.namelist():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.extra = entry.get("extra", b"")
            archive.writestr(info, model.read(name))
    content = bytearray(packed.getvalue())
    if "version" in entry:
        place = content.find(b"PK\1\2")
        while place >= 0:
            content[place + 6 : place + 8] = struct.pack("<H", entry["version"])
            place = content.find(b"PK\1\2", place + 1)
    return bytes(content)


class TestBombs:
    """Small files that claim much: refused before anything of it is made."""

    @pytest.fixture(autouse=True)
    def nothing_large(self) -> Iterator[None]:
        """Fail where a test takes more than half a gigabyte."""
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024

    @pytest.fixture
    def not_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fail where torch gets at the file."""
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has loaded it"))

    @pytest.mark.usefixtures("not_loaded")
    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({}, "would unpack to"),
            ({"version": 99}, "is not a complete model file"),
            ({"extra": b"\x01\x00\x02\x00ab"}, "is not a complete model file|would unpack to"),
        ],
        ids=["plain", "a version that Python does not read", "an extra field that it does not read"],
    )
    def test_an_archive_that_unpacks_to_more_is_refused(
        self, entry: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        content = deflated({"a": torch.zeros(2_000_000)}, **entry)
        assert len(content) < 100_000
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(ModelError, match=rf"a\.pth: ({message})"):
            load_model(tmp_path / "a.pth")

    @pytest.mark.usefixtures("not_loaded")
    @pytest.mark.parametrize("where", ["before", "behind", "comment"])
    def test_an_archive_in_another_file_is_refused(self, where: str, tmp_path: Path) -> None:
        """Python's reader and torch's might find two directories."""
        plain = io.BytesIO()
        torch.save(state_with({}), plain)
        content = plain.getvalue()
        if where == "before":
            content = content[:200] + content
        else:
            content += content if where == "behind" else b"a"
        if where == "behind":
            content = content[:-22] + content[-22:-6] + struct.pack("<I", 7) + b"\0\0"
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(ModelError, match=r"a\.pth: is not a complete model file"):
            load_model(tmp_path / "a.pth")

    @pytest.mark.parametrize("new", [True, False], ids=["zip", "pickle"])
    def test_a_long_description_of_tensors_is_refused(self, new: bool, tmp_path: Path) -> None:
        state = {f"{'a' * 100}{number}": [] for number in range(60_000)}
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        with pytest.raises(ModelError, match=r"a\.pth: describes its tensors in more than 4.* could fill the memory"):
            load_model(tmp_path / "a.pth")

    def test_tensors_that_are_one_piece_of_memory_are_refused(self, tmp_path: Path) -> None:
        one = torch.zeros(100_000)
        torch.save({f"a{number}": one for number in range(1000)}, tmp_path / "a.pth")
        with pytest.raises(ModelError, match=r"a\.pth: its tensors take 400.*MB.*not plain arrays"):
            load_model(tmp_path / "a.pth")

    def test_an_ensemble_of_very_many_is_refused(self, tmp_path: Path) -> None:
        torch.save({f"model{number}.a": torch.ones(1) for number in range(100)}, tmp_path / "a.pth")
        with pytest.raises(ModelError, match=r"a\.pth: holds 100 networks; an ensemble has at most 32"):
            load_model(tmp_path / "a.pth")

    @pytest.mark.parametrize(
        "changes",
        [
            {"cycles": 10**9},
            {"steps": 10**9},
            {"steps": 40, "features": [2] * 6},
            {"features": [2, 10**12]},
            {"features": [2] * 10**5},
            {"kernel": 10**9 + 1},
            {"channels": 10**9},
            {"noise_channels": 10**9},
            {"bias": "yes"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("read", [load_model, read_card])
    def test_numbers_beyond_any_network_are_refused(
        self, changes: dict[str, Any], read: Callable[[Path], object], tmp_path: Path
    ) -> None:
        description = json.dumps({"configs": [SMALL.to_dict() | changes]})
        save_file(a_network(SMALL).state_dict(), tmp_path / "a.safetensors", {"napari_mgbpv2": description})
        with pytest.raises(ModelError, match=r"a\.safetensors: its description of the network is damaged \(") as caught:
            read(tmp_path / "a.safetensors")
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize(
        "changes",
        [
            {"scale": 10**9},
            {"scale": 0},
            {"scale": -4},
            {"scale": True},
            {"guard": -1},
            {"guard": 10**12},
            {"scores": {"psnr": "high"}},
            {"scores": {"psnr": float("nan")}},
            {"scores": {"psnr": 10**400}},
        ],
        ids=str,
    )
    def test_so_are_facts_beyond_reason(self, changes: dict[str, Any], tmp_path: Path) -> None:
        description = json.dumps({"configs": [SMALL.to_dict()]} | changes)
        save_file(a_network(SMALL).state_dict(), tmp_path / "a.safetensors", {"napari_mgbpv2": description})
        with pytest.raises(ModelError, match=r"a\.safetensors: its description of the network is damaged \("):
            load_model(tmp_path / "a.safetensors")

    @pytest.mark.parametrize(
        "header",
        [
            b'{"a":' + b"[" * 3_000_000,
            b'{"a":{"dtype":"F32","shape":[' + b"9," * 100 + b'1],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F32","shape":[' + b"9" * 4000 + b'],"data_offsets":[0,4]}}',
        ],
        ids=["deep", "many axes", "a negative size", "a size beyond reason"],
    )
    def test_headers_beyond_reason_are_refused(self, header: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(ModelError, match=r"a\.safetensors: is not a complete \.safetensors file"):
            load_model(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("size", [200, 50_000_000])
    def test_a_header_that_is_longer_than_its_file_or_than_any_is_not_read(self, size: int, tmp_path: Path) -> None:
        with (tmp_path / "a.safetensors").open("wb") as file:
            file.write(size.to_bytes(8, "little") + b"{")
            file.truncate(100 if size < 1000 else size + 100)
        with pytest.raises(ModelError, match=r"a\.safetensors: is not a complete \.safetensors file"):
            read_card(tmp_path / "a.safetensors")

    def test_control_characters_of_a_card_do_not_reach_the_terminal(self, tmp_path: Path) -> None:
        path = save_model(a_network(SMALL), tmp_path / "a.safetensors", trained_on="cells\x1b[2J\nand more")
        assert read_card(path).trained_on == "cells [2J and more"


def problem_with(content: bytes | bytearray, folder: Path) -> str | None:
    """What loading these bytes says, None where they are a network after all."""
    (folder / "bytes").write_bytes(content)
    try:
        load_model(folder / "bytes")
    except ModelError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's word on bytes that are no pickle
class TestDamage:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"is not a complete \.safetensors file"),
            (b"These are the weights of my network.\n", r"is not a complete \.safetensors file"),
            (b"\x80", "is not a complete model file"),
            (b"PK\3\4", "is not a complete model file"),
            (pickle.dumps({"a": np.ones(3)}, protocol=2), r"refers to numpy\S+ and was not loaded"),
        ],
    )
    def test_a_file_of_something_else_is_an_error(self, content: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(content)
        with pytest.raises(ModelError, match=rf"a\.bin: {message}"):
            load_model(tmp_path / "a.bin")

    def test_so_is_a_zip_of_something_else(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("readme.txt", "hello")
        with pytest.raises(ModelError, match=r"a\.zip: is not a complete model file"):
            load_model(tmp_path / "a.zip")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"state_dict": state_with({})}, "its entry 'state_dict' is not a tensor; give a plain state dict"),
            (state_with({}) | {"epoch": 3}, "its entry 'epoch' is not a tensor"),
            ({0: torch.ones(3)}, "its entry 0 is not a tensor"),
            ([torch.ones(3)], "holds a list, not a state dict"),
            (torch.ones(3), "holds a Tensor, not a state dict"),
            ({}, "holds a dict, not a state dict"),
        ],
    )
    def test_so_are_tensors_otherwise_arranged(self, content: Any, message: str, tmp_path: Path) -> None:
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ModelError, match=rf"a\.pth: {message}"):
            load_model(tmp_path / "a.pth")

    @pytest.mark.parametrize("write", [write_ours, write_authors, write_old_torch])
    def test_so_is_a_file_that_was_cut_short_anywhere(
        self, write: Callable[[Network, Path], Path], tmp_path: Path
    ) -> None:
        content = write(a_network(SMALL), tmp_path).read_bytes()
        for length in (*range(40), *range(40, len(content), 97), len(content) - 1):
            (tmp_path / "cut").write_bytes(content[:length])
            with pytest.raises(ModelError, match="cut: "):
                load_model(tmp_path / "cut")

    @pytest.mark.parametrize(
        ("description", "message"),
        [
            ("{", r"its description of the network is damaged \(Expecting"),
            (json.dumps({"configs": [SMALL.to_dict()] * 2}), "describes 2 networks and holds 1"),
            (json.dumps({"configs": [SMALL.to_dict() | {"steps": 10**9}]}), "1000000000 back-projections"),
            (json.dumps({"configs": [SMALL.to_dict() | {"features": [3, 10**30]}]}), "features is 10+; it must"),
            (json.dumps({"configs": [SMALL.to_dict() | {"channels": 1}]}), "has shape .* instead of"),
        ],
    )
    def test_so_is_a_description_that_does_not_fit(self, description: str, message: str, tmp_path: Path) -> None:
        save_file(a_network(SMALL).state_dict(), tmp_path / "a.safetensors", {"napari_mgbpv2": description})
        with pytest.raises(ModelError, match=rf"a\.safetensors: .*({message})"):
            load_model(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("write", [write_ours, write_authors, write_old_torch])
    @settings(deadline=None, max_examples=60)
    @given(data=st.data())
    def test_flipped_bytes_give_a_network_or_a_clear_error(
        self, data: st.DataObject, write: Callable[[Network, Path], Path], folder: Path
    ) -> None:
        content = bytearray(written(write, folder))
        bytes_of_structure = st.integers(0, min(1500, len(content) - 1))
        places = st.one_of(bytes_of_structure, st.integers(0, len(content) - 1))
        for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
            content[place] = value
        problem = problem_with(content, folder)
        assert problem is None or "bytes: " in problem

    @settings(deadline=None, max_examples=60)
    @given(
        start=st.sampled_from([b"", b"\x80\x02", b"PK\3\4", b"\x10" + bytes(7) + b"{", b"\x02" + bytes(7) + b"{}"]),
        rest=st.binary(max_size=300),
    )
    def test_any_bytes_give_a_clear_error(self, start: bytes, rest: bytes, folder: Path) -> None:
        assert "bytes: " in (problem_with(start + rest, folder) or "")


def write_ours_to(path: Path, **options: Any) -> Path:
    return save_model(a_network(SMALL), path, **options)


def write_authors_to(path: Path, **options: Any) -> Path:
    return export_model(a_network(SMALL), path, **options)


@pytest.mark.parametrize("write", [write_ours_to, write_authors_to])
class TestWriting:
    def test_an_existing_file_is_not_overwritten(self, write: Callable[..., Path], tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        path.write_text("precious")
        with pytest.raises(ModelError, match=r"a\.safetensors: exists already; choose another name or ask to"):
            write(path)
        assert path.read_text() == "precious"
        assert list(tmp_path.iterdir()) == [path]

    def test_unless_that_is_asked_for(self, write: Callable[..., Path], tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        path.write_text("precious")
        assert write(path, overwrite=True) == path
        assert_same_tensors(load_model(path), a_network(SMALL))
        assert list(tmp_path.iterdir()) == [path]

    def test_a_folder_that_does_not_exist_is_an_error(self, write: Callable[..., Path], tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"a\.safetensors: cannot be written \(No such file or directory\)"):
            write(tmp_path / "nowhere" / "a.safetensors")

    def test_so_is_a_folder_in_the_place_of_the_file(self, write: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "a.safetensors").mkdir()
        with pytest.raises(ModelError, match=r"a\.safetensors: cannot be written"):
            write(tmp_path / "a.safetensors", overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]

    def test_a_full_disk_leaves_nothing_behind(
        self, write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ModelError, match=r"a\.safetensors: cannot be written \(No space left on device\)"):
            write(tmp_path / "a.safetensors")
        assert list(tmp_path.iterdir()) == []


class TestSaving:
    def test_our_files_have_one_ending(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"a\.pth: a model's file ends in \.safetensors"):
            save_model(a_network(SMALL), tmp_path / "a.pth")

    @pytest.mark.parametrize(("weight", "precision"), [(torch.nan, "float32"), (1e6, "float16")])
    def test_weights_that_would_not_load_again_are_not_written(
        self, weight: float, precision: Any, tmp_path: Path
    ) -> None:
        network = a_network(SMALL)
        torch.nn.init.constant_(network.get_parameter("Analysis_0.bias"), weight)
        with pytest.raises(ModelError, match=rf"'Analysis_0\.bias' is not finite in {precision} and was not written"):
            save_model(network, tmp_path / "a.safetensors", precision=precision)
        assert list(tmp_path.iterdir()) == []

    def test_others_read_the_tensors_under_their_names(self, tmp_path: Path) -> None:
        network = a_network(SMALL)
        tensors = load_file(save_model(network, tmp_path / "a.safetensors"))
        assert set(tensors) == set(network.state_dict())
