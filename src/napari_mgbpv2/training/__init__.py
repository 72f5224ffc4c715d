"""Train MGBPv2: options, data, losses of the paper, and the training loop."""
