"""The simulation: the real pipeline in virtual time, between counterparts in memory, under faults drawn from a seed."""
