"""A denoiser taken apart: its units in order, runs of only some of them, what each costs, and how to cut it into stages."""
