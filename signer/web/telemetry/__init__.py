"""What the service tells about itself: request log and metrics."""
