"""Model files and networks: reading ours and the authors', finding the configuration, writing both kinds.

A file's tensors alone say which network they are; its name says nothing. Nothing in a file is ever executed: the
authors' files are pickles, and are read by torch's loader for weights only.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from napari_mgbpv2.config import MAXIMUM_LEVELS, ModelConfig
from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model_zoo import description_of, find_model, read_header
from napari_mgbpv2.network import Ensemble, MGBPv2, Network, configurations

State = dict[str, Tensor]

_PICKLE_OR_ZIP = (b"\x80", b"PK\3\4")  # how torch's files begin, old and new
_ALIAS = "synthesis"  # the authors' files hold the synthesis twice: under this name, too


def load_model(source: str | os.PathLike[str], *, scale: int | None = None, cycles: int | None = None) -> Network:
    """Load a network, ready for use on the CPU.

    Parameters
    ----------
    source
        The name of a packaged model, a ``.safetensors`` file, or one of the authors' files (``.model``, ``.pth``:
        a state dict of one network or of the fidelity ensemble).
    scale
        Upscaling factor that it was trained for, for files that do not say; 16 for the published ones.
    cycles
        Outer cycles nu, for files that do not say: the weights are shared between cycles and tell nothing of their
        number. 1 by default.

    Returns
    -------
    MGBPv2 or Ensemble
        In evaluation mode, float32, without gradients; its ``scale`` and ``guard`` are set where known.

    Raises
    ------
    ModelError
        There is no such model or file, the file is damaged or none of a model, holds code, or has missing, unknown,
        misshapen or non-finite tensors; the message names the first of them.
    """
    path = locate(source)
    description: dict[str, Any] = {}
    if _is_torch_file(path):
        state = _read_torch_file(path)
    else:
        header = read_header(path)
        description = description_of(path, header) or {}
        try:
            state = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path}: is not a complete .safetensors file ({error}); save it again.") from error
    network = _build(path, state, description, cycles)
    network.scale = scale or description.get("scale")
    network.guard = description.get("guard")
    return network.eval().requires_grad_(False)


def locate(source: str | os.PathLike[str]) -> Path:
    """Find the file of a packaged model or of a path.

    Raises
    ------
    ModelError
        There is none.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.exists():
        raise ModelError(f"{path}: is not a file; give a model's file or the name of a packaged model.")
    if isinstance(source, str) and not path.suffix and path.name == source:
        return find_model(source).path
    raise ModelError(f"{path}: there is no such file; give a model's file or the name of a packaged model.")


def save_model(
    network: Network,
    path: str | os.PathLike[str],
    *,
    scale: int | None = None,
    guard: int | None = None,
    trained_on: str = "",
    scores: Mapping[str, float] | None = None,
    training: Mapping[str, Any] | None = None,
    precision: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
) -> Path:
    """Write a network and what is known of it into a ``.safetensors`` file, all at once or not at all.

    Parameters
    ----------
    network
        What to write.
    path
        The file, ending in ``.safetensors``.
    scale, guard
        As `MGBPv2` has them; by default what the network itself says.
    trained_on, scores, training
        For the model's card.
    precision
        Type of the stored weights; float16 halves the file.
    overwrite
        Whether a file of that name may be replaced.

    Raises
    ------
    ModelError
        The file exists already or cannot be written, or its name ends otherwise.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: a model's file ends in .safetensors.")
    description = {
        "configs": [config.to_dict() for config in configurations(network)],
        "scale": scale or network.scale,
        "guard": network.guard if guard is None else guard,
        "trained_on": trained_on,
        "scores": dict(scores or {}),
        "training": dict(training or {}),
    }
    dtype = torch.float16 if precision == "float16" else torch.float32
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in network.state_dict().items()}
    content = serialise(state, {"napari_mgbpv2": json.dumps(description, allow_nan=False)})
    return _write_whole(path, content, overwrite)


def export_model(network: Network, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a network as the authors' code reads it: a plain state dict with their keys in their order.

    Raises
    ------
    ModelError
        The file exists already or cannot be written.
    """
    content = io.BytesIO()
    torch.save(published_state_dict(network), content)
    return _write_whole(Path(path), content.getvalue(), overwrite)


def published_state_dict(network: Network) -> State:
    """Tensors of a network under the names that the authors' code gives them, the synthesis twice."""
    state: State = {}
    members = [network] if isinstance(network, MGBPv2) else list(network.children())
    for index, member in enumerate(members):
        prefix = "" if isinstance(network, MGBPv2) else f"model{index}."
        tensors = {name: tensor.detach() for name, tensor in member.state_dict().items()}
        aliases = {name.lower(): tensor for name, tensor in tensors.items() if name.lower().startswith(f"{_ALIAS}.")}
        state |= {prefix + name: tensor for name, tensor in (aliases | tensors).items()}
    return state


