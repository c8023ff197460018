"""What storage, work and memory cost, and who they are for."""
