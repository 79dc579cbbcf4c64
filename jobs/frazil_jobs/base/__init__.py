"""The floor of every room: exit codes, files written whole, processes that end with their parent, logs.

Imports nothing of Frazil and nothing that is large.
"""
