"""Sluiceway: an ingestion pipeline for metrics and logs."""

__version__ = "0.1.0"
