"""Quotas: how fast a tenant may send, decided before a body is read."""
