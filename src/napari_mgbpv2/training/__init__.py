"""Training MGBPv2: synthetic images, the losses of the paper and the loop."""
