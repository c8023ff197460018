"""Export to a file, import from one or from a Prometheus: what runs beside a server."""
