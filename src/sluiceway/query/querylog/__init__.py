"""Which queries were asked, by whom and at what cost. Format: docs/formats/query_log.md."""
