"""``alerts.toml``: what it may say, and in which line what it may not say is refused."""

import ast
import re

import pytest
from processes import PROJECT

from advisor import red_flags
from advisor.alerts.rules import DEFAULT_RULES, alerting
from storage.commandline import BadInput

SECRET = "https://hooks.example.com/services/SECRET"
PHONE = f'[destinations.phone]\nwebhook = "{SECRET}"\nkind = "slack"\n'


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "alerts.toml"

    def read(text, mode=0o600):
        path.write_text(text)
        path.chmod(mode)
        return alerting(str(path))

    return read


def test_without_a_file_there_are_a_few_rules_for_the_log(tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    found = alerting(None)
    assert set(found.rules) == set(DEFAULT_RULES)
    assert {each for rule in found.rules.values() for each in rule.to} == {"log"}
    assert found.known_destinations == {"log": None}


def test_the_file_in_the_home_is_read_when_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    (tmp_path / "alerts.toml").write_text("[rules.mine]\nhorizon_left = 5\n")
    assert set(alerting(None).rules) == {"mine"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[rules.a]\nkappa_above = 0", "rules.a.kappa_above: 0 is not allowed; input should be"),
        ("[rules.a]\nkappa_above = nan", "rules.a.kappa_above: nan is not allowed"),
        ("[rules.a]\nregime = ['stable']", "rules.a.regime.0: 'stable' is not allowed; input sh"),
        ("[rules.a]\nregime = []", "rules.a.regime: [] is not allowed; name at least one"),
        ("[rules.a]\nsilent_seconds = 5", "rules.a.silent_seconds: 5 is not allowed; input shoul"),
        (
            "[rules.a]\nred_flags = ['gone']",
            "rules.a.red_flags.0: 'gone' is not allowed; allowed: a",
        ),
        ("[rules.a]\nhorizon = 5", "rules.a.horizon: there is no such key; allowed: regime, kappa"),
        ("[rules.a]\n", "rules.a: one condition is needed, none is given: regime, kappa_above"),
        (
            "[rules.a]\nhorizon_left = 5\nended = ['failed']",
            "rules.a: one condition is needed, horizon_left and ended is given",
        ),
        ("[rules.a]\nended = ['failed']\nkappa = ['slide']", "rules.a: kappa is for a rule with k"),
        (
            "[rules.a]\nended = ['failed']\nto = ['fax']",
            "rules.a.to: there is no such destination; allowed: log",
        ),
        ("[rules.'a b']\nended = ['failed']", "rules.a b: 'a b' is not allowed; string should ma"),
        ("[rule.a]\n", "rule: there is no such key; allowed: rules, destinations"),
        ("rules = 5", "rules: 5 is not allowed"),
        ("[destinations.log]\ncommand = ['x']", "destinations.log: it is there anyway"),
        ("[destinations.a]\n", "destinations.a: either webhook or command is needed"),
        ("[destinations.a]\ncommand = 'rm -rf'", "destinations.a.command: input should be a valid"),
        ("[destinations.a]\ncommand = []", "destinations.a.command: name at least one"),
        ("[destinations.a]\ncommand = ['x']\nseconds = 61", "destinations.a.seconds: input should"),
        ("[destinations.a]\ncommand = ['x']\nkind = 'json'", "destinations.a: kind goes with webh"),
        ("[destinations.a]\nwebhook = 'http://h/'", "destinations.a: kind goes with webhook"),
        ("a = [", "alerts.toml is no TOML: "),
    ],
)
def test_what_is_not_allowed_is_refused_with_file_rule_and_key(read, text, line):
    with pytest.raises(BadInput, match=re.escape(line)) as refused:
        read(text)
    [said] = str(refused.value).splitlines()
    assert re.match(r"alerts: \S+/alerts\.toml(:| is)", said)


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://h/SECRET",
        "//h/SECRET",
        "https://",
        "https://user:SECRET@h/",
        "http://h/a SECRET",
        "http://h/a\\r\\nSECRET",
        "http://h:99999/SECRET",
        "http://[h/SECRET",
    ],
)
def test_an_address_that_is_none_is_refused_and_not_shown(read, address):
    with pytest.raises(BadInput, match=r"destinations\.a\.webhook: this is no address") as refused:
        read(f'[destinations.a]\nkind = "json"\nwebhook = "{address}"')
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        f'[rules.a]\nended = ["failed"]\nto = ["{SECRET}"]',
        f'[rules.a]\nended = ["failed"]\nto = "{SECRET}"',
        f'[rules.a]\nended = ["failed"]\nwebhook = "{SECRET}"',
        f'[destinations.a]\nwebhook = "{SECRET}"\nkind = "teams"',
        f'[destinations.a]\nwebhook = ["{SECRET}"]\nkind = "slack"',
        f'[destinations]\na = "{SECRET}"',
        f'[destinations.a]\nwebhook = "{SECRET}"\nkind = "slack"\ncommand = ["x"]',
        f'[destinations.a]\nwebhook = "{SECRET}',
        f'[destinations.a]\n"{SECRET}" = 1',
        f'[destinations."{SECRET}"]\nwebhook = "{SECRET}"',
        f'[destinations."{SECRET}"]\n' * 2,
        f'[rules]\na = "{SECRET}"',
        f'[rules."{SECRET}"]\nended = ["failed"]',
        f'[rules.a]\n"{SECRET}" = 1',
        f'[rules.a]\nended = ["{SECRET}"]',
        f'[rules.a]\nended = ["failed"]\nkinds = ["{SECRET}"]',
        '[rules.a]\nended = ["failed"]\nto = ["T00-B00-SECRET"]',
        f'[rules.a]\nended = ["{"x" * 60}SECRET"]',
        f'rules = "{SECRET}"',
        f'"{SECRET}" = 1',
    ],
)
def test_no_message_holds_an_address_wherever_it_was_written(read, text):
    with pytest.raises(BadInput) as refused:
        read(text)
    assert "SECRET" not in str(refused.value)


def test_what_was_read_does_not_show_its_addresses(read):
    found = read(PHONE)
    assert "SECRET" not in repr(found) + str(found) + str(found.model_dump())


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 1), (0o604, 1)])
def test_a_file_with_secrets_that_others_may_read_is_warned_of(read, caplog, mode, warned):
    read(PHONE, mode)
    assert len(caplog.messages) == warned
    assert all("chmod 600" in message for message in caplog.messages)


def test_a_file_that_is_not_there_or_is_no_text_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"alerts: .*nowhere cannot be read: No such file"):
        alerting(str(tmp_path / "nowhere"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="binary is no text in UTF-8"):
        alerting(str(tmp_path / "binary"))


def test_every_flag_that_there_is_can_be_named():
    source = ast.parse((PROJECT / "advisor" / "red_flags.py").read_text(encoding="utf-8"))
    made = [
        ast.literal_eval(word.value)
        for call in ast.walk(source)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "RedFlag"
        for word in call.keywords
        if word.arg == "name"
    ]
    assert made == list(red_flags.FLAGS)
