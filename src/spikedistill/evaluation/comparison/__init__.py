"""Several runs beside each other: what is kept of each, and what can be told apart."""
