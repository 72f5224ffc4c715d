"""Read model files of this package and of the authors, and infer the configuration of a network from its tensors."""

from __future__ import annotations

import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from napari_mgbpv2.addresses import expand_path
from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.formatting import format_bytes
from napari_mgbpv2.model.config import MAXIMUM_LEVELS, ModelConfig
from napari_mgbpv2.model.network import Ensemble, MGBPv2, Network
from napari_mgbpv2.model.zoo import (
    PUBLISHED,
    find_model,
    find_published_by_path,
    parse_description,
    read_header,
    verify_published_file,
)

State = dict[str, Tensor]

_PICKLE_OR_ZIP = (b"\x80", b"PK\3\4")  # first bytes of torch's files, old and new format
_END = struct.Struct("<4s4HIIH")  # end record of a zip archive without a comment, as torch writes it
_ZIP64_END, _ZIP64_LOCATOR = struct.Struct("<4sQHHIIQQQQ"), struct.Struct("<4sIQI")
_LARGEST_PICKLE = 4_000_000  # bytes; unpickled it takes up to 60 times as much, and a network has some hundred tensors
_MOST_MEMBERS = 32  # of an ensemble
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_model(source: str | os.PathLike[str], *, scale: int | None = None, cycles: int | None = None) -> Network:
    """Load a network, ready for use on the CPU.

    Parameters
    ----------
    source
        The name of a packaged model or of a published one that has been downloaded, a ``.safetensors`` file, or one of
        the authors' files (``.model``, ``.pth``: a state dict of one network or of the fidelity ensemble).
    scale
        Upscaling factor that the model was trained for, for files that do not state it. 16 for the authors' files.
    cycles
        Outer cycles nu, for files that do not state them: the weights are shared between cycles, and do not determine
        their number. 1 by default.

    Returns
    -------
    MGBPv2 or Ensemble
        In evaluation mode, float32, without gradients. Its ``scale`` and ``guard`` are set if known.

    Raises
    ------
    ModelError
        The model or file does not exist; the file is damaged, is not a model, or contains code; or tensors are
        missing, unknown, misshapen or not finite. The message names the first such tensor.
    """
    # Each thread that calls torch keeps a team of OpenMP threads, which would compete with the caller's for processors.
    # The team of this thread ends with it.
    with ThreadPoolExecutor(1, thread_name_prefix="mgbpv2-load") as thread:
        return thread.submit(_load, source, scale, cycles).result()


def _load(source: str | os.PathLike[str], scale: int | None, cycles: int | None) -> Network:
    path = find_model_file(source)
    description: dict[str, Any] = {}
    if is_torch_file(path):
        published = find_published_by_path(path)
        description = {"scale": published.scale} if published else {}
        state = read_torch_file(path)
    else:
        header = read_header(path)
        description = parse_description(path, header) or {}
        try:
            state = load_file(path)
        except Exception as error:  # Damaged files cause errors of several classes.
            raise ModelError(f"{path}: is not a complete .safetensors file ({error}); save it again.") from error
    network = _build(path, state, description.get("configs", ()), cycles)
    network.scale = scale or description.get("scale")
    network.guard = description.get("guard")
    return network.eval().requires_grad_(False)


def find_model_file(source: str | os.PathLike[str]) -> Path:
    """Return the file of a packaged model, of a published model, or at a path.

    Raises
    ------
    ModelError
        The file does not exist, or that of a published model has changed since its download.
    """
    path = Path(expand_path(os.fspath(source)))
    try:
        if path.is_file():
            return path
        problem = "is not a file" if path.exists() else "there is no such file"
    except OSError as error:  # The name is too long, or its folder is not accessible.
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    if isinstance(source, str) and not path.suffix and path.name == source:
        return verify_published_file(PUBLISHED[source]) if source in PUBLISHED else find_model(source).path
    raise ModelError(f"{path}: {problem}; give a model's file or the name of a packaged model.")


