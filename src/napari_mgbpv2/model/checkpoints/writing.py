"""Write model files of this package, and state dicts for the authors' code."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.network import MGBPv2, Network, configurations
from napari_mgbpv2.paths import atomic_file


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
    """Write a network and its metadata to a ``.safetensors`` file atomically.

    Parameters
    ----------
    network
        The network.
    path
        The file, ending in ``.safetensors``.
    scale
        Upscaling factor that the network was trained for; by default its own ``scale``.
    guard
        Target pixels at a tile's border that its border affects; by default its own ``guard``.
    trained_on
        Description of the training data, for the model's card.
    scores
        Scores by name, for the model's card.
    training
        Options of the training, for the model's card.
    precision
        Type of the stored weights; float16 halves the file.
    overwrite
        Whether to replace an existing file.

    Raises
    ------
    ModelError
        The file exists already or cannot be written, its name has another suffix, or a weight is not finite in the
        precision.
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
    content = save(
        _rounded_state(network, path, precision), {"napari_mgbpv2": json.dumps(description, allow_nan=False)}
    )
    with atomic_model_file(path, overwrite=overwrite) as partial:
        partial.write_bytes(content)
    return path


def _rounded_state(network: Network, path: Path, precision: str) -> dict[str, Tensor]:
    """Return the tensors of a network in a precision. Raise `ModelError` for values that are not finite in it."""
    dtype = torch.float16 if precision == "float16" else torch.float32
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in network.state_dict().items()}
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: {name!r} is not finite in {precision} and was not written.")
    return state


def export_model(network: Network, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a plain state dict for the authors' code, with its keys in its order.

    Raises
    ------
    ModelError
        The file exists already or cannot be written, or the authors' code does not support the network.
    """
    path, content = Path(path), io.BytesIO()
    if any(config.residual for config in configurations(network)):
        raise ModelError(
            f"{path}: the authors' code does not support residual networks; "
            "export it to ONNX, TorchScript or bioimage.io instead."
        )
    torch.save({name: tensor.cpu() for name, tensor in published_state_dict(network).items()}, content)
    with atomic_model_file(path, overwrite=overwrite) as partial:
        partial.write_bytes(content.getvalue())
    return path


def published_state_dict(network: Network) -> dict[str, Tensor]:
    """Return the tensors of a network by the names in the authors' code, the synthesis twice."""
    state: dict[str, Tensor] = {}
    members = [network] if isinstance(network, MGBPv2) else list(network.children())
    for index, member in enumerate(members):
        prefix = "" if isinstance(network, MGBPv2) else f"model{index}."
        tensors = {name: tensor.detach() for name, tensor in member.state_dict().items()}
        aliases = {name.lower(): tensor for name, tensor in tensors.items() if name.lower().startswith("synthesis.")}
        state |= {prefix + name: tensor for name, tensor in (aliases | tensors).items()}
    return state


@contextmanager
def atomic_model_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary file, and rename it to ``path`` if the block ends without an error.

    Raises
    ------
    ModelError
        The file exists already or cannot be written.
    """
    try:
        with atomic_file(path, overwrite=overwrite) as partial:
            yield partial
    except FileExistsError:
        raise ModelError(f"{path}: exists already; choose another name or ask to overwrite it.") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror}).") from error
