"""`python -m testcluster COMMAND`: a real Kubernetes on this machine, with Frazil on it.

`build` its programs; `up`, `install` (up, with the chart installed), `status`, `logs`, `down`; `image PART` builds one of
the images; `plane` is a control plane without nodes, for `frazil bench operator`: it serves until it's told to stop.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from testcluster import binaries, images, plane
from testcluster.cluster import Cluster, default_state
from testcluster.frazil import CHECKOUT, TENANTS, Installation, values
from testcluster.machine import reason_not_to
from testcluster.tenant import Tenant


def main() -> int:
    """Do what was asked; the exit code."""
    parser = argparse.ArgumentParser(prog="testcluster", description=__doc__)
    parser.add_argument("command", choices=["build", "up", "install", "down", "status", "logs", "plane", "image"])
    parser.add_argument("part", nargs="?", choices=["operator", "worker", "jobs"], help="of `image`")
    parser.add_argument("--state", type=Path, default=default_state(), help="folder of the cluster (%(default)s)")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=4, help="GPUs that each node pretends to have")
    args = parser.parse_args()
    cluster = Cluster(args.state)
    try:
        if args.command == "build":
            if reason := reason_not_to():
                print(f"no cluster here: {reason}; tests that need one are skipped")
                return 0
            print(binaries.build())
        elif args.command in ("up", "install"):
            if reason := reason_not_to():
                print(f"no cluster here: {reason}", file=sys.stderr)
                return 1
            cluster.up(nodes=args.nodes, gpus=args.gpus, checkout=CHECKOUT)
            if args.command == "install":
                installation = Installation(cluster)
                installation.install(values(*TENANTS))
                print(first_steps(installation, example(installation)))
            else:
                print(f"export KUBECONFIG={cluster.kubeconfig}")
        elif args.command == "image":
            if args.part is None:
                parser.error("image: which one?")
            print(images.built(args.part))
        elif args.command == "plane":
            plane.serve(args.state)
        elif args.command == "down":
            cluster.down()
        elif args.command == "logs":
            print(cluster.logs())
        else:
            up = cluster.is_up()
            print(f"{'up' if up else 'down'}: {args.state}")
            return 0 if up else 1
    except (binaries.CannotBuild, TimeoutError) as error:
        print(error, file=sys.stderr)
        if args.command in ("up", "install"):
            print(cluster.logs(lines=8), file=sys.stderr)
        return 1
    return 0


def first_steps(installation: Installation, job: Path) -> str:
    """What to type next."""
    cluster, tenant = installation.cluster, TENANTS[0]
    return f"""Frazil is installed. Jobs can run in the namespaces {" and ".join(TENANTS)}:

export PATH={cluster.bin}:{CHECKOUT}/.venv/bin:$PATH
export KUBECONFIG={cluster.kubeconfig}
kubectl apply -f {job}      # six pictures by the small model, from this cluster's store
frazil watch first -n {tenant}
frazil fetch first -n {tenant} --to pictures
frazil doctor -n {tenant}

`make cluster-down` ends it."""


def example(installation: Installation) -> Path:
    """A job to begin with, as a file; its model is put into the store."""
    path = installation.cluster.state / "job.yaml"
    path.write_text(yaml.safe_dump(Tenant(installation, TENANTS[0]).job("first"), sort_keys=False))
    return path


if __name__ == "__main__":
    sys.exit(main())
