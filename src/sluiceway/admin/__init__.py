"""The admin API: tenants, plans, keys, overrides, the audit log; on the read side."""
