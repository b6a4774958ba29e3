"""Who can call the service, from where, and how often."""
