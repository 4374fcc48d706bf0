"""Many attempts: queue, workers, retries, pace, wallet."""
