"""What should be done about a job, decided purely: `reconcile(observed, now, settings) -> Plan`. Nothing here does I/O."""
