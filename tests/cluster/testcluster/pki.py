"""Certificates and tokens of the cluster, by openssl."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path


def make(folder: Path, *, address: str, service: str) -> None:
    """A CA, the API server's certificate, its client certificate for kubelets, and the key of service accounts."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=frazil-test-ca",
        "-keyout",
        folder / "ca.key",
        "-out",
        folder / "ca.crt",
    )
    names = [
        "IP:127.0.0.1",
        f"IP:{address}",
        f"IP:{service}",
        "DNS:localhost",
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        "DNS:kubernetes.default.svc.cluster.local",
    ]
    _signed(folder, "apiserver", "/CN=kube-apiserver", names=",".join(names))
    _signed(folder, "kubelet-client", "/O=system:masters/CN=apiserver-kubelet-client")
    _openssl("genrsa", "-out", folder / "service-account.key", "2048")
    _openssl("rsa", "-in", folder / "service-account.key", "-pubout", "-out", folder / "service-account.pub")
    token = secrets.token_hex(16)
    (folder / "token").write_text(token)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    (folder / "done").touch()


def kubeconfig(folder: Path, path: Path, *, server: str) -> Path:
    """A kubeconfig of the administrator."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "frazil-test",
        "clusters": [
            {"name": "frazil-test", "cluster": {"server": server, "certificate-authority": str(folder / "ca.crt")}}
        ],
        "users": [{"name": "admin", "user": {"token": (folder / "token").read_text()}}],
        "contexts": [{"name": "frazil-test", "context": {"cluster": "frazil-test", "user": "admin"}}],
    }
    path.write_text(json.dumps(document, indent=2))
    return path


def _signed(folder: Path, name: str, subject: str, *, names: str | None = None) -> None:
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    _openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", folder / f"{name}.key", "-out", request
    )
    usage = "extendedKeyUsage=serverAuth,clientAuth\n"
    extensions.write_text(usage + (f"subjectAltName={names}\n" if names else ""))
    _openssl(
        "x509",
        "-req",
        "-in",
        request,
        "-CA",
        folder / "ca.crt",
        "-CAkey",
        folder / "ca.key",
        "-CAcreateserial",
        "-days",
        "30",
        "-extfile",
        extensions,
        "-out",
        folder / f"{name}.crt",
    )


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
