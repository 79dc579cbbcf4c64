"""From a spec to Kubernetes objects: pure functions, no I/O. What is built passes Pod Security `restricted`."""
