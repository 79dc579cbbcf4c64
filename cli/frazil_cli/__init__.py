"""The `frazil` command: the only room that may know all the others."""
