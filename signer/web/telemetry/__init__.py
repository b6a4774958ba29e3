"""What the service reports about itself: the request log and metrics."""
