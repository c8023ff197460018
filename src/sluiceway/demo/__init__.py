"""The demo: a small simulated fleet pushes to a real server, and the answers are shown."""
