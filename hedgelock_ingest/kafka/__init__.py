"""Kafka I/O: clients, publishing, consuming, topics; the only package that imports aiokafka."""
