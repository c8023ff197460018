"""Backups of a data directory, and data directories made of backups (docs/formats/backup.md)."""
