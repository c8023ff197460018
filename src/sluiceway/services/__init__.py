"""What crosses stages: replays of dead letters."""
