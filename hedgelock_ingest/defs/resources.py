"""Resources: where Bybit and Kafka are, and the settings that follow. What is not set here the environment says."""

import os
from collections.abc import Mapping

import dagster as dg

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.settings import Settings, load_settings


class BybitResource(dg.ConfigurableResource[None]):
    """
    Bybit: addresses and key; take keys from the environment: `api_key=EnvVar("BYBIT_API_KEY")`.

    What is left out is what the settings say.
    """

    testnet: bool | None = None
    account_id: str | None = None
    api_key: str | None = None
    api_secret: str | None = None
    public_ws_url: str | None = None
    private_ws_url: str | None = None
    rest_url: str | None = None

    def overrides(self) -> dict[str, str]:
        """Give what is set here as the environment would hold it."""
        return {f"BYBIT_{name}": value for name, value in _texts(self.model_dump()).items()}


class KafkaResource(dg.ConfigurableResource[None]):
    """Kafka: brokers and login. What is left out is what the settings say."""

    bootstrap_servers: str | None = None
    security_protocol: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None

    def overrides(self) -> dict[str, str]:
        """Give what is set here as the environment would hold it."""
        return {f"KAFKA_{name}": value for name, value in _texts(self.model_dump()).items()}


class IngestResource(dg.ConfigurableResource[None]):
    """The settings of the whole: the environment and the settings file, under what the two others say."""

    bybit: dg.ResourceDependency[BybitResource]
    kafka: dg.ResourceDependency[KafkaResource]

    def settings(self) -> Settings:
        """
        Read the settings, now.

        Raises:
            Failure: They cannot be used; every wrong one is named. Waiting does not help, so no retry.
        """
        try:
            return load_settings({**os.environ, **self.bybit.overrides(), **self.kafka.overrides()})
        except SettingsInvalid as error:
            raise dg.Failure(f"wrong settings:\n{error}", allow_retries=False) from error


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    return {
        name.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in fields.items()
        if value is not None
    }
