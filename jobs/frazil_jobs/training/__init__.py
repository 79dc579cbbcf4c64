"""Freeze-optimised pipeline training: the plan, the stage, the trainer (see docs of the design; not built yet)."""
