"""Training over pipeline stages: tasks, data, the loop, checkpoints, export; freezing and the engine beside them."""
