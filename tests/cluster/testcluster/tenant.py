"""A tenant's namespace as a test sees it: its jobs, and its results in the real MinIO."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import redis
from minio import Minio

from frazil_jobs.base.files import sha256_of
from frazil_jobs.stores import ObjectStore, StoreConfig, StoreUnreachable, open_store
from testcluster.cluster import Cluster
from testcluster.frazil import CHECKOUT, Installation, merged

MODEL = CHECKOUT / "examples" / "shapes" / "model"
PROMPTS = [f"a large {colour} {shape} on the left" for shape in ("ring", "star") for colour in ("red", "green", "blue")]
SAMPLING = {
    "steps": 6,
    "guidanceScale": "4.0",
    "seed": 7,
    "height": 64,
    "width": 64,
    "batchSize": 2,
    "extra": {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 16},
}


@dataclass(frozen=True)
class Tenant:
    """One namespace in which jobs run."""

    installation: Installation
    namespace: str

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return self.installation.cluster

    def secret(self, name: str, *, namespace: str | None = None) -> dict[str, str]:
        """A Secret's values."""
        found = self.cluster.get("secret", name, namespace=namespace or self.namespace)
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}

    def endpoint(self) -> str:
        """The store as it's reached from this machine: Services work from here too."""
        release = self.installation
        service = self.cluster.get("service", f"{release.release}-minio", namespace=release.namespace)
        return f"http://{service['spec']['clusterIP']}:9000"

    def config(self, right: str, *, uri: str = "s3://frazil/results") -> StoreConfig:
        """The store with this tenant's right to `read` or `write`."""
        found = self.secret(f"frazil-default-{right}")
        return StoreConfig(
            uri=uri, endpoint=self.endpoint(), access_key=found["accessKey"], secret_key=found["secretKey"]
        )

    def control_config(self) -> StoreConfig:
        """The store with the worker Deployment's rights."""
        release = self.installation
        found = self.secret(f"{release.release}-store-default", namespace=release.namespace)
        return self.config("read").model_copy(
            update={
                "access_key": found["accessKey"],
                "secret_key": type(self.config("read").secret_key)(found["secretKey"]),
            }
        )

    def client(self, right: str) -> Minio:
        """MinIO's own client, with this tenant's right to `read` or `write`."""
        config = self.config(right)
        return Minio(
            endpoint=config.endpoint.removeprefix("http://"),
            access_key=config.access_key,
            secret_key=config.secret_key.get_secret_value(),
            secure=False,
        )

    def broker(self) -> redis.Redis:
        """The broker, with this tenant's rights."""
        release = self.installation
        service = f"{release.release}-redis"
        address = self.cluster.get("service", service, namespace=release.namespace)["spec"]["clusterIP"]
        url = self.secret("frazil-redis")["url"].replace(f"{service}.{release.namespace}.svc", address)
        return redis.Redis.from_url(url, socket_timeout=5)

    @cached_property
    def store(self) -> ObjectStore:
        """All results."""
        return open_store(self.control_config())

    @cached_property
    def model(self) -> str:
        """The small model, in this tenant's part of the store."""
        prefix = f"{self.namespace}/models/shapes"
        for path in sorted(MODEL.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(MODEL)}"
                if self.store.stat(key) is None:
                    self.store.put_file(key, path, sha256=sha256_of(path), content_type="application/octet-stream")
        return f"s3://frazil/results/{prefix}"

    def job(self, name: str, **spec: Any) -> dict[str, Any]:
        """A job of 6 pictures in 3 shards, two ranks each; `spec` overrides by deep merge."""
        document = {
            "apiVersion": "frazil.dev/v1alpha1",
            "kind": "GenerationJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "model": {"uri": self.model},
                "prompts": {"inline": PROMPTS, "perShard": 2},
                "sampling": SAMPLING,
                "workers": {"gpusPerNode": 2, "sharedMemory": "256Mi"},
            },
        }
        return {**document, "spec": merged(document["spec"], spec)}

    def small_job(self, name: str, **spec: Any) -> dict[str, Any]:
        """A job of 2 pictures in one shard."""
        return self.job(name, **{"prompts": {"inline": PROMPTS[:2], "perShard": 2}, **spec})

    def long_job(self, name: str, **spec: Any) -> dict[str, Any]:
        """A job of 24 pictures in two shards that take some seconds each, so that something can happen in between.

        The steps are for that: two shards of 6 batches, of which a test sees the first in the store a second or two later.
        """
        long = {"imagesPerPrompt": 6, "prompts": {"inline": PROMPTS[:4], "perShard": 2}, "sampling": {"steps": 16}}
        return self.job(name, **merged(long, spec))

    def read(self, key: str) -> bytes:
        """A file of the store. This machine is busy, so one time-out is none."""
        found: bytes = self.cluster.until(f"{key} can be read", lambda: self._patiently(self.store.get_bytes, key))
        return found

    @staticmethod
    def _patiently(call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except StoreUnreachable:
            return None

    def apply(self, job: Mapping[str, Any]) -> str:
        """Apply a job; its name."""
        self.cluster.apply(job)
        return str(job["metadata"]["name"])

    def get(self, name: str, kind: str = "generationjob") -> dict[str, Any]:
        """A job as it is now."""
        return self.cluster.get(kind, name, namespace=self.namespace)

    def status(self, name: str, kind: str = "generationjob") -> dict[str, Any]:
        """Its status."""
        return dict(self.get(name, kind).get("status") or {})

    def until(self, name: str, phase: str, *, seconds: float = 150, kind: str = "generationjob") -> dict[str, Any]:
        """Wait until a job is in a phase; its status. Fails at once when it ended in another."""

        def there() -> dict[str, Any] | None:
            status = self.status(name, kind)
            if status.get("phase") in ("Complete", "Failed") and status["phase"] != phase:
                raise AssertionError(f"{name} is {status['phase']}:\n{json.dumps(status, indent=1)}\n{self.why(name)}")
            return status if status.get("phase") == phase else None

        try:
            return dict(self.cluster.until(f"{name} is {phase}", there, seconds=seconds))
        except TimeoutError as error:
            raise AssertionError(
                f"{error}\n{json.dumps(self.status(name, kind), indent=1)}\n{self.why(name)}"
            ) from None

    def patch(self, name: str, spec: Mapping[str, Any], kind: str = "generationjob") -> None:
        """Change fields of a job's spec, as a person does."""
        body = json.dumps({"spec": spec})
        self.cluster.kubectl("patch", kind, name, "-n", self.namespace, "--type=merge", "-p", body)

    def children(self, name: str) -> list[dict[str, Any]]:
        """The Kubernetes Jobs of a job."""
        return self.cluster.list("jobs", namespace=self.namespace, selector=f"frazil.dev/job-name={name}")

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a job."""
        return self.cluster.list("pods", namespace=self.namespace, selector=f"frazil.dev/job-name={name}")

    def images(self, name: str) -> dict[str, str]:
        """The images of a job in the store: the last part of the key, and sha256 of the bytes."""
        prefix = str(self.status(name)["outputs"]["uri"]).removeprefix("s3://frazil/results/")
        listed = self.cluster.until(
            "the store can be listed", lambda: self._patiently(lambda: ([*self.store.list(f"{prefix}images/")],))
        )
        keys = [info.key for info in listed[0]]
        return {key.rpartition("/")[2]: hashlib.sha256(self.read(key)).hexdigest() for key in keys}

    def why(self, name: str) -> str:
        """What pods and Events say, for a test that failed."""
        parts = [self.cluster.kubectl("get", "pods,jobs", "-n", self.namespace, "-o", "wide", check=False).stdout]
        for pod in self.pods(name):
            logs = self.cluster.kubectl(
                "logs", pod["metadata"]["name"], "-n", self.namespace, "--all-containers", "--tail=15", check=False
            )
            parts.append(f"==> {pod['metadata']['name']}\n{logs.stdout}{logs.stderr}")
        parts.append(self.cluster.kubectl("get", "events", "-n", self.namespace, check=False).stdout[-3000:])
        parts.append(self.installation.logs(lines=25))
        return "\n".join(parts)

    def remove(self, name: str, kind: str = "generationjob") -> None:
        """Delete a job and wait until it's gone."""
        self.cluster.kubectl("delete", kind, name, "-n", self.namespace, "--ignore-not-found", "--timeout=60s")
