"""Ports forwarded through a real API server."""

import hashlib
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from frazil_cli.cluster.client import NotFound
from frazil_cli.cluster.forward import ServiceAddress, forwarded, pod_port, service_of
from frazil_jobs.base.exits import FrazilError, TryAgain
from frazil_jobs.stores import open_store

STORE = ServiceAddress("store", "frazil-system", 9000)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://frazil-minio.frazil-system.svc:9000", ServiceAddress("frazil-minio", "frazil-system", 9000)),
        ("http://minio.store.svc.cluster.local", ServiceAddress("minio", "store", 80)),
        ("https://minio.store.svc", ServiceAddress("minio", "store", 443)),
        ("redis://user:word@redis.frazil.svc/0", ServiceAddress("redis", "frazil", 6379)),
        ("https://s3.amazonaws.com", None),
        ("http://10.0.0.1:9000", None),
        ("http://minio:9000", None),
        ("http://a.b.c.svc:9000", None),
    ],
)
def test_only_names_of_services_lead_through_the_api_server(endpoint, expected):
    assert service_of(endpoint) == expected


def test_a_named_target_port_is_looked_up_in_the_pod():
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "targetPort": "web"}, {"port": 81}]}}
    pod = {"spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]}}
    assert pod_port(service, pod, 80) == 8080
    assert pod_port(service, pod, 81) == 81
    with pytest.raises(LookupError, match="no port 82"):
        pod_port(service, pod, 82)


def test_what_goes_through_is_what_comes_out_also_of_many_connections_at_once(plane, namespace):
    data = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(200_000))
    here = plane.store.config(plane.store.bucket("forwarded"))
    with forwarded(plane.cluster(namespace), STORE) as port:
        through = open_store(here.model_copy(update={"endpoint": f"http://127.0.0.1:{port}"}))
        through.put_bytes("up", data, content_type="text/plain")
        assert open_store(here).get_bytes("up") == data
        with ThreadPoolExecutor(8) as pool:
            assert all(found == data for found in pool.map(lambda _: through.get_bytes("up"), range(16)))


def test_the_port_is_closed_afterwards(plane, namespace):
    with forwarded(plane.cluster(namespace), STORE) as port:
        address = f"http://127.0.0.1:{port}/"
        with pytest.raises(urllib.error.HTTPError):  # the store's answer to nobody
            urllib.request.urlopen(address, timeout=20)
    with pytest.raises(OSError):
        urllib.request.urlopen(address, timeout=20)


def test_a_service_without_a_ready_pod_is_said(plane, namespace):
    plane.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "empty", "namespace": namespace},
            "spec": {"selector": {"no": "one"}, "ports": [{"port": 80}]},
        }
    )
    cluster = plane.cluster(namespace)
    with pytest.raises(TryAgain, match="no pod of the Service"):
        forwarded(cluster, ServiceAddress("empty", namespace, 80)).__enter__()
    with pytest.raises(NotFound):
        forwarded(cluster, ServiceAddress("none", namespace, 80)).__enter__()


def test_without_the_right_to_forward_the_remedy_is_named(plane):
    from frazil_cli.cluster.access import Access
    from frazil_cli.cluster.client import Cluster

    look = {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["get", "list"]}
    person = plane.person("frazil-system", look)
    with pytest.raises(FrazilError) as caught:
        forwarded(Cluster.connect(Access(kubeconfig=person, namespace="frazil-system")), STORE).__enter__()
    assert "403" in caught.value.message
    assert "pods/portforward" in caught.value.remedy


def test_a_pod_that_takes_the_place_of_another_is_found(plane, namespace):
    def serve(name):
        meta = {"name": name, "namespace": namespace, "labels": {"serves": "store"}}
        container = {"name": "store", "image": "store", "ports": [{"containerPort": 9000}]}
        spec = {"nodeName": "pretended", "containers": [container]}
        plane.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        plane.kubectl.kubectl(
            "wait", "pod", name, "-n", namespace, "--for=condition=Ready", "--timeout=60s", seconds=90
        )

    meta = {"name": "store", "namespace": namespace}
    spec = {"selector": {"serves": "store"}, "ports": [{"port": 9000}]}
    plane.kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    serve("first")
    here = plane.store.config(plane.store.bucket("forwarded"))
    with forwarded(plane.cluster(namespace), ServiceAddress("store", namespace, 9000)) as port:
        plane.kubectl.kubectl("delete", "pod", "first", "-n", namespace, "--grace-period=0", "--force")
        serve("second")
        through = open_store(here.model_copy(update={"endpoint": f"http://127.0.0.1:{port}"}))
        through.put_bytes("anew", b"anew", content_type="text/plain")
        assert open_store(here).get_bytes("anew") == b"anew"
