"""The ranks of one node, whatever they do: started, told, watched, ended. The error of the first that failed is told once.

Loads no torch, but for `meeting` and an agreement to stop.
"""
