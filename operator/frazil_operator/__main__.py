"""`python -m frazil_operator`: the operator's process."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from frazil_jobs.base.exits import FrazilError
from frazil_operator.settings import DEFAULT_PATH, load_settings


def main() -> int:
    """Read the settings and run; the exit code."""
    parser = argparse.ArgumentParser(
        prog="frazil-operator",
        description="Watches GenerationJobs and TrainingJobs and makes their pods. One replica acts at a time (a Lease).",
        epilog="Environment: FRAZIL_REDIS_URL or FRAZIL_REDIS_URL_FILE, FRAZIL_LOG (json or console), FRAZIL_LOG_LEVEL. "
        "The API server is the pod's own, or that of KUBECONFIG.",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help="settings file (the chart writes it)")
    parser.add_argument("--port", type=int, default=8080, help="for /healthz, /readyz and /metrics")
    parser.add_argument("--check", action="store_true", help="read the settings, say whether they are good, and end")
    args = parser.parse_args()
    try:
        settings = load_settings(args.config)
        if args.check:
            print(settings.model_dump_json(by_alias=True, indent=2))
            return 0
        from frazil_jobs.outputs.celery_app import redis_url_of
        from frazil_operator.engine.operator import run

        return run(settings, broker=redis_url_of(os.environ), port=args.port)
    except FrazilError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
