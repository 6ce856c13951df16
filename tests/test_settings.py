"""Are the settings read strictly, and shown without their secrets?"""

from pathlib import Path

import pytest

from app.errors import SettingsError
from app.settings import Settings, describe, load_settings


def settings(**environ: str) -> Settings:
    return load_settings({f"PHASEGATE_{name}": value for name, value in environ.items()})


def test_an_empty_environment_is_a_whole_configuration() -> None:
    chosen = load_settings({"PATH": "/bin", "HOME": "/root"})
    assert (chosen.host, chosen.port, chosen.model, chosen.legacy) == ("127.0.0.1", 8000, True, "rules")
    assert chosen.key_file == chosen.data_dir / "admin.key"
    assert chosen.database_url == f"sqlite:///{chosen.data_dir}/phasegate.db"


def test_what_follows_from_a_setting_follows_the_one_given() -> None:
    chosen = settings(DATA_DIR="/srv/pg", PORT="9001", HOST="0.0.0.0")
    assert chosen.database_url == "sqlite:////srv/pg/phasegate.db"
    assert chosen.key_file == Path("/srv/pg/admin.key")
    assert chosen.url == "http://127.0.0.1:9001"


def test_an_ipv6_host_makes_a_url_that_clients_can_use() -> None:
    assert settings(HOST="::").url == "http://[::1]:8000"
    assert settings(HOST="fe80::1").url == "http://[fe80::1]:8000"


def test_an_empty_value_counts_as_unset() -> None:
    assert settings(PORT="").port == 8000


def test_an_unknown_variable_fails_with_the_likely_name() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(PROT="1")
    assert str(caught.value) == "PHASEGATE_PROT: is not a setting; did you mean PHASEGATE_PORT?"
    assert caught.value.name == "PHASEGATE_PROT"


def test_an_unlike_variable_is_sent_to_the_list() -> None:
    with pytest.raises(SettingsError, match="`phasegate settings` lists them all"):
        settings(QQQQQQQQQQQQ="1")


def test_variables_of_the_test_suite_are_left_alone() -> None:
    assert settings(TEST_POSTGRES_URL="anything").port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("MODEL", "maybe"),
        ("DATABASE_URL", "mysql://x/y"),
        ("DATABASE_URL", "phasegate.db"),
        ("LEGACY", "opa"),
        ("LEGACY", "opa:ftp://x"),
        ("LEGACY_DEADLINE_MS", "nan"),
        ("LEGACY_DEADLINE_MS", "0"),
        ("MODEL_FAULT", "slow:often"),
        ("LOG_LEVEL", "loud"),
        ("GUARDRAIL_INTERVAL_S", "61"),
        ("SNAPSHOT_INTERVAL_S", "3"),
        ("RETENTION_DAYS", "1.5"),
        ("QUEUE_LIMIT", "-1"),
        ("ADMIN_KEY", "k" * 31),
        ("ADMIN_KEY", "k k" * 31),
        ("URL", "localhost:8000"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^PHASEGATE_{name}: must ") as caught:
        settings(**{name: value})
    assert caught.value.name == f"PHASEGATE_{name}"


def test_a_bad_secret_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(ADMIN_KEY="hunter2hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("given", ["postgres://u@h/db", "postgresql://u@h/db", "postgresql+psycopg://u@h/db"])
def test_a_postgresql_address_names_our_driver(given: str) -> None:
    assert settings(DATABASE_URL=given).database_url == "postgresql+psycopg://u@h/db"


@pytest.mark.parametrize("fault", ["hang", "crash", "garbage", "slow:250"])
def test_a_fault_is_refused_outside_drills(fault: str) -> None:
    with pytest.raises(SettingsError, match="PHASEGATE_DRILLS=1"):
        settings(MODEL_FAULT=fault)
    assert settings(MODEL_FAULT=fault, DRILLS="1").model_fault == fault


def test_a_dash_sends_the_log_to_stderr() -> None:
    assert settings(LOG_FILE="-").log_file is None
    assert settings(DATA_DIR="/srv/pg").log_file == Path("/srv/pg/phasegate.log")


def test_secrets_are_shown_nowhere() -> None:
    chosen = settings(
        ADMIN_KEY="s3cret" * 8,
        KEY="pg_s3cret",
        DATABASE_URL="postgresql://me:s3cret@h/db",
        LEGACY="opa:http://a:s3cret@h",
    )
    assert "s3cret" not in repr(describe(chosen))
    assert "s3cret" not in repr(chosen)
    shown = {row.name: row.value for row in describe(chosen)}
    assert shown["PHASEGATE_DATABASE_URL"] == "postgresql+psycopg://me:********@h/db"


def test_every_setting_is_described() -> None:
    rows = {row.name for row in describe(settings())}
    assert rows == {f"PHASEGATE_{field.upper()}" for field in Settings.__struct_fields__}
