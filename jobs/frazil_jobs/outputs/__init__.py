"""The ways out: the spool, the upload through Celery, the manifest and the pages beside the results."""
