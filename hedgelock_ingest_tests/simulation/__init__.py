"""The simulation: the real pipeline in virtual time, with exchange, broker and disk in memory, and seeded faults."""
