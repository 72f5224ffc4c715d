"""Measures packaged models anew and writes the scores and the guard into their cards; their weights stay as they are.

    python recipes/score.py              # all packaged models of this clone
    python recipes/score.py MODEL...     # these files
    python recipes/score.py --pages      # all, with docs/quality.md and the gains in README.md

The section of docs/quality.md on other networks, which holds times, stays: `python benchmarks/quality.py --peers`
measures it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from napari_mgbpv2.model.checkpoints import load_model, save_model
from napari_mgbpv2.model.zoo import ModelCard, list_models, read_card
from napari_mgbpv2.runtime import measure_guard
from quality import Scores, card_scores, measured, section, write_page

ROOT = Path(__file__).parents[1]


def with_scores(path: Path, rows: Mapping[str, Scores] | None = None) -> Path:
    """Write scores into the card of a model.

    Parameters
    ----------
    path : Path
        Of a model in float16: the last digits, which are lost there, change its scores.
    rows : mapping, optional
        Its scores as `quality.measured` returns them; by default they are measured.
    """
    card, network = read_card(path), load_model(path)
    assert card.scale is not None
    return save_model(
        network,
        path,
        guard=measure_guard(network, card.scale),
        trained_on=card.trained_on,
        scores=card_scores(rows or measured(str(path), card.scale, card.channels)),
        training=card.training,
        precision="float16",
        overwrite=True,
    )


def with_gain(page: str, card: ModelCard) -> str:
    """Put the gain of a card into its row of a table, in place of the first figure in dB there."""
    gain = card.scores["photographs_gain_db" if card.channels != 1 else "fields_gain_db"]
    row = re.compile(rf"^(\| `{re.escape(card.name)}` \|.*?)[+-]\d+\.\d\d dB", re.MULTILINE)
    page, count = row.subn(rf"\g<1>{gain:+.2f} dB", page, count=1)
    if not count:
        raise SystemExit(f"no table has a row with a gain of {card.name}; add one to README.md")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="by default all packaged ones")
    parser.add_argument("--pages", action="store_true", help="also write docs/quality.md and the gains in README.md")
    options = parser.parse_args()
    if options.pages and options.models:
        parser.error("--pages: the pages hold all packaged models; leave the files out")
    readme = ROOT / "README.md"
    sections: dict[bool, list[str]] = {False: [], True: []}
    for path in options.models or [card.path for card in list_models()]:
        card = read_card(path)
        assert card.scale is not None
        rows = measured(str(path), card.scale, card.channels)
        card = read_card(with_scores(path, rows))
        sections[card.channels == 1].append(section(card.name, card.scale or 0, rows))
        print(f"{path}: {card.scores}", flush=True)
        if options.pages:
            readme.write_text(with_gain(readme.read_text(encoding="utf-8"), card), encoding="utf-8")
    if options.pages:
        write_page(ROOT / "docs" / "quality.md", sections[False], sections[True])


if __name__ == "__main__":
    main()
