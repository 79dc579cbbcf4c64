"""The API server, through the official client's async half: requests with a time-out, errors with a class, a Lease."""
