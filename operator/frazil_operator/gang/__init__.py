"""Gang scheduling by what the API server serves: one file a provider, pure. Discovery is in `kube`."""
