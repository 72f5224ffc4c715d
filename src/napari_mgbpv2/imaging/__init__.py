"""Axes, values, alpha, resampling and noise: what is done to pixels."""
