"""Training MGBPv2: synthetic scenes, the losses of the paper and the loop."""
