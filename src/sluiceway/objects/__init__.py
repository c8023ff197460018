"""Objects: whole files by name, on this machine or on an object store, and a cache of them."""
