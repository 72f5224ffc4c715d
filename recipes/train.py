"""Makes a packaged model by a recipe of this folder.

    python recipes/train.py recipes/x4.toml --output x4.safetensors

The same as `mgbpv2-finetune --config RECIPE -o MODEL`, but for the weights, which are stored in half the bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from napari_mgbpv2.checkpoints import load_model, save_model
from napari_mgbpv2.model_zoo import read_card
from napari_mgbpv2.training.options import make_options, options_from_file
from napari_mgbpv2.training.trainer import Report, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--minutes", type=float, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the scenes take part of another core")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    full = options.output.with_name(f"{options.output.stem}-float32.safetensors")
    told = {"output": full, "minutes": options.minutes}
    values = options_from_file(options.recipe) | {name: value for name, value in told.items() if value is not None}
    train(make_options(values), resume=options.resume, tell=tell, report_every=100)
    print(pack(full, options.output))


def pack(full: Path, output: Path) -> Path:
    """Store a trained model in float16, with its card."""
    card = read_card(full)
    return save_model(
        load_model(full),
        output,
        trained_on=card.trained_on,
        scores=card.scores,
        training=card.training,
        precision="float16",
    )


def tell(report: Report) -> None:
    scores = f"; {report.validation}" if report.validation else ""
    print(f"step {report.step} ({report.share:.1%}), loss {report.loss:.5f}{scores}", flush=True)


if __name__ == "__main__":
    main()
