"""Object stores: any S3 endpoint through the `minio` client, or a folder, behind one interface.

Keys are relative to the store's root: a bucket with an optional prefix, or a folder.
"""

from frazil_jobs.stores.base import ObjectInfo, ObjectStore, StoreDenied, StoreUnreachable
from frazil_jobs.stores.config import StoreConfig
from frazil_jobs.stores.opening import open_store

__all__ = ["ObjectInfo", "ObjectStore", "StoreConfig", "StoreDenied", "StoreUnreachable", "open_store"]
