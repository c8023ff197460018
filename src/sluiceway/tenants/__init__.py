"""Tenants: who they are, their keys, limits and plans, and how a change reaches everybody."""
