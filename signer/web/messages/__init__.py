"""Request bodies, answers, and errors as answers."""
