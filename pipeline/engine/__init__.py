"""Many attempts: queue, workers, retries, throttle, wallet."""
