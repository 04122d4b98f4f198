"""Certificate authorities that the environment names for connections to Bybit."""

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

_NOT_READ = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# OpenSSL finds a certificate in a folder by the hash of its subject: 5ed36f99.0.
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")


def authority_problems(environ: Mapping[str, str]) -> Iterator[str]:
    """
    Yield what is wrong with the variables that name authorities, with the variable's name and the action.

    `SSL_CERT_FILE` serves REST and lines, `SSL_CERT_DIR` lines only. Variables of other programs, which name a file
    for REST alone, are refused unless `SSL_CERT_FILE` is set beside them.
    """
    file, folders = environ.get("SSL_CERT_FILE", ""), environ.get("SSL_CERT_DIR", "")
    if file and (reason := _file_problem(file)):
        yield f"SSL_CERT_FILE (environment): {reason}; name a PEM file with all authorities, or unset it"
    if folders and not any(map(_holds_certificates, folders.split(os.pathsep))):
        yield (
            "SSL_CERT_DIR (environment): it names no readable folder with certificates under their hashes; run "
            '"openssl rehash" there, correct it, or unset it'
        )
    if not file:
        for name in filter(environ.get, _NOT_READ):
            yield f"{name} (environment): it is not read; name this file in SSL_CERT_FILE, or unset it"


def _file_problem(file: str) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError:
        return "the file holds no certificate that can be read"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return f"the file cannot be read ({reason or 'not the name of a file'})"
    return None if context.cert_store_stats()["x509"] else "the file holds no certificate"


def _holds_certificates(folder: str) -> bool:
    try:
        return any(_HASHED_NAME.fullmatch(each.name) for each in Path(folder).iterdir())
    except (OSError, ValueError):
        return False
