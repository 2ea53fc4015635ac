"""Workers: the log in a real Kafka folded into a real PostgreSQL by one process and by several."""