def infer_config(shapes: Mapping[str, tuple[int, ...]], *, cycles: int = 1) -> ModelConfig:
    """Return the configuration of one network, inferred from the names and shapes of its tensors.

    Raises
    ------
    ModelError
        A tensor that every network has is missing or has an impossible shape.
    """
    levels = 0
    while levels < MAXIMUM_LEVELS and f"Analysis_{levels}.weight" in shapes:
        levels += 1
    labels = [match[1] for name in shapes if (match := re.fullmatch(r"Downscale_\d((?:-\d{1,3})+)\.weight", name))]
    steps = 1 + max((int(count) for label in labels for count in label[1:].split("-")), default=0)
    first = f"Downscale_{'-'.join(map(str, [max(levels, 2) - 1] + [0] * (max(levels, 2) - 1)))}.weight"
    noise = [name for name in shapes if name == "AnalysisN_0.weight"]
    for needed in (*(f"Analysis_{level}.weight" for level in range(max(levels, 2))), first, *noise):
        if len(shapes.get(needed, ())) != 4:
            raise ModelError(f"is not an MGBPv2 network: it has no tensor {needed!r} of four dimensions.")
    return ModelConfig(
        features=tuple(shapes[f"Analysis_{level}.weight"][0] for level in range(levels)),
        steps=steps,
        cycles=cycles,
        kernel=shapes[first][2],
        channels=shapes["Analysis_0.weight"][1],
        noise_channels=shapes[noise[0]][0] if noise else 0,
        bias="Analysis_0.bias" in shapes,
        residual=shapes[f"Analysis_{levels - 1}.weight"][2] > 1,
    )


def is_torch_file(path: Path) -> bool:
    """Return whether the first bytes of a file are those of a torch file and not of a ``.safetensors`` file."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    # The first eight bytes of a .safetensors file, a length, may look like a pickle. A JSON header follows them.
    return start.startswith(_PICKLE_OR_ZIP) and start[8:] != b"{"


def read_torch_file(path: Path) -> State:
    """Read a state dict that torch has saved, without executing anything in it."""
    _check_unpacked_size(path)
    try:
        with path.open("rb") as file:  # Given a path, torch would decide by its suffix.
            is_archive = file.read(2) == b"PK"
            file.seek(0)
            content: Any = file if is_archive else _ShortPickle(file, path)
            loaded = torch.load(content, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"refers to {found[1]}" if found else "holds objects other than tensors"
        raise ModelError(
            f"{path}: {what} and was not loaded, because it could run code; give a plain state dict."
        ) from error
    except Exception as error:  # Damaged archives cause errors of many classes.
        raise ModelError(f"{path}: is not a complete model file; download or save it again.") from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelError(f"{path}: holds a {type(loaded).__name__}, not a state dict of tensors.")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"{path}: its entry {name!r} is not a tensor; give a plain state dict.")
    return dict(loaded)


def _check_unpacked_size(path: Path) -> None:
    """Reject an archive that unpacks to more bytes than it has: torch does not compress tensors.

    Archives that Python cannot read are rejected, too, because torch's own reader might read them. Nothing may precede
    or follow the archive, and its directory must be at the end of the file: both readers then use the same directory.

    Raises
    ------
    ModelError
        The archive could fill the memory, is damaged, or has another layout than torch's.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != _PICKLE_OR_ZIP[1]:
                return
            start = _directory_of(file)
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                if archive.start_dir != start:
                    raise zipfile.BadZipFile("there are two directories")
        size = sum(entry.file_size for entry in entries)
        longest = max((entry.file_size for entry in entries if entry.filename.endswith("data.pkl")), default=0)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # Damaged archives cause errors of several classes.
        raise ModelError(f"{path}: is not a complete model file; download or save it again.") from error
    if size > path.stat().st_size:
        raise ModelError(
            f"{path}: would unpack to {format_bytes(size)}, and was not loaded, because it could fill the memory; "
            "give a plain state dict, as torch.save writes it."
        )
    if longest > _LARGEST_PICKLE:
        raise _too_long(path)


def _directory_of(file: BinaryIO) -> int:
    """Return the offset of the directory of a zip archive at the end of a file."""
    end = file.seek(0, os.SEEK_END) - _END.size
    if end < 0:
        raise zipfile.BadZipFile("it has no directory")
    file.seek(end)
    magic, *_, size, start, comment = _END.unpack(file.read(_END.size))
    if magic != b"PK\5\6" or comment:
        raise zipfile.BadZipFile("it does not end with its directory")
    if end >= _ZIP64_LOCATOR.size + _ZIP64_END.size:
        file.seek(end - _ZIP64_LOCATOR.size)
        magic, _, offset, _ = _ZIP64_LOCATOR.unpack(file.read(_ZIP64_LOCATOR.size))
        if magic == b"PK\6\7":
            end -= _ZIP64_LOCATOR.size + _ZIP64_END.size
            file.seek(end)
            magic, *_, size, start = _ZIP64_END.unpack(file.read(_ZIP64_END.size))
            if magic != b"PK\6\6" or offset != end:
                raise zipfile.BadZipFile("its directory is elsewhere")
    if start + size != end:
        raise zipfile.BadZipFile("there are bytes before or after it")
    return int(start)


