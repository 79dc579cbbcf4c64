"""The loop around the pure core: watches, a work queue, workers, the tasks asked of Celery, probes and metrics."""
