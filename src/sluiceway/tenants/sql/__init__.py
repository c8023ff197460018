"""The tenants' records in SQL, the same for every database that SQLAlchemy Core speaks to."""
