"""Connects lines, journal, translation and Kafka through two small Protocols."""
