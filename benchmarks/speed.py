"""Who upscales fastest, and with how much memory: this package, the paper's procedure, and general tilers.

    pip install -e ".[benchmark]"
    python benchmarks/speed.py [--models x4 K3] [--megapixels 4] [--rounds 3] [--write docs/speed.md]

Every contestant runs in a process of its own, one after the other, and in every round all of them run; medians are
given, and ratios are medians of those within a round. "K3" has the size of the published network and random weights,
and upscales 16x. Time is that of the upscaling, without imports and with the model loaded and run once; memory is the
peak of the whole process. The error is the largest difference from what the network gives for the whole image at once,
of values from 0 to 1. ``--write FILE`` writes the tables into a page, and a plot into pictures/ beside it. On a machine
that is busy with other things, OMP_NUM_THREADS=1 CPU_TIME=1 before the command counts processor time instead of time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import napari_mgbpv2 as mgbp
import napari_mgbpv2.upscaling
import napari_mgbpv2.upscaling.lazy  # what is imported when it is needed is not to be timed
from napari_mgbpv2.imaging.resampling import bicubic_resize
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.model.network import MGBPv2, pad_to_natural
from napari_mgbpv2.runtime.inference import InferenceNetwork, Workspace
from paper_procedure import PaperNetwork, average_of_patches

PHOTOGRAPH = Path(mgbp.__file__).parent / "samples" / "astronaut.png"
PAGE = """# Speed

