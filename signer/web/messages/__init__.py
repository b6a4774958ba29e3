"""What goes in and comes out of a request: bodies, answers, errors as answers."""
