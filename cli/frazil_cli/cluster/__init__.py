"""The command on a cluster: what kubectl's own settings reach, and what a person may read there."""
