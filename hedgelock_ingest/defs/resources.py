"""Dagster resources: addresses of Bybit and Kafka, and the settings. Fields left out are read from the environment."""

import os
from collections.abc import Mapping

import dagster as dg

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.settings import Settings, load_settings


class BybitResource(dg.ConfigurableResource[None]):
    """
    Addresses and key of Bybit; keys come from the environment: `api_key=EnvVar("BYBIT_API_KEY")`.

    Fields left out keep the value of the settings.
    """

    testnet: bool | None = None
    account_id: str | None = None
    api_key: str | None = None
    api_secret: str | None = None
    public_ws_url: str | None = None
    private_ws_url: str | None = None
    rest_url: str | None = None

    def overrides(self) -> dict[str, str]:
        """Return the fields that are set, as environment variables."""
        return {f"BYBIT_{name}": value for name, value in _texts(self.model_dump()).items()}


class KafkaResource(dg.ConfigurableResource[None]):
    """Brokers and login of Kafka. Fields left out keep the value of the settings."""

    bootstrap_servers: str | None = None
    security_protocol: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None

    def overrides(self) -> dict[str, str]:
        """Return the fields that are set, as environment variables."""
        return {f"KAFKA_{name}": value for name, value in _texts(self.model_dump()).items()}


class IngestResource(dg.ConfigurableResource[None]):
    """All settings: the environment and the settings file, overridden by the resources `bybit` and `kafka`."""

    bybit: dg.ResourceDependency[BybitResource]
    kafka: dg.ResourceDependency[KafkaResource]

    def settings(self) -> Settings:
        """
        Read the settings.

        Raises:
            Failure: The settings are wrong; each problem is named. Waiting does not help, so there is no retry.
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
