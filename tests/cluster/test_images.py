"""The images that users build, built for real on a base made from Debian, and run under Pod Security `restricted`."""

from __future__ import annotations

import pytest
from testcluster import images

RUN = {
    "operator": (["python", "-m", "frazil_operator", "--check", "--config", "/dev/null"], 0, '"leaseName"'),
    "worker": (["python", "-m", "frazil_jobs.inputs.fetch"], 78, "FRAZIL_JOB_FILE"),
    "jobs": (["python", "-m", "frazil_jobs.generation"], 78, "FRAZIL_SPOOL"),
}
# What is in an image and what is not: torch only where the GPUs are, clients of store and broker only elsewhere.
HOLDS = {"operator": ("kopf", "torch"), "worker": ("minio", "torch"), "jobs": ("torch", "minio")}
TOOLS = "cc gcc g++ clang make pip pip3"  # that no image has: `command -v` of a plain shell looks for one name alone
LOOK = "import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None or u.find_spec(sys.argv[2]) is not None)"


@pytest.fixture(scope="module", params=["operator", "worker", pytest.param("jobs", marks=pytest.mark.slow)])
def image(request, cluster):
    """One of them, built and on the node."""
    archive = images.built(request.param)
    cluster.node().load(archive)
    return request.param


def test_it_runs_as_nobody_says_what_it_is_and_holds_no_compiler(image, tenant):
    config = images.inspected(image)
    assert config["User"] == "65532:65532"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"frazil-{image}"
    assert {"org.opencontainers.image.version", "org.opencontainers.image.revision"} <= set(labels)
    command, code, said = RUN[image]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"image-{image}", "namespace": tenant.namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": name,
                    "image": f"frazil.test/{image}:0.1.0",
                    "imagePullPolicy": "Never",
                    "command": given,
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
                for name, given in {
                    "program": command,
                    "tools": ["sh", "-c", f"for tool in {TOOLS}; do if command -v $tool; then exit 1; fi; done"],
                    "packages": ["python", "-c", LOOK, *HOLDS[image]],
                }.items()
            ],
        },
    }
    cluster = tenant.cluster
    cluster.apply(pod)

    def ended() -> dict[str, int] | None:
        statuses = cluster.get("pod", f"image-{image}", namespace=tenant.namespace)["status"].get(
            "containerStatuses", []
        )
        found = {one["name"]: one["state"].get("terminated") for one in statuses}
        return {name: end["exitCode"] for name, end in found.items()} if found and all(found.values()) else None

    codes = cluster.until("its containers have ended", ended, seconds=180)
    logs = cluster.kubectl("logs", f"image-{image}", "-n", tenant.namespace, "-c", "program").stdout
    cluster.kubectl("delete", "pod", f"image-{image}", "-n", tenant.namespace, "--wait=false")
    assert codes == {"program": code, "tools": 0, "packages": 0}, (codes, logs)
    assert said in logs
