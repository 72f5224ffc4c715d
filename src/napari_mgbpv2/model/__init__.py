"""The network of the paper: configuration, layers, checkpoints, model cards and the packaged models."""
