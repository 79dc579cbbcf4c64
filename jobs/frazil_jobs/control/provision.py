"""`python -m frazil_jobs.control.provision`: buckets, users and policies of the bundled MinIO. Run by the chart's hook.

One user a namespace and right: `read` gets and lists below the namespace's own prefix (and what all may read), `write` puts
there, and neither removes or overwrites its neighbours; `control` is the worker Deployment's. Users that are wanted no more
(of a tenant or a destination that was taken out) are removed with all that they may. Idempotent. Environment:
FRAZIL_MINIO_ENDPOINT, FRAZIL_MINIO_ROOT_USER, FRAZIL_MINIO_ROOT_PASSWORD, FRAZIL_MINIO_USERS (a JSON file).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, S3Error
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter

from frazil_jobs.base import log
from frazil_jobs.base.exits import OK, TEMPFAIL

PATIENCE_SECONDS: Final = 240.0
_PAUSE_SECONDS: Final = 2.0
_OURS: Final = "frazil-"
"""How the names of all users that the chart asks for begin."""
_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=30.0)
logger = log.get_logger(__name__)


class User(BaseModel):
    """One user of the store, and what it may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    secret: SecretStr
    right: Literal["read", "write", "control"]
    bucket: str
    prefix: str
    """What it may touch lies below."""
    inputs: list[str] = Field(default_factory=list)
    """s3://bucket/prefix that may be read as well."""

    @property
    def policy(self) -> dict[str, Any]:
        """Its policy, in S3's own words."""
        own = (self.bucket, f"{self.prefix.strip('/')}/" if self.prefix else "")
        statements: list[dict[str, Any]] = []
        if self.right == "control":
            statements += _may(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], own)
        elif self.right == "write":
            statements += _may(["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], own)
        else:
            statements += _may(["s3:GetObject"], own)
        if self.right != "write":
            for uri in self.inputs:
                parts = urlsplit(uri)
                prefix = parts.path.strip("/")
                statements += _may(["s3:GetObject"], (parts.netloc, f"{prefix}/" if prefix else ""))
        return {"Version": "2012-10-17", "Statement": statements}


def _may(actions: list[str], where: tuple[str, str]) -> list[dict[str, Any]]:
    bucket, prefix = where
    arn = f"arn:aws:s3:::{bucket}"
    return [
        {"Effect": "Allow", "Action": actions, "Resource": [f"{arn}/{prefix}*"]},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [arn],
            "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*"]}},
        },
        {"Effect": "Allow", "Action": ["s3:GetBucketLocation"], "Resource": [arn]},
    ]


def unwanted(there: Mapping[str, str], wanted: Iterable[str]) -> list[str]:
    """Of the users that are there, each with its policies (joined by commas), those that this program has made and that are
    wanted no more. Its users are told by their name and by a policy of that very name; others are somebody's."""
    ours = {name for name, policies in there.items() if name.startswith(_OURS) and name in policies.split(",")}
    return sorted(ours - set(wanted))


@contextmanager
def ignoring(said: str) -> Iterator[None]:
    """Take an answer of MinIO for none that matters."""
    try:
        yield
    except MinioAdminException as error:
        if said not in str(error):
            raise


def provision(endpoint: str, user: str, password: str, users: list[User]) -> None:
    """Make what is missing, set what differs, remove what is wanted no more. Raises what the MinIO client raises."""
    parts = urlsplit(endpoint)
    secure = parts.scheme == "https"
    pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=urllib3.Retry(total=2, backoff_factor=0.2))
    store = Minio(endpoint=parts.netloc, access_key=user, secret_key=password, secure=secure, http_client=pool)
    admin = MinioAdmin(
        endpoint=parts.netloc, credentials=StaticProvider(user, password), secure=secure, http_client=pool
    )
    for bucket in sorted({one.bucket for one in users}):
        if not store.bucket_exists(bucket):
            store.make_bucket(bucket)
            logger.info("made", bucket=bucket)
    for one in users:
        admin.user_add(one.name, one.secret.get_secret_value())
        admin.policy_add(one.name, policy=one.policy)
        with ignoring("already in effect"):
            admin.attach_policy([one.name], user=one.name)
        logger.info("user", name=one.name, right=one.right, prefix=f"{one.bucket}/{one.prefix}")
    there = {name: str(found.get("policyName", "")) for name, found in json.loads(admin.user_list()).items()}
    for name in unwanted(there, (one.name for one in users)):
        admin.user_remove(name)
        with ignoring("XMinioIAMPolicyInUse"):  # an administrator has given it to somebody else too
            admin.policy_remove(name)
        logger.info("removed", name=name)


def main() -> int:
    """Wait for the store, provision it; the exit code."""
    log.configure("provision")
    users = TypeAdapter(list[User]).validate_json(Path(os.environ["FRAZIL_MINIO_USERS"]).read_bytes())
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            provision(
                os.environ["FRAZIL_MINIO_ENDPOINT"],
                os.environ["FRAZIL_MINIO_ROOT_USER"],
                os.environ["FRAZIL_MINIO_ROOT_PASSWORD"],
                users,
            )
            return OK
        except (urllib3.exceptions.HTTPError, OSError, S3Error, MinioAdminException) as error:
            if time.monotonic() > until:
                logger.error("the store can't be provisioned", error=str(error))
                return TEMPFAIL
            logger.warning("the store is not ready", error=str(error)[:300])
            time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
