"""`frazil bench convergence`: real training on two cores, method beside method, until a validation loss is reached."""

METHODS = ("none", "uniform", "published", "ours")
"""uniform freezes every action to the cap of ours; published is TimelyFreeze's plan with the settings of its runs."""