Written by `python benchmarks/speed.py --write docs/speed.md`, which says how it is measured. Seconds vary between
machines and runs; read the ratios.
"""
SCALES = {"x4": 4, "K3": 16}
TILE = 783  # px of the target, a natural size of both
OVERLAP, GUARD = 159, 72  # what the packaged x4 has by default
FORWARDS = 3
# The time that processors spend is less disturbed by what else a machine does; with one thread, it can be compared.
CLOCK = time.process_time if os.environ.get("CPU_TIME") else time.perf_counter

Forward = Callable[[Tensor], Tensor]
Work = Callable[[], Tensor]


@dataclass
class Subject:
    """A model, by its file or packaged name, and what it is to upscale: a (h, w, 3) image of values from 0 to 1."""

    model: str
    scale: int
    source: np.ndarray

    @classmethod
    def of(cls, model: str, scale: int, megapixels: float) -> Subject:
        side = round((megapixels * 1e6) ** 0.5 / scale)
        photograph = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"), dtype=np.float32) / 255
        repeats = -(-side // len(photograph))
        return cls(model, scale, np.tile(photograph, (repeats, repeats, 1))[:side, :side].copy())

    @cached_property
    def network(self) -> MGBPv2:
        """For those that do not load the model themselves."""
        loaded = mgbp.load_model(self.model)
        assert isinstance(loaded, MGBPv2)
        return loaded

    @property
    def side(self) -> int:
        return len(self.source) * self.scale

    def enlarged(self) -> Tensor:
        image = torch.from_numpy(self.source).permute(2, 0, 1)[None]
        return bicubic_resize(image, self.side, self.side)

    def prepared(self) -> Forward:
        return InferenceNetwork(self.network, Workspace(), torch.device("cpu"))

    def module(self) -> Forward:
        return self.network

    def module_channels_last(self) -> Forward:
        return self.network.to(memory_format=torch.channels_last)

    def compiled(self) -> Forward:
        return torch.compile(self.module_channels_last())

    def onnx_runtime(self) -> Forward:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(self.onnx(), options, providers=["CPUExecutionProvider"])
        return lambda tile: torch.from_numpy(session.run(None, {"image": tile.contiguous().numpy()})[0])

    def openvino(self) -> Forward:
        import openvino

        precise = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        model = openvino.Core().compile_model(openvino.Core().read_model(self.onnx()), "CPU", precise)
        return lambda tile: torch.from_numpy(model(tile.contiguous().numpy())[0])

    def onnx(self) -> bytes:
        """The network as an ONNX file, for tiles of one size."""
        tile = torch.zeros(1, self.network.config.channels, TILE, TILE)
        program = torch.onnx.export(PaperNetwork(self.network), (tile,), input_names=["image"], verbose=False)
        assert program is not None
        return program.model_proto.SerializeToString()

    def paper(self) -> Forward:
        return PaperNetwork(self.network)


def forwards(subject: Subject, forward: Forward) -> tuple[float, None]:
    """Time of one forward of one tile."""
    tile = subject.enlarged()[..., :TILE, :TILE].contiguous(memory_format=torch.channels_last)
    tile = tile if not isinstance(forward, PaperNetwork) else tile.contiguous()
    forward(tile)
    return statistics.median(timed(partial(forward, tile))[0] for _ in range(FORWARDS)), None


def whole_images(subject: Subject, prepare: Callable[[Subject], Work]) -> tuple[float, np.ndarray]:
    """Time of upscaling the whole image, when the model is there."""
    work = prepare(subject)
    seconds, result = timed(work)
    return seconds, result.numpy()


def warm(subject: Subject, make: Callable[[Subject], Forward]) -> Forward:
    """Make a network that has run once."""
    forward, size = make(subject), subject.network.config.natural_up(64)
    forward(torch.zeros(1, 3, size, size))
    return forward


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = CLOCK()
    result = work()
    return CLOCK() - start, result


def by_upscale(subject: Subject, **options: int) -> Work:
    upscale = partial(mgbp.upscale, scale=subject.scale, model=subject.model, device="cpu", **options)
    upscale(subject.source[:8, :8]).compute()
    return lambda: torch.from_numpy(upscale(subject.source).compute()).permute(2, 0, 1)


def by_upscale_as_others(subject: Subject) -> Work:
    return by_upscale(subject, tile=TILE, overlap=OVERLAP)


def by_paper(subject: Subject) -> Work:
    forward = warm(subject, Subject.paper)
    return lambda: average_of_patches(subject.enlarged(), forward, TILE, TILE - OVERLAP)[0]


def by_monai(subject: Subject, make: Callable[[Subject], Forward]) -> Work:
    from monai.inferers import sliding_window_inference

    forward = warm(subject, make)

    def upscale() -> Tensor:
        result = sliding_window_inference(subject.enlarged(), TILE, 1, forward, OVERLAP / TILE, mode="gaussian")
        assert isinstance(result, Tensor)
        return result[0]

    return upscale


def by_tiler(subject: Subject, make: Callable[[Subject], Forward]) -> Work:
    from tiler import Merger, Tiler

    forward = warm(subject, make)

    def upscale() -> Tensor:
        image = subject.enlarged()[0].numpy()
        tiler = Tiler(image.shape, (3, TILE, TILE), (0, OVERLAP, OVERLAP), channel_dimension=0, mode="reflect")
        merger = Merger(tiler, window="hamming")
        for number, tile in tiler.iterate(image):
            merger.add(number, forward(torch.from_numpy(tile)[None])[0].numpy())
        return torch.from_numpy(merger.merge())

    return upscale


def untiled(subject: Subject) -> Work:
    config, side = subject.network.config, subject.side

    def upscale() -> Tensor:
        result = subject.prepared()(pad_to_natural(subject.enlarged(), config))[0]
        before, _ = config.border(side)
        return result[:, before : before + side, before : before + side]

    return upscale


Run = Callable[[Subject], tuple[float, np.ndarray | None]]

FORWARD_RUNS: dict[str, Run] = {
    "prepared": lambda subject: forwards(subject, subject.prepared()),
    "module, channels last": lambda subject: forwards(subject, subject.module_channels_last()),
    "module, compiled by torch": lambda subject: forwards(subject, subject.compiled()),
    "ONNX Runtime": lambda subject: forwards(subject, subject.onnx_runtime()),
    "OpenVINO": lambda subject: forwards(subject, subject.openvino()),
    "as the paper has it": lambda subject: forwards(subject, subject.paper()),
}
UPSCALE = "upscale"
UPSCALING_RUNS: dict[str, Run] = {
    UPSCALE: lambda subject: whole_images(subject, by_upscale_as_others),
    "upscale, default tiles": lambda subject: whole_images(subject, by_upscale),
    "the paper's procedure": lambda subject: whole_images(subject, by_paper),
    "MONAI": lambda subject: whole_images(subject, partial(by_monai, make=Subject.module)),
    "MONAI, prepared network": lambda subject: whole_images(subject, partial(by_monai, make=Subject.prepared)),
    "tiler": lambda subject: whole_images(subject, partial(by_tiler, make=Subject.module)),
    "tiler, prepared network": lambda subject: whole_images(subject, partial(by_tiler, make=Subject.prepared)),
}
UNTILED = "untiled"
RUNS = FORWARD_RUNS | UPSCALING_RUNS | {UNTILED: lambda subject: whole_images(subject, untiled)}


@dataclass(frozen=True)
class Outcome:
    """One run of one contestant: seconds, peak MiB of its process, and threads."""

    seconds: float
    peak: float
    threads: int


def run_here(name: str, subject: Subject, result_file: Path) -> None:
    """Run one contestant in this process and print its outcome."""
    with torch.inference_mode():
        seconds, result = RUNS[name](subject)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    print(json.dumps([seconds, peak, torch.get_num_threads()]))
    if result is not None:
        np.save(result_file, result)


def run_alone(name: str, model: str, file: str, megapixels: float, result_file: Path) -> Outcome:
    """Run one contestant in a process of its own."""
    options = ["--models", model, "--file", file, "--megapixels", str(megapixels), "--contestant", name]
    command = [sys.executable, __file__, *options, "--result", str(result_file)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Outcome(*json.loads(done.stdout.splitlines()[-1]))


def file_of(model: str, folder: str) -> str:
    """Name the packaged model, or write one of the published size."""
    if model != "K3":
        return model
    torch.manual_seed(0)
    network = MGBPv2(mgbp.ModelConfig()).eval()
    return str(save_model(network, Path(folder) / "K3.safetensors", scale=SCALES[model], guard=GUARD))


def contest(model: str, megapixels: float, rounds: int) -> tuple[list[str], dict[str, list[Outcome]]]:
    """Let all contestants run in turns; gives the lines of the tables, and what they tell of."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{number}.npy" for number, name in enumerate(RUNS)}
        alone = partial(run_alone, model=model, file=file_of(model, folder), megapixels=megapixels)
        alone(UNTILED, result_file=files[UNTILED])
        outcomes: dict[str, list[Outcome]] = {name: [] for name in RUNS if name != UNTILED}
        for number in range(rounds):
            for name, past in outcomes.items():
                past.append(alone(name, result_file=files[name]))
                print(f"{model}, round {number + 1}: {name}: {past[-1].seconds:.2f} s", file=sys.stderr, flush=True)
        reference = np.load(files[UNTILED])
        errors = {name: float(np.abs(np.load(files[name]) - reference).max()) for name in UPSCALING_RUNS}
    side = len(reference[0])
    return [*forward_table(model, outcomes), "", *upscaling_table(model, side, outcomes, errors)], outcomes


