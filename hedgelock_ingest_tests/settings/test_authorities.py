"""Variables that name certificate authorities are refused by name if they would have no effect."""

from pathlib import Path

import pytest
import trustme

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.settings import load_settings

SHIPPED_FILE = Path(__file__).parents[2] / "config" / "collector.yaml"
PLAIN = {
    "BYBIT_PUBLIC_WS_URL": "ws://127.0.0.1:1/v5/public",
    "BYBIT_PRIVATE_WS_URL": "ws://127.0.0.1:1/v5/private",
    "BYBIT_REST_URL": "http://127.0.0.1:1",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PEM file with one certificate."""
    file = tmp_path_factory.mktemp("authority") / "authority.pem"
    trustme.CA().cert_pem.write_to_path(file)
    return str(file)


@pytest.mark.parametrize("name", ["missing.pem", "empty.pem", "text.pem", ".", "\0"])
def test_file_without_a_certificate_is_refused(tmp_path: Path, name: str) -> None:
    """Every connection would fail with words about the server's certificate."""
    (tmp_path / "empty.pem").touch()
    (tmp_path / "text.pem").write_text("nothing")
    problem = refused({"SSL_CERT_FILE": str(tmp_path / name)})
    assert problem.startswith("SSL_CERT_FILE (environment): the file ")
    load_settings({**PLAIN, "SSL_CERT_FILE": str(tmp_path / name)}, SHIPPED_FILE)


def test_folder_without_certificates_is_refused(tmp_path: Path) -> None:
    """OpenSSL finds certificates there by their hash; one good folder of several suffices."""
    for folder in (tmp_path, tmp_path / "missing"):
        assert refused({"SSL_CERT_DIR": str(folder)}).startswith("SSL_CERT_DIR (environment): ")
    (tmp_path / "5ed36f99.0").touch()
    load_settings({"SSL_CERT_DIR": f"{tmp_path / 'missing'}:{tmp_path}"}, SHIPPED_FILE)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_variable_of_other_programs_is_refused_unless_ours_is_set(authority: str, name: str) -> None:
    """REST would not know the authority of a network that intercepts TLS."""
    problem = refused({name: authority})
    assert problem.startswith(f"{name} (environment): it is not read; name this file in SSL_CERT_FILE")
    load_settings({name: authority, "SSL_CERT_FILE": authority}, SHIPPED_FILE)
    load_settings({name: "", "SSL_CERT_FILE": ""}, SHIPPED_FILE)


def refused(environ: dict[str, str]) -> str:
    """Return the one problem of settings that must be refused."""
    with pytest.raises(SettingsInvalid) as error:
        load_settings(environ, SHIPPED_FILE)
    (problem,) = error.value.problems
    return problem
