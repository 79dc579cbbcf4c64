"""The ways in: models, prompts and pictures fetched, checked and pinned before any GPU is taken."""