def configuration_of(shapes: Mapping[str, tuple[int, ...]], *, cycles: int = 1) -> ModelConfig:
    """Find the configuration of one network from the names and shapes of its tensors.

    Raises
    ------
    ModelError
        A tensor that every network has is missing or has an impossible shape.
    """
    levels = 0
    while levels < MAXIMUM_LEVELS and f"Analysis_{levels}.weight" in shapes:
        levels += 1
    labels = [match[1] for name in shapes if (match := re.fullmatch(r"Downscale_(\d+(?:-\d+)+)\.weight", name))]
    steps = 1 + max((int(count) for label in labels for count in label.split("-")[1:]), default=0)
    first = f"Downscale_{'-'.join(map(str, [max(levels, 2) - 1] + [0] * (max(levels, 2) - 1)))}.weight"
    for needed in ("Analysis_0.weight", "Analysis_1.weight", first):
        if len(shapes.get(needed, ())) != 4:
            raise ModelError(f"is not an MGBPv2 network: it has no tensor {needed!r} of four dimensions.")
    noise = shapes.get("AnalysisN_0.weight", (0,))
    return ModelConfig(
        features=tuple(shapes[f"Analysis_{level}.weight"][0] for level in range(levels)),
        steps=steps,
        cycles=cycles,
        kernel=shapes[first][2],
        channels=shapes["Analysis_0.weight"][1],
        noise_channels=noise[0],
        bias="Analysis_0.bias" in shapes,
    )


def _is_torch_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(_PICKLE_OR_ZIP)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error


def _read_torch_file(path: Path) -> State:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"refers to {found[1]}" if found else "holds something else than tensors"
        raise ModelError(
            f"{path}: {what} and was not loaded, because it could run code; give a plain state dict."
        ) from error
    except Exception as error:  # a damaged archive shows as errors of many classes
        raise ModelError(f"{path}: is not a complete model file; download or save it again.") from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelError(f"{path}: holds a {type(loaded).__name__}, not a state dict of tensors.")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"{path}: its entry {name!r} is not a tensor; give a plain state dict.")
    return dict(loaded)


def _build(path: Path, state: State, description: Mapping[str, Any], cycles: int | None) -> Network:
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.is_sparse:
            raise ModelError(f"{path}: its tensor {name!r} holds {tensor.dtype}, not floating-point numbers.")
    state = _without_aliases(path, state)
    members = sorted({match[1] for name in state if (match := re.match(r"model(\d+)\.", name))}, key=int)
    try:
        if described := description.get("configs"):
            configs = [ModelConfig.from_dict(config | {"cycles": cycles or config["cycles"]}) for config in described]
        else:
            parts = [_shapes(state, f"model{member}.") for member in members] or [_shapes(state, "")]
            configs = [configuration_of(shapes, cycles=cycles or 1) for shapes in parts]
        with torch.device("meta"):  # shapes only: the weights of the file take their place
            network: Network = Ensemble(configs) if members else MGBPv2(configs[0])
    except (ModelError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: {error}") from error
    _check_tensors(path, state, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    float32 = {name: tensor.to(torch.float32).contiguous() for name, tensor in state.items()}
    for name, tensor in float32.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: its tensor {name!r} holds NaN or infinity; train or download it again.")
    network.load_state_dict(float32, assign=True)
    return network


def _without_aliases(path: Path, state: State) -> State:
    """Leave out the second name of the synthesis, or take it where the first is missing."""
    result = dict(state)
    for name, tensor in state.items():
        match = re.fullmatch(rf"((?:model\d+\.)?){_ALIAS}(\w+)", name)
        if match is None:
            continue
        del result[name]
        first = f"{match[1]}Synthesis.{match[2]}"
        if not torch.equal(result.setdefault(first, tensor), tensor):
            raise ModelError(f"{path}: its tensors {name!r} and {first!r} are two names of one and differ.")
    return result


def _shapes(state: State, prefix: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): tuple(each.shape) for name, each in state.items() if name.startswith(prefix)}


def _check_tensors(path: Path, state: State, expected: Mapping[str, tuple[int, ...]]) -> None:
    for problem, names in (
        ("misses the tensor", [name for name in expected if name not in state]),
        ("has an unknown tensor", [name for name in state if name not in expected]),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelError(f"{path}: {problem} {names[0]!r}{more}; it is not a complete MGBPv2 network.")
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise ModelError(f"{path}: its tensor {name!r} has shape {tuple(state[name].shape)} instead of {shape}.")


def _write_whole(path: Path, content: bytes, overwrite: bool) -> Path:
    """Write a file under another name and give it its own when it is complete."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if not overwrite and os.path.lexists(path):
                raise FileExistsError
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except FileExistsError:
        raise ModelError(f"{path}: exists already; choose another name or ask to overwrite it.") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror}).") from error
    return path
