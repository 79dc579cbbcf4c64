"""Evidence on the modes: how fast each is here, how far its pictures are from exact, and both in one drawing."""
