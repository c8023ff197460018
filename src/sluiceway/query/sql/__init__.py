"""SQL over a tenant's cold objects, for the operator of the house (docs/cold.md)."""
