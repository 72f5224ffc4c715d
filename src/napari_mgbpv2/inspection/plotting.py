"""Plot a noise sweep, like figure 10 of the paper."""

from __future__ import annotations

import io
from collections.abc import Sequence

from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.inspection.sweep import SweepRow


def plot_sweep(rows: Sequence[SweepRow]) -> bytes:
    """Draw a sweep: NIQE against RMSE, the plane of perception and distortion, and each other score against W.

    Parameters
    ----------
    rows
        Result of `noise_sweep`, at least one row. Missing scores are left out.

    Returns
    -------
    bytes
        The content of a PNG file.

    Raises
    ------
    MGBPv2Error
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MGBPv2Error('a plot is drawn by matplotlib: pip install "napari-mgbpv2[plot]".') from error

    curves = [("amplitude", "psnr", "noise amplitude W", "PSNR in dB, higher is better")]
    if rows[0].niqe is not None:
        curves.insert(0, ("rmse", "niqe", "RMSE of luma, lower is better", "NIQE, lower is better"))
    if rows[0].contextual is not None:
        curves.append(("amplitude", "contextual", "noise amplitude W", "contextual similarity, higher is better"))
    figure = Figure(figsize=(5 * len(curves), 4), layout="constrained")
    for axes, (x, y, x_label, y_label) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        points = [(getattr(row, x), getattr(row, y)) for row in rows]
        axes.plot(*zip(*points, strict=True), marker="o")
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(alpha=0.3)
        for row, point in zip((rows[0], rows[-1]), (points[0], points[-1]), strict=True):
            axes.annotate(f"W = {row.amplitude:g}", point, xytext=(6, 6), textcoords="offset points")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
