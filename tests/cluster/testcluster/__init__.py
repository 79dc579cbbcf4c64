"""A real Kubernetes on one small machine, for tests and for people who want to try things: `python -m testcluster up`."""
