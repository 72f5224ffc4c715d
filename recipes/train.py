"""Makes a packaged model by a recipe of this folder.

    python recipes/train.py recipes/x4.toml --output x4.safetensors

The same as `mgbpv2-finetune --config RECIPE -o MODEL`, but for the weights, which are stored in half the bytes, and
for the card, which tells the scores of benchmarks/quality.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from score import with_scores

from napari_mgbpv2.model.checkpoints import load_model, save_model
from napari_mgbpv2.model.zoo import read_card
from napari_mgbpv2.training.options import make_options, options_from_file
from napari_mgbpv2.training.trainer import TrainingReport, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--minutes", type=float, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the images take part of another core")
    parser.add_argument("--resume", action="store_true", help="go on with the run beside the output, to its end")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    full = options.output.with_name(f"{options.output.stem}-float32.safetensors")
    told = {"output": full, "minutes": options.minutes}
    values = options_from_file(options.recipe) | {name: value for name, value in told.items() if value is not None}
    train(make_options(values), resume=options.resume, on_report=print_report, report_every=100)
    print(pack(options.recipe.name, full, options.output))


def pack(recipe: str, full: Path, output: Path) -> Path:
    """Store a trained model in float16, with a card that tells its scores and how it was made."""
    card = read_card(full)
    options = {name: value for name, value in card.training["options"].items() if name not in ("output", "prepared")}
    training = {"recipe": f"recipes/{recipe}", "steps": card.training["steps"], "options": options}
    save_model(load_model(full), output, trained_on=card.trained_on, training=training, precision="float16")
    return with_scores(output)


def print_report(report: TrainingReport) -> None:
    scores = f"; {report.validation}" if report.validation else ""
    print(f"step {report.step} ({report.share:.1%}), loss {report.loss:.5f}{scores}", flush=True)


if __name__ == "__main__":
    main()
