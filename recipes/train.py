"""Makes a packaged model by a recipe of this folder.

    python recipes/train.py recipes/x4.toml --output x4.safetensors

The same as `mgbpv2-finetune --config RECIPE -o MODEL`, but for the weights, which are stored in half the bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from napari_mgbpv2.checkpoints import load_model, save_model
from napari_mgbpv2.engine import measure_guard
from napari_mgbpv2.model_zoo import read_card
from napari_mgbpv2.training.options import make_options, options_from_file
from napari_mgbpv2.training.trainer import Report, train
from quality import PHOTOGRAPHS, score

TRAINED_ON = {"scenes": "synthetic scenes: dead leaves with edges, textures, stripes and letters"}


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
    print(pack(options.recipe.name, full, options.output))


def pack(recipe: str, full: Path, output: Path) -> Path:
    """Store a trained model in float16, with a card that tells its score on photographs and how it was made."""
    card = read_card(full)
    options = {name: value for name, value in card.training["options"].items() if name not in ("output", "prepared")}
    training = {"recipe": f"recipes/{recipe}", "steps": card.training["steps"], "options": options}
    told = {"trained_on": TRAINED_ON[card.training["options"]["images"][0]], "training": training}
    save_model(load_model(full), output, precision="float16", **told)
    stored = load_model(output)  # float16 changes the last digits, and with them what is measured
    assert stored.scale is not None
    pairs = [score(str(output), stored.scale, name) for name in PHOTOGRAPHS]
    gain = round(sum(network - bicubic for bicubic, network in pairs) / len(pairs), 2)
    guard = measure_guard(stored, stored.scale)
    scores = {"photographs_gain_db": gain}
    return save_model(load_model(full), output, guard=guard, scores=scores, precision="float16", overwrite=True, **told)


def tell(report: Report) -> None:
    scores = f"; {report.validation}" if report.validation else ""
    print(f"step {report.step} ({report.share:.1%}), loss {report.loss:.5f}{scores}", flush=True)


if __name__ == "__main__":
    main()
