"""The operator: what a job's pods should be, and the loop that makes them so."""