class _ShortPickle:
    """A file of torch's old format with a limit on the length of its pickles. torch reads the numbers after them.

    Parameters
    ----------
    file
        The file. torch reads numbers by its descriptor.
    path
        Its path, for error messages.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self._left = file, path, _LARGEST_PICKLE

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes."""
        return self._counted(self._file.read(min(size if size >= 0 else self._left + 1, self._left + 1)))

    def readline(self) -> bytes:
        """Read a line."""
        return self._counted(self._file.readline(self._left + 1))

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        content = self.read(memoryview(buffer).nbytes)
        memoryview(buffer).cast("B")[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in the file."""
        return self._file.tell()

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._file.fileno()

    def _counted(self, content: bytes) -> bytes:
        self._left -= len(content)
        if self._left < 0:
            raise _too_long(self._path)
        return content


def _too_long(path: Path) -> ModelError:
    return ModelError(
        f"{path}: describes its tensors in more than {format_bytes(_LARGEST_PICKLE)} and was not loaded, because it "
        "could fill the memory; give a plain state dict."
    )


def _build(path: Path, state: State, described: Sequence[ModelConfig], cycles: int | None) -> Network:
    state = _without_aliases(path, as_float32(path, state))
    members = sorted({match[1] for name in state if (match := re.match(r"model(\d{1,3})\.", name))}, key=int)
    if len(members) > _MOST_MEMBERS:
        raise ModelError(f"{path}: holds {len(members)} networks; an ensemble has at most {_MOST_MEMBERS}.")
    parts = [_shapes(state, f"model{member}.") for member in members] or [_shapes(state, "")]
    try:
        configs = described or [infer_config(shapes) for shapes in parts]
        if cycles is not None:
            configs = [replace(config, cycles=cycles) for config in configs]
        if len(configs) != len(parts):
            raise ModelError(f"describes {len(configs)} networks and holds {len(parts)}; save it again.")
        for config, shapes in zip(configs, parts, strict=True):
            _check_steps(config, len(shapes))
        with torch.device("meta"):  # shapes only; the file provides the weights
            network: Network = Ensemble(configs) if members else MGBPv2(configs[0])
    except (ModelError, TypeError, RuntimeError) as error:  # torch's own, for sizes that overflow
        raise ModelError(f"{path}: {error}") from error
    check_tensors(path, state, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    network.load_state_dict(state, assign=True)
    return network


def _check_total(path: Path, state: State) -> None:
    """Reject tensors that share memory: as separate arrays they could fill the memory."""
    total, size = sum(tensor.nbytes for tensor in state.values()), path.stat().st_size
    if total > 2 * size:  # the authors' files hold the synthesis twice
        raise ModelError(
            f"{path}: its tensors take {format_bytes(total)} and the file has {format_bytes(size)}: some are not "
            "plain arrays; save their numbers as they are."
        )


def as_float32(path: Path, state: State) -> State:
    """Convert plain arrays of finite numbers of any floating-point type to float32. Raise `ModelError` for others."""
    for name, tensor in state.items():
        if tensor.dtype not in _FLOATS:
            raise ModelError(f"{path}: its tensor {name!r} holds {tensor.dtype}, not floating-point numbers.")
        plain = tensor.layout == torch.strided and not tensor.is_nested and tensor.device.type == "cpu"
        if not plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ModelError(f"{path}: its tensor {name!r} is not a plain array; save its numbers as they are.")
    _check_total(path, state)
    result = {}
    for name, tensor in state.items():
        result[name] = tensor.to(torch.float32).contiguous()
        if not bool(torch.isfinite(result[name]).all()):
            raise ModelError(f"{path}: its tensor {name!r} holds NaN or infinity; train or download it again.")
    return result


def _check_steps(config: ModelConfig, tensors: int) -> None:
    """Reject a configuration with more modules than the file has tensors: their number is a power of the steps."""
    modules = 2 * sum(config.steps**depth for depth in range(1, config.levels))
    if modules > tensors:
        raise ModelError(
            f"holds {tensors} tensors, too few for the {modules} modules of {config.steps} steps on "
            f"{config.levels} levels; it is not a complete MGBPv2 network."
        )


def _without_aliases(path: Path, state: State) -> State:
    """Remove the second name of the synthesis in the authors' files, or use it if the first is missing."""
    result = dict(state)
    for name, tensor in state.items():
        match = re.fullmatch(r"((?:model\d+\.)?)synthesis\.(\w+)", name)
        if match is None:
            continue
        del result[name]
        first = f"{match[1]}Synthesis.{match[2]}"
        if not torch.equal(result.setdefault(first, tensor), tensor):
            raise ModelError(f"{path}: its tensors {name!r} and {first!r} are two names of one and differ.")
    return result


def _shapes(state: State, prefix: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): tuple(each.shape) for name, each in state.items() if name.startswith(prefix)}


def check_tensors(path: Path, state: State, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `ModelError` for tensors with other names or shapes than expected."""
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
