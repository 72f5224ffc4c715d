"""The widget "Fine-tune": images of one's own in, a model out, and a curve meanwhile."""
