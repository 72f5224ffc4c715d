"""What a forward costs, level by level, and how far it is from what the processor can do.

    python benchmarks/cost.py [--models x4 K3] [--rounds 5]

Multiplications are those for an output pixel, borders left aside, as the network is written down; "counted" are those
that a forward of one tile does. The floor is the time that these take at the speed of the fastest of some products of
matrices, which have all numbers in a cache. "K3" has the size of the published network and random weights.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

import napari_mgbpv2 as mgbp
from napari_mgbpv2.model.network import MGBPv2, scaling_modules
from napari_mgbpv2.runtime.inference import InferenceNetwork, Workspace
from napari_mgbpv2.runtime.inference.gemm import ConvolutionGemm, MatmulGemm

TILE = 783
SHAPES = ((2048, 512, 512), (2048, 256, 256), (1024, 512, 576))


def load(name: str) -> MGBPv2:
    if name == "K3":
        torch.manual_seed(0)
        return MGBPv2(mgbp.ModelConfig()).eval().requires_grad_(False)
    network = mgbp.load_model(name)
    assert isinstance(network, MGBPv2)
    return network


def by_level(network: MGBPv2) -> dict[str, dict[int, float]]:
    """Multiplications for an output pixel, by kind of module and by level."""
    config = network.config
    found: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for name, level in scaling_modules(config):
        module = network.get_submodule(name)
        weights = next(value for key, value in module.named_parameters() if key.endswith("weight"))
        # each weight is used once for each pixel of the level below
        found[name.split("_")[0]][level] += weights.numel() / 4 ** (config.levels - level)
    for level in range(config.levels):
        weight = network.get_submodule(f"Analysis_{level}").weight
        found["Analysis"][level] += weight.numel() / config.analysis_stride(level) ** 2
    found["Synthesis"][config.levels - 1] += network.get_submodule("Synthesis").weight.numel()
    return found


def counted(work: Callable[[], object]) -> float:
    """Multiplications of a piece of work."""

    def in_place(result: torch.Size, left: torch.Size, right: torch.Size, **_: object) -> int:
        return 2 * left[0] * left[1] * right[1]

    def one_pixel(left: torch.Size, right: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
        return 2 * out_shape.numel() * right[1]

    more = {torch.ops.aten.addmm_: in_place, torch.ops.aten.mkldnn_convolution: one_pixel}
    with FlopCounterMode(display=False, custom_mapping=more) as counter:
        work()
    return counter.get_total_flops() / 2


def seconds(work: Callable[[], object], rounds: int) -> float:
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def fastest_products(rounds: int) -> dict[str, float]:
    """Multiplications a second of the fastest product by each of torch's libraries."""
    rates, workspace = {"matrices": 0.0, "convolutions": 0.0}, Workspace()
    for rows, terms, columns in SHAPES:
        left, right = torch.randn(rows, terms), torch.randn(terms, columns)
        products = {"matrices": MatmulGemm(right), "convolutions": ConvolutionGemm(right)}
        for library, product in products.items():
            took = seconds(lambda: product(left, workspace), 20 * rounds)  # noqa: B023
            rates[library] = max(rates[library], rows * terms * columns / took)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["x4", "K3"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rates = fastest_products(options.rounds)
    rate = max(rates.values())
    for name in options.models:
        network = load(name)
        config = network.config
        table = by_level(network)
        total = sum(sum(levels.values()) for levels in table.values())
        print(f"{name}: {total:,.0f} multiplications for an output pixel")
        print(f"{'level':>5}{'features':>10}" + "".join(f"{kind:>12}" for kind in table))
        for level in reversed(range(config.levels)):
            cells = "".join(f"{levels.get(level, 0):>12,.0f}" for levels in table.values())
            print(f"{level:>5}{config.features[level]:>10}{cells}")
        side = config.natural_down(TILE)
        tile = torch.rand(1, config.channels, side, side).contiguous(memory_format=torch.channels_last)
        forward = InferenceNetwork(network, Workspace(), torch.device("cpu"))
        done = counted(lambda: forward(tile))  # noqa: B023
        took = seconds(lambda: forward(tile), options.rounds)  # noqa: B023
        print(f"counted on a tile of {side} px: {done / side**2:,.0f} for an output pixel")
        print(f"floor {done / rate:.2f} s, forward {took:.2f} s: {took / (done / rate):.2f} times the floor")
        print()
    fastest = ", ".join(f"{2 * found / 1e9:.0f} GFLOP/s by that for {library}" for library, found in rates.items())
    print(f"{torch.get_num_threads()} threads; fastest product by torch's libraries: {fastest}")


if __name__ == "__main__":
    main()
