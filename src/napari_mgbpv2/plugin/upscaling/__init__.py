"""The widget "Upscale": choices, an estimate, and three ways to go."""
