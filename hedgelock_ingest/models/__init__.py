"""
Published messages as pydantic models, the contract for consumers.

Pure. Imports pydantic, and no other package of the project.
"""
