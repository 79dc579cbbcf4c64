"""The Celery task of a pod's uploader. It takes an entry's id and nothing else."""

from __future__ import annotations

from celery import shared_task

from frazil_jobs.outputs.scanner import Scanner
from frazil_jobs.outputs.uploader import Uploader
from frazil_jobs.stores import StoreDenied, StoreUnreachable

UPLOAD_ENTRY = "frazil.upload_entry"


class Here:
    """What this process uploads with; set once, before the worker starts."""

    uploader: Uploader
    scanner: Scanner


@shared_task(name=UPLOAD_ENTRY)  # type: ignore[untyped-decorator]
def upload_entry(entry_id: str) -> None:
    """Store one entry of this pod's spool. What fails stays in the spool, and the scanner asks again."""
    try:
        Here.uploader.upload(entry_id)
    except StoreDenied as error:
        Here.scanner.store_trouble = ("StoreDenied", str(error))
    except StoreUnreachable as error:
        Here.scanner.store_trouble = ("StoreUnreachable", str(error))
    else:
        Here.scanner.store_trouble = None
