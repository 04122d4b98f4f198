"""Quotes, spaces and line ends of an env file that are no part of a value are refused by name, or dropped."""

from pathlib import Path

import pytest

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.settings import Settings, load_settings, secrets

SHIPPED_FILE = Path(__file__).parents[2] / "config" / "collector.yaml"
IN_ENVIRONMENT = sorted({name.upper() for name in Settings.model_fields} - {"SHARDS"})
SECRET = {"BYBIT_API_KEY", "BYBIT_API_SECRET", "KAFKA_SASL_PASSWORD", "KAFKA_SSL_PASSWORD", "ALERT_WEBHOOK_URL"}
EXACT = ("BYBIT_API_KEY", "BYBIT_API_SECRET", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", "KAFKA_SSL_PASSWORD")


def a_file(tmp_path: Path, text: str) -> Path:
    """Write a settings file."""
    path = tmp_path / "collector.yaml"
    path.write_text(text)
    return path


def problems(environ: dict[str, str], config_file: Path = SHIPPED_FILE) -> list[str]:
    """Return the problems of settings that must be refused."""
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(environ, config_file)
    return refused.value.problems


@pytest.mark.parametrize(
    "value",
    ['"s3cret"', "'s3cret'", "`s3cret`", '""', '"', "“s3cret”", "„s3cret“", "«s3cret»", '“s3cret"', '"s3cret"\r\n'],
)
def test_values_in_quotes_are_all_refused_by_name(value: str) -> None:
    """`docker run --env-file` passes quotes on, and a folder with quotes is another one; secrets stay hidden."""
    found = problems(dict.fromkeys(IN_ENVIRONMENT, value))
    assert [line.split()[0] for line in found] == IN_ENVIRONMENT
    for problem in found:
        assert "it begins and ends with a quote" in problem
        assert "remove both quotes" in problem
        is_secret = problem.split()[0] in SECRET
        assert not is_secret or "s3cret" not in problem
        assert is_secret == ("found " not in problem)
        assert is_secret == ("allowed: " not in problem)


def test_quotes_around_a_plain_setting_are_reported_with_the_value_and_what_is_allowed() -> None:
    """As every other error of a setting."""
    (problem,) = problems({"BYBIT_SPOT_SYMBOLS": '"BTCUSDT"'})
    assert problem == (
        'BYBIT_SPOT_SYMBOLS (environment): found ""BTCUSDT""; it begins and ends with a quote, which an env file '
        "passes on as a part of the value; remove both quotes; allowed: symbols in upper case, separated by commas, "
        "such as BTCUSDT,ETHUSDT; correct it, or leave it out for the default: BTCUSDT"
    )


@pytest.mark.parametrize(
    ("name", "value", "names_the_file"),
    [
        ("KAFKA_SSL_PASSWORD", '"s3cret"', True),
        ("KAFKA_SSL_PASSWORD", " s3cret", True),
        ("KAFKA_SSL_PASSWORD", "“s3cret”", False),
        ("KAFKA_SSL_PASSWORD", '“s3cret"', False),
        ("BYBIT_API_KEY", '"s3cret"', False),
        ("BYBIT_API_SECRET", " s3cret", False),
        ("BYBIT_SPOT_SYMBOLS", '"BTCUSDT"', False),
    ],
)
def test_the_file_is_advised_only_where_it_accepts_the_value(
    tmp_path: Path, name: str, value: str, *, names_the_file: bool
) -> None:
    """Typographic quotes, and keys with spaces, are refused in the file, too."""
    (problem,) = (each for each in problems({name: value}) if each.startswith(name))
    assert ("set it in the file" in problem) == names_the_file
    if names_the_file:
        assert secrets(load_settings({}, a_file(tmp_path, f"{name}: '{value}'"))) == (value,)


def test_setting_that_needs_one_in_quotes_is_not_also_refused() -> None:
    """The second problem would go with the first."""
    (problem,) = problems({"BYBIT_API_KEY": '"k"', "BYBIT_API_SECRET": "s"})
    assert problem.startswith("BYBIT_API_KEY (environment): ")


def test_quote_inside_or_at_one_end_is_a_part_of_a_password() -> None:
    """Only a pair around the value comes from a file."""
    for value in ('"pass', "pass'", 'pa"ss', "\"pass'", "it's"):
        settings = load_settings({"KAFKA_SSL_PASSWORD": value}, SHIPPED_FILE)
        assert secrets(settings) == (value,)


@pytest.mark.parametrize("value", [" s3cret", "s3cret ", "\ts3cret", "s3cret\u00a0", "\ufeffs3cret", "s3cret\u200b"])
def test_space_around_a_secret_is_refused_and_not_cut(value: str) -> None:
    """It may be a part of a password, and no one sees it."""
    found = problems(dict.fromkeys(EXACT, value))
    assert [line.split()[0] for line in found] == list(EXACT)
    for problem in found:
        assert "it begins or ends with a space or an invisible character" in problem
        assert problem.split()[0] not in SECRET or "s3cret" not in problem


def test_value_that_is_no_text_is_refused() -> None:
    """The login would fail on it later, and end the process."""
    found = problems(dict.fromkeys(IN_ENVIRONMENT, "s3cr\udcffet"))
    assert [line.split()[0] for line in found] == IN_ENVIRONMENT
    for problem in found:
        assert "it is not UTF-8 text" in problem
        assert problem.isprintable()
        assert problem.split()[0] not in SECRET or "s3cr" not in problem


def test_end_of_a_line_is_no_part_of_a_value() -> None:
    """An env file with Windows line ends, and a secret mounted from a file, end with one."""
    environ = {"BYBIT_API_KEY": "k\r", "BYBIT_API_SECRET": "s\n", "BYBIT_LINES": "1\r", "BYBIT_ACCOUNT_ID": " desk\r"}
    settings = load_settings(environ, SHIPPED_FILE)
    assert secrets(settings) == ("k", "s")
    assert (settings.bybit_lines, settings.bybit_account_id) == (1, "desk")
    assert load_settings({"BYBIT_API_KEY": " \r\n"}, SHIPPED_FILE).bybit_api_key is None


def test_quotes_and_spaces_that_are_meant_can_be_set_in_the_file(tmp_path: Path) -> None:
    """YAML removes its own quotes, so what is left is meant."""
    path = a_file(tmp_path, "KAFKA_SSL_PASSWORD: '\"s3cret\"'\nALERT_WEBHOOK_URL: 'https://h/x'\n")
    assert secrets(load_settings({}, path)) == ('"s3cret"', "https://h/x")
    path = a_file(tmp_path, 'KAFKA_SSL_PASSWORD: " s3cret "\n')
    assert secrets(load_settings({}, path)) == (" s3cret ",)
    (problem,) = problems({}, a_file(tmp_path, "KAFKA_SSL_PASSWORD: “s3cret”\n"))
    assert problem.startswith(f"KAFKA_SSL_PASSWORD ({path}): it begins and ends with a quote")
    assert "s3cret" not in problem
