"""A shard's checkpoint on an object store, and taking a shard over (docs/formats/offsite.md)."""
