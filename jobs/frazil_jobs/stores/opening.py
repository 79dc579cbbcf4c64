"""Opens the store that a config names. The `minio` client is imported only for S3."""

from __future__ import annotations

from frazil_jobs.stores.base import ObjectStore
from frazil_jobs.stores.config import StoreConfig


def open_store(config: StoreConfig) -> ObjectStore:
    """The store; nothing is asked of it yet. Raises BadConfiguration."""
    config.checked()
    if config.is_folder:
        from frazil_jobs.stores.folder import FolderStore

        return FolderStore(config.folder)
    from frazil_jobs.stores.s3 import S3Store

    return S3Store(config)
