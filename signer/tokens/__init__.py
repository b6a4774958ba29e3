"""A token by itself: its claims, their rules, the keys, and the text that it is. No clock, no list."""
