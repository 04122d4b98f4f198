"""
The demo: exchange, broker and Dagster on one machine.

May import `kafka`, `settings`, `logs` and the other parts of `sandbox`.
"""
