"""
The settings of the service: `model` declares, `validators` check each, `conflicts` compare, `sources` read them.

`proxies` reads the variables of the environment that all programs share.

Imports `errors`, and nothing else of the project.
"""

from hedgelock_ingest.settings.model import TOPIC_FIELDS, Settings, Shard, origins, secrets, shown_value
from hedgelock_ingest.settings.sources import load_settings

__all__ = ["TOPIC_FIELDS", "Settings", "Shard", "load_settings", "origins", "secrets", "shown_value"]
