"""What the benchmark measures (`tasks`), on which data (`data`), and its table."""
