"""`frazil bench operator`: many jobs at once, on a real API server with nodes and pods that kwok pretends."""
