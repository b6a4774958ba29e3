"""HTTP connections: how requests are read from them, and how answers are written to them."""
