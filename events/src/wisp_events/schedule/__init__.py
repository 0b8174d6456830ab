"""The clock as a source: due ticks of all schedules go into the log, each once however many replicas run."""
