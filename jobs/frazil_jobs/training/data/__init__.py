"""Rows to batches: reading, order, pictures, tokens."""
