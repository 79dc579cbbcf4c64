"""Prometheus metrics of the operator. No label holds a job's name: the number of series does not grow with jobs."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """One registry, so that tests and several operators in a process don't meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        buckets = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
        self.reconciles = Counter(
            "frazil_reconcile", "Reconciles by their end (ok, conflict, error).", ["result"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "frazil_reconcile_seconds",
            "Time of one reconcile with its writes.",
            buckets=buckets,
            registry=self.registry,
        )
        self.waited_seconds = Histogram(
            "frazil_queue_wait_seconds", "From being added to being worked on.", buckets=buckets, registry=self.registry
        )
        self.event_to_write_seconds = Histogram(
            "frazil_event_to_write_seconds",
            "From the event that a job was looked at for to the end of the writes that came of it.",
            buckets=(*buckets, 60, 120, 300),
            registry=self.registry,
        )
        self.queue_depth = Gauge("frazil_queue_depth", "Jobs that wait to be reconciled.", registry=self.registry)
        self.writes = Counter(
            "frazil_api_writes", "Writes to the API server.", ["verb", "resource"], registry=self.registry
        )
        self.jobs = Gauge("frazil_jobs", "Jobs by kind and phase.", ["kind", "phase"], registry=self.registry)
        self.asks = Counter(
            "frazil_tasks_asked", "Tasks asked of the workers, each time they are.", ["task"], registry=self.registry
        )
        self.tasks_open = Gauge(
            "frazil_tasks_open", "Tasks that the workers have not answered.", ["task"], registry=self.registry
        )
        self.task_oldest_seconds = Gauge(
            "frazil_task_oldest_seconds",
            "Age of the oldest task that is not answered; it grows while no worker is at work.",
            registry=self.registry,
        )
        self.gang_provider = Gauge(
            "frazil_gang_provider", "1 for the gang scheduling in use.", ["provider"], registry=self.registry
        )
        self.leader = Gauge("frazil_leader", "1 while this replica holds the lease.", registry=self.registry)
        self.outages = Counter(
            "frazil_redis_errors", "Times that Redis did not answer.", ["during"], registry=self.registry
        )

    def wrote(self, verb: str, kind: str) -> None:
        """Count a write."""
        self.writes.labels(verb=verb, resource=kind.lower()).inc()
