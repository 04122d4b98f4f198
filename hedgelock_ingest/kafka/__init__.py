"""I/O with Kafka: the only home of aiokafka."""
