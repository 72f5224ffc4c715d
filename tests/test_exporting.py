"""Exports: what other programs read gives the pixels that the network gives, or is not written."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import napari_mgbpv2 as mgbp
from examples import TINY, a_network, an_image
from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.export import FORMS, UpscalingGraph, export
from napari_mgbpv2.export.checks import TOLERANCE, ExportedModel
from napari_mgbpv2.imaging.resampling import bicubic_resize
from napari_mgbpv2.model.checkpoints import export_model, load_model, save_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import Ensemble, Network, configurations, fold_channels
from napari_mgbpv2.model.zoo import find_model, list_models, read_card

SMALL = ModelConfig(features=(4, 3), steps=1)
GRAPHS = {"torch-export": "a.pt2", "torchscript": "a.pt", "onnx": "a.onnx"}


def an_ensemble(*kernels: int) -> Ensemble:
    ensemble = Ensemble([ModelConfig(features=(4, 3), kernel=kernel, steps=1) for kernel in kernels])
    for seed, member in enumerate(ensemble.children()):
        member.load_state_dict(a_network(ensemble.configs[seed], seed=seed).state_dict())
    ensemble.scale = 4
    return ensemble.eval().requires_grad_(False)


def inputs_of(network: Network, scale: int, *size: int, noise: float = 0.0, batch: int = 1) -> tuple[Tensor, ...]:
    return ExportedModel(network, scale, noise).inputs(*size, batch)


def upscaled(network: Network, scale: int, noise: float, image: Tensor, field: Tensor | None = None) -> Tensor:
    """What the network gives, by its own padding and cutting."""
    height, width = image.shape[-2:]
    return network(bicubic_resize(image, height * scale, width * scale), field, noise)


def runner(path: Path) -> Callable[..., Tensor]:
    """Open an exported graph as another program would."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    if path.suffix == ".pt":
        return torch.jit.load(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *given: torch.from_numpy(
        session.run(None, {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)})[0]
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of ours with a card."""
    return save_model(
        a_network(SMALL, scale=4, guard=8), tmp_path / "cells.safetensors", trained_on="cells", scores={"PSNR": 31.5}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where exports go."""
    (tmp_path / "exports").mkdir()
    return tmp_path / "exports"


class TestGraph:
    """The source image in, the upscaled image out: the same as bicubic upscaling and the network."""

    @settings(deadline=None, max_examples=40)
    @given(height=st.integers(1, 40), width=st.integers(1, 40), scale=st.sampled_from([1, 2, 3, 16]))
    def test_it_gives_what_the_network_gives_at_any_size(self, height: int, width: int, scale: int) -> None:
        network = a_network(SMALL)
        inputs = inputs_of(network, scale, height, width)
        torch.testing.assert_close(UpscalingGraph(network, scale)(*inputs), upscaled(network, scale, 0.0, *inputs))

    @pytest.mark.parametrize(
        "network",
        [
            an_ensemble(3, 5, 7),
            a_network(ModelConfig(features=(5, 4, 3, 3, 2), channels=1, noise_channels=0, bias=False)),
            fold_channels(a_network(TINY)),
            a_network(ModelConfig(features=(4, 3), cycles=3)),
            a_network(ModelConfig(features=(4, 3, 3), noise_channels=0, bias=False, residual=True, border_multiple=4)),
        ],
        ids=["ensemble", "five levels, one channel", "folded", "cycles", "residual"],
    )
    def test_so_it_does_for_every_kind_of_network(self, network: Network) -> None:
        inputs = inputs_of(network, 4, 13, 10, batch=2)
        torch.testing.assert_close(UpscalingGraph(network, 4)(*inputs), upscaled(network, 4, 0.0, *inputs))

    def test_noise_is_a_second_input(self) -> None:
        network = a_network(TINY)
        inputs = inputs_of(network, 4, 13, 10, noise=0.7)
        result = UpscalingGraph(network, 4, 0.7)(*inputs)
        torch.testing.assert_close(result, upscaled(network, 4, 0.7, *inputs))
        assert not torch.allclose(result, upscaled(network, 4, 0.0, *inputs), atol=1e-3)

    @pytest.mark.parametrize("network", [an_ensemble(3), a_network(ModelConfig(features=(4, 3), noise_channels=0))])
    def test_a_network_without_noise_input_takes_none(self, network: Network) -> None:
        with pytest.raises(ModelError, match="has no noise input; export it with noise 0"):
            UpscalingGraph(network, 4, 1.0)

    def test_it_gives_what_upscale_gives(self) -> None:
        image = an_image(20, 31, 3, dtype="f4")
        graph = UpscalingGraph(load_model("x4"), 4)
        result = graph(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        np.testing.assert_allclose(result, mgbp.upscale(image, model="x4").compute(), atol=1e-5)


class TestGraphFiles:
    """torch.export, TorchScript and ONNX, opened without this package."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("network", "scale", "noise"),
        [
            (a_network(SMALL), 2, 0.0),
            (a_network(SMALL), 3, 0.5),
            (an_ensemble(3, 5), 4, 0.0),
            (a_network(ModelConfig(features=(3, 3, 2), channels=1, cycles=2)), 16, 0.0),
        ],
        ids=["network", "with noise", "ensemble", "one channel, x16"],
    )
    @pytest.mark.parametrize("form", GRAPHS)
    def test_any_size_and_batch_gives_what_the_network_gives(
        self, form: str, network: Network, scale: int, noise: float, folder: Path, tmp_path: Path
    ) -> None:
        source = save_model(network, tmp_path / "a.safetensors", scale=scale)
        run = runner(export(source, folder / GRAPHS[form], noise=noise))
        for batch, size in ((1, (1, 1)), (3, (17, 5)), (1, (23, 40))):
            inputs = inputs_of(network, scale, *size, noise=noise, batch=batch)
            torch.testing.assert_close(
                run(*inputs), upscaled(network, scale, noise, *inputs), rtol=TOLERANCE, atol=TOLERANCE
            )

    @pytest.mark.slow
    @pytest.mark.parametrize("form", GRAPHS)
    def test_a_packaged_model_gives_what_upscale_gives(self, form: str, folder: Path) -> None:
        run = runner(export("x4", folder / GRAPHS[form]))
        image = an_image(33, 26, 3, dtype="f4")
        result = run(torch.from_numpy(image).permute(2, 0, 1)[None].contiguous())[0].permute(1, 2, 0)
        np.testing.assert_allclose(result, mgbp.upscale(image, model="x4").compute(), atol=TOLERANCE)

    @pytest.mark.parametrize("form", GRAPHS)
    def test_grey_gives_what_equal_channels_give(self, form: str, model: Path, folder: Path) -> None:
        run = runner(export(model, folder / GRAPHS[form], grey=True))
        grey = torch.rand(1, 1, 12, 15)
        expected = upscaled(load_model(model), 4, 0.0, grey.expand(-1, 3, -1, -1)).mean(dim=1, keepdim=True)
        torch.testing.assert_close(run(grey), expected, rtol=TOLERANCE, atol=TOLERANCE)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("form", "code"),
        [
            ("torch-export", "import torch; run = torch.export.load({path!r}).module()"),
            ("torchscript", "import torch; run = torch.jit.load({path!r})"),
            (
                "onnx",
                "import numpy, onnxruntime; s = onnxruntime.InferenceSession({path!r})\n"
                "run = lambda x: s.run(None, dict(image=x))[0]",
            ),
        ],
    )
    def test_this_package_is_not_needed(self, form: str, code: str, model: Path, folder: Path) -> None:
        path = str(export(model, folder / GRAPHS[form]))
        zeros = "numpy.zeros((1, 3, 5, 6), 'f4')" if form == "onnx" else "torch.zeros(1, 3, 5, 6)"
        program = (
            f"import sys\n{code.format(path=path)}\n"
            f"assert tuple(run({zeros}).shape) == (1, 3, 20, 24)\nassert 'napari_mgbpv2' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    @pytest.mark.parametrize("form", GRAPHS)
    def test_a_file_that_gives_other_pixels_is_not_kept(
        self, form: str, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = ExportedModel.expected
        monkeypatch.setattr(ExportedModel, "expected", lambda *given: right(*given) + 3 * TOLERANCE)
        with pytest.raises(ModelError, match=r"of cells gives other pixels than the network, by 3\.0e-04 on an image"):
            export(model, folder / GRAPHS[form])
        assert list(folder.iterdir()) == []

    def test_torchscript_follows_the_device_of_its_input(self, model: Path, folder: Path) -> None:
        graph = str(torch.jit.load(export(model, folder / "a.pt")).inlined_graph)
        assert "prim::device" in graph
        assert 'value="cpu"' not in graph

    def test_an_onnx_file_names_its_inputs_axes_and_origin(self, model: Path, folder: Path) -> None:
        written = onnx.load(export(model, folder / "a.onnx"))
        (image,), (output,) = written.graph.input, written.graph.output
        axes = [each.dim_param or each.dim_value for each in image.type.tensor_type.shape.dim]
        assert (image.name, axes, output.name) == ("image", ["batch", 3, "height", "width"], "upscaled")
        told = {each.key: each.value for each in written.metadata_props}
        assert told == {"model": "cells", "scale": "4", "trained_on": "cells"}

    def test_an_onnx_file_is_one_file(self, model: Path, folder: Path) -> None:
        export(model, folder / "a.onnx")
        assert [path.name for path in folder.iterdir()] == ["a.onnx"]


class TestWeightsAlone:
    def test_safetensors_keep_weights_and_card(self, model: Path, folder: Path) -> None:
        written = export(model, folder / "copy.safetensors")
        first, second = load_model(model), load_model(written)
        assert configurations(first) == configurations(second)
        assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
        card = read_card(written)
        assert (card.scale, card.guard, card.trained_on, card.scores) == (4, 8, "cells", {"PSNR": 31.5})

    def test_float16_halves_them(self, folder: Path, tmp_path: Path) -> None:
        source = save_model(a_network(ModelConfig(features=(30, 20))), tmp_path / "a.safetensors")
        half = export(source, folder / "half.safetensors", precision="float16")
        assert half.stat().st_size < 0.6 * source.stat().st_size

    def test_the_authors_form_loads_back_equal(self, model: Path, folder: Path) -> None:
        written = export(model, folder / "a.model")
        state = torch.load(written, weights_only=True)
        assert torch.equal(state["synthesis.weight"], state["Synthesis.weight"])
        loaded = load_model(written)
        assert all(
            torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in load_model(model).state_dict().items()
        )

    def test_the_authors_files_become_ours_with_a_scale(self, tmp_path: Path, folder: Path) -> None:
        source = export_model(an_ensemble(3, 5), tmp_path / "a.model")
        written = load_model(export(source, folder / "a.safetensors", scale=16))
        assert (written.scale, len(configurations(written))) == (16, 2)

    def test_grey_is_the_folded_network(self, model: Path, folder: Path) -> None:
        written = load_model(export(model, folder / "grey.safetensors", grey=True))
        assert configurations(written)[0].channels == 1
        folded = fold_channels(load_model(model)).state_dict()
        assert all(torch.equal(tensor, folded[name]) for name, tensor in written.state_dict().items())
        image = an_image(9, 12)
        results = [mgbp.upscale(image, model=path).compute() for path in (folder / "grey.safetensors", model)]
        assert np.array_equal(*results)


class TestFolding:
    """What `--grey` writes, and what a single channel goes through."""

    @pytest.mark.parametrize("name", [card.name for card in list_models() if card.channels == 3])
    def test_a_packaged_model_folds_to_the_mean_of_equal_channels(self, name: str) -> None:
        network = load_model(name)
        grey = torch.rand(2, 1, 61, 70, generator=torch.Generator().manual_seed(0))
        repeated = network(grey.expand(-1, 3, -1, -1)).mean(dim=1, keepdim=True)
        torch.testing.assert_close(fold_channels(network)(grey), repeated, rtol=0, atol=1e-5)


class TestRefusals:
    @pytest.mark.parametrize(
        ("destination", "options", "message"),
        [
            (
                "a.h5",
                {},
                r"a\.h5: its ending says no form; use one of \.safetensors \(safetensors\), \.model \(authors\)",
            ),
            (
                "a.onnx",
                {"form": "keras"},
                "no form 'keras'; choose one of safetensors, authors, torch-export, torchscript",
            ),
            ("a.pt", {"form": "onnx"}, r"a\.pt: files of the form onnx end in \.onnx"),
            ("a.safetensors", {"noise": 1.0}, "the form safetensors holds weights alone"),
            ("a.onnx", {"precision": "float16"}, "the form onnx holds float32; float16 is for safetensors"),
            ("nowhere/a.model", {}, r"nowhere/a\.model: cannot be written"),
            ("nowhere/a.pt", {}, r"nowhere/a\.pt: cannot be written"),
        ],
    )
    def test_what_does_not_go_together_is_an_error(
        self, destination: str, options: dict[str, Any], message: str, model: Path, folder: Path
    ) -> None:
        with pytest.raises(ModelError, match=message):
            export(model, folder / destination, **options)
        assert list(folder.iterdir()) == []

    def test_a_model_that_does_not_say_its_scale_needs_one(self, tmp_path: Path, folder: Path) -> None:
        source = export_model(a_network(SMALL), tmp_path / "a.model")
        with pytest.raises(ModelError, match=r"a\.model: does not say its scale; give one"):
            export(source, folder / "a.pt")
        assert runner(export(source, folder / "a.pt", scale=2))(torch.zeros(1, 3, 4, 5)).shape == (1, 3, 8, 10)

    @pytest.mark.parametrize("name", ["a.safetensors", "a.model", "a.pt2", "a.pt", "a.onnx", "a.zip"])
    def test_nothing_is_overwritten_unasked(self, name: str, model: Path, folder: Path) -> None:
        (folder / name).write_bytes(b"mine")
        with pytest.raises(ModelError, match=f"{name}: exists already"):
            export(model, folder / name)
        assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(name, b"mine")]

    @pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
    def test_but_when_asked(self, name: str, model: Path, folder: Path) -> None:
        (folder / name).write_bytes(b"mine")
        assert export(model, folder / name, overwrite=True).stat().st_size > 1000

    @pytest.mark.parametrize(
        ("name", "package", "extra"), [("a.onnx", "onnxscript", "export"), ("a.zip", "bioimageio.core", "bioimageio")]
    )
    def test_a_missing_package_is_an_error_that_names_the_extra(
        self, name: str, package: str, extra: str, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ModelError, match=rf'pip install "napari-mgbpv2\[{extra}\]"'):
            export(model, folder / name)
        assert list(folder.iterdir()) == []

    def test_every_form_has_an_ending_of_its_own(self) -> None:
        endings = [ending for endings in FORMS.values() for ending in endings]
        assert len(set(endings)) == len(endings)


def bioimageio_works() -> bool:
    """Whether the installed packages go together: bioimageio.spec 0.5.12 does not with pydantic 2.14."""
    try:
        return bool(version("bioimageio.core")) and tuple(map(int, version("pydantic").split(".")[:2])) < (2, 14)
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def zoo_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the BioImage Model Zoo."""
    source = tmp_path_factory.mktemp("model") / "cells 2.safetensors"
    save_model(a_network(TINY, scale=4, guard=24), source, trained_on="cells", scores={"PSNR": 31.5})
    return export(source, source.with_name("cells.zip"), authors=["A. Name"], licence="CC-BY-4.0")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # bioimageio leaves files open
@pytest.mark.skipif(not bioimageio_works(), reason="needs the extra bioimageio: bioimageio.core, and pydantic < 2.14")
class TestBioImageModelZoo:
    def test_it_holds_weights_description_and_test(self, zoo_package: Path) -> None:
        names = zipfile.ZipFile(zoo_package).namelist()
        assert sorted(names) == [
            "README.md",
            "rdf.yaml",
            "test_input.npy",
            "test_output.npy",
            "weights.onnx",
            "weights.pt",
        ]

    def test_the_specification_accepts_its_description(self, zoo_package: Path) -> None:
        from bioimageio.spec import load_model_description

        description = load_model_description(zoo_package)
        assert description.validation_summary.status in ("valid-format", "passed")
        assert (description.name, description.license) == ("MGBPv2 cells-2", "CC-BY-4.0")
        assert [author.name for author in description.authors] == ["A. Name"]
        readme = zipfile.ZipFile(zoo_package).read("README.md").decode()
        assert "Trained on: cells." in readme
        assert "- PSNR: 31.5" in readme
        assert "overlap by 12 px" in readme  # two guards of 24 px at x4

    @pytest.mark.parametrize("weights", ["onnx", "torchscript"])
    def test_bioimageio_core_gives_what_the_network_gives(self, weights: str, zoo_package: Path) -> None:
        from bioimageio.core import create_prediction_pipeline
        from bioimageio.core.digest_spec import create_sample_for_model
        from bioimageio.spec import load_model_description

        description = load_model_description(zoo_package)
        image = torch.rand(2, 3, 19, 24)
        sample = create_sample_for_model(description, inputs={"image": image.numpy()})
        with create_prediction_pipeline(description, weights_format=weights, devices=["cpu"]) as pipeline:
            result = pipeline.predict_sample_without_blocking(sample).members["upscaled"].data.values
        expected = upscaled(load_model(zoo_package.with_name("cells 2.safetensors")), 4, 0.0, image)
        np.testing.assert_allclose(result, expected, rtol=TOLERANCE, atol=TOLERANCE)

    @pytest.mark.parametrize("weights", ["onnx", "torchscript"])
    def test_bioimageio_core_reproduces_its_test_output(self, weights: str, zoo_package: Path) -> None:
        from bioimageio.core import test_model

        assert test_model(zoo_package, weight_format=weights, devices=["cpu"]).status == "passed"

    def test_a_test_output_that_is_not_reproduced_is_not_kept(
        self, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = np.save
        monkeypatch.setattr("numpy.save", lambda path, array: right(path, array + ("output" in path.name)))
        with pytest.raises(ModelError, match=r"bioimageio\.core cannot use the package of cells"):
            export(model, folder / "a.zip")
        assert list(folder.iterdir()) == []

    def test_an_unknown_licence_is_an_error(self, model: Path, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"does not accept the package of cells: .*licen[sc]e"):
            export(model, folder / "a.zip", licence="mine alone")
        assert list(folder.iterdir()) == []

    def test_noise_is_an_error(self, model: Path, folder: Path) -> None:
        with pytest.raises(ModelError, match="takes the image alone: export it with noise 0"):
            export(model, folder / "a.zip", noise=1.0)

    def test_a_packaged_model_has_our_licence(self, folder: Path) -> None:
        from bioimageio.spec import load_model_description

        description = load_model_description(export("x4", folder / "x4.zip"))
        assert (description.name, description.license) == ("MGBPv2 x4", "BSD-3-Clause")
        assert find_model("x4").trained_on in zipfile.ZipFile(folder / "x4.zip").read("README.md").decode()


@pytest.mark.skipif(bioimageio_works(), reason="the packages go together here")
def test_packages_that_do_not_go_together_are_an_error_that_says_what_to_do(model: Path, folder: Path) -> None:
    pytest.importorskip("bioimageio.core")
    with pytest.raises(ModelError, match=r'does not go with that of pydantic; `pip install "pydantic<2\.14"`'):
        export(model, folder / "a.zip")
    assert list(folder.iterdir()) == []
