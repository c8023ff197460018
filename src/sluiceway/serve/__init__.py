"""The processes of `sluiceway serve`: their directories, budgets, life and own paths."""
