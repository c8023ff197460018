"""The two processes, put together: the only place that names backends."""