def ratio(outcomes: list[Outcome], reference: list[Outcome]) -> float:
    return statistics.median(a.seconds / b.seconds for a, b in zip(outcomes, reference, strict=True))


def median_of(outcomes: list[Outcome], value: str) -> float:
    return statistics.median(getattr(outcome, value) for outcome in outcomes)


def forward_table(model: str, outcomes: dict[str, list[Outcome]]) -> list[str]:
    lines = [
        f"{model}: one forward of a tile of {TILE} x {TILE} px",
        "",
        "| network | seconds | to the prepared one | peak MiB |",
        "|---|---|---|---|",
    ]
    for name in FORWARD_RUNS:
        seconds, peak = (median_of(outcomes[name], value) for value in ("seconds", "peak"))
        times = ratio(outcomes[name], outcomes["prepared"])
        lines.append(f"| {name} | {seconds:.2f} | {times:.2f} | {peak:.0f} |")
    return lines


def upscaling_table(model: str, side: int, outcomes: dict[str, list[Outcome]], errors: dict[str, float]) -> list[str]:
    tiles = (side / TILE) ** 2
    bare = [Outcome(each.seconds * tiles, each.peak, each.threads) for each in outcomes["prepared"]]
    lines = [
        f"{model}: an image of {side} x {side} px, tiles of {TILE} px, overlap {OVERLAP} px",
        "",
        "| by | seconds | to `upscale` | to the bare network | peak MiB | largest error |",
        "|---|---|---|---|---|---|",
        f"| bare network, as many pixels | {median_of(bare, 'seconds'):.2f} | {ratio(bare, outcomes[UPSCALE]):.2f} "
        f"| 1 | {median_of(bare, 'peak'):.0f} | |",
    ]
    for name in UPSCALING_RUNS:
        seconds, peak = (median_of(outcomes[name], value) for value in ("seconds", "peak"))
        to_upscale, to_bare = (ratio(outcomes[name], other) for other in (outcomes[UPSCALE], bare))
        shown = f"{seconds:.2f} | {to_upscale:.2f} | {to_bare:.2f} | {peak:.0f} | {errors[name]:.0e}"
        lines.append(f"| {name} | {shown} |")
    return lines


def draw(outcomes: dict[str, dict[str, list[Outcome]]], file: Path) -> None:
    """Draw times and memory of all that upscale whole images, relative to `upscale` at the same tile and overlap."""
    from matplotlib.figure import Figure

    names = list(UPSCALING_RUNS)[::-1]
    figure = Figure(figsize=(10, 1 + 0.35 * len(names) * len(outcomes)), layout="constrained")
    for row, (model, found) in enumerate(outcomes.items()):
        for column, (value, what) in enumerate((("seconds", "time"), ("peak", "peak memory"))):
            axes = figure.add_subplot(len(outcomes), 2, 2 * row + column + 1)
            own = median_of(found[UPSCALE], value)
            bars = axes.barh(names, [median_of(found[name], value) / own for name in names])
            axes.bar_label(bars, fmt="%.2f", padding=3)
            axes.axvline(1, color="black", linewidth=1)
            axes.set_title(f"{model}: {what}, to upscale")
            axes.margins(x=0.12)
            if column:
                axes.set_yticklabels([])
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SCALES, default=list(SCALES))
    parser.add_argument("--megapixels", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the tables into a page")
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--contestant", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        subject = Subject.of(options.file, SCALES[options.models[0]], options.megapixels)
        run_here(options.contestant, subject, options.result)
        return
    lines = [f"Medians of {options.rounds} rounds, {torch.get_num_threads()} threads, torch {torch.__version__}.", ""]
    outcomes: dict[str, dict[str, list[Outcome]]] = {}
    for model in options.models:
        table, outcomes[model] = contest(model, options.megapixels, options.rounds)
        lines += [*table, ""]
    print("\n".join(lines))
    if options.write is not None:
        picture = options.write.parent / "pictures" / "speed.png"
        draw(outcomes, picture)
        lines += [f"![Times and peak memory as bars](pictures/{picture.name})", ""]
        options.write.write_text("\n".join([PAGE, *lines]))


if __name__ == "__main__":
    main()
