"""Write ONNX files, for runtimes without torch."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.export.checks import ExportedModel, check_outputs
from napari_mgbpv2.export.torch_files import EXAMPLE, open_sizes

OUTPUT = "upscaled"


def write_onnx(model: ExportedModel, path: Path) -> int:
    """Write an ONNX file and check it with onnxruntime on the CPU.

    Returns
    -------
    int
        Version of the operator set.

    Raises
    ------
    ModelError
        The packages of the extra ``export`` are missing, or onnxruntime computes other pixels than the network.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f'ONNX is written by packages of the extra "export": `pip install "napari-mgbpv2[export]"` ({error}).'
        ) from error
    batch, height, width = EXAMPLE
    with _silenced():
        program = torch.onnx.export(
            model.graph(),
            model.inputs(height, width, batch),
            dynamo=True,
            dynamic_shapes=open_sizes(model.scale, model.noise != 0),
            input_names=list(model.input_names),
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None
    described = {"model": model.name, "scale": str(model.scale), "trained_on": model.trained_on}
    program.model.metadata_props.update(described)
    program.save(str(path), external_data=False)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        requested = {name: tensor.numpy() for name, tensor in zip(model.input_names, inputs, strict=True)}
        return torch.from_numpy(session.run([OUTPUT], requested)[0])

    check_outputs(model, run, "the ONNX file")
    return int(program.model.opset_imports[""])


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Silence the exporter's messages about itself and about optional packages."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
