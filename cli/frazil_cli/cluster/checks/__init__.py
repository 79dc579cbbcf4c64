"""What goes wrong most often, one file a check: pure functions of what was observed, with the remedy."""
