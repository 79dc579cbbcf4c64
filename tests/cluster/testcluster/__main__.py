"""`python -m testcluster up|down|status|logs|build`: a real Kubernetes on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from testcluster import binaries
from testcluster.cluster import Cluster, default_state

CHECKOUT = Path(__file__).resolve().parents[3]


def main() -> int:
    """Do what was asked; the exit code."""
    parser = argparse.ArgumentParser(prog="testcluster", description=__doc__)
    parser.add_argument("command", choices=["build", "up", "down", "status", "logs"])
    parser.add_argument("--state", type=Path, default=default_state(), help="folder of the cluster (%(default)s)")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=4, help="GPUs that each node pretends to have")
    args = parser.parse_args()
    cluster = Cluster(args.state)
    try:
        if args.command == "build":
            print(binaries.build())
        elif args.command == "up":
            cluster.up(nodes=args.nodes, gpus=args.gpus, checkout=CHECKOUT)
            print(f"export KUBECONFIG={cluster.kubeconfig}")
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
        print(cluster.logs(lines=8), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
