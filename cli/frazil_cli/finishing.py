"""Asks for the manifest, through Celery, until its result is seen."""


class Finishing:
    """x."""

    def __init__(self, **k: object) -> None: ...
    def done(self):
        return True

    def result(self):
        return {}
