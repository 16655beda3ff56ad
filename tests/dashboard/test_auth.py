"""Parts of the login: passwords, sessions, the rate of attempts, the bounded trail."""

from __future__ import annotations

import pytest
from werkzeug.security import generate_password_hash

from backend.errors import ConfigError
from backend.settings.dashboard import DashboardSettings, Role, UserSettings
from dashboard.auth import accounts as passwords
from dashboard.auth.accounts import Accounts, check_exposure, hash_password
from dashboard.auth.attempts import (
    ADDRESS_REFILL_S,
    MOST_ADDRESSES,
    OVERALL,
    PER_ADDRESS,
    Attempts,
    network_of,
)
from dashboard.auth.identity import Identity
from dashboard.auth.sessions import MOST_OF_A_USER, Sessions
from dashboard.auth.trail import BURST, REFILL_S, Trail

ALICE = Identity("alice", Role.OPERATOR)
PASSWORD = "correct horse battery"


class Clock:
    """Monotonic seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """A hash in microseconds; what the parameters are has a test of its own."""
    monkeypatch.setattr(passwords, "METHOD", "scrypt:1024:1:1")


def settings(**changes):
    return DashboardSettings(**changes)


def user(role="operator", **changes):
    return UserSettings(role=role, **changes)


# -- when a login is needed -------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_no_login_is_needed(host):
    check_exposure(settings(host=host))
    assert Accounts(settings(host=host)).open


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"host": "0.0.0.0"}, "dashboard.host = '0.0.0.0'"),
        ({"host": "::"}, "dashboard.host = '::'"),
        ({"host": ""}, "dashboard.host = ''"),
        ({"host": "10.0.0.5"}, "10.0.0.5"),
        ({"host": "db.example"}, "db.example"),
        ({"trusted_proxy": "127.0.0.1"}, "dashboard.trusted_proxy"),
        ({"allowed_hosts": ("tuner.example",)}, "dashboard.allowed_hosts = tuner.example"),
    ],
)
def test_reached_from_elsewhere_it_refuses_to_start_without_users(changes, named):
    with pytest.raises(ConfigError) as caught:
        Accounts(settings(**changes))
    assert named in caught.value.message
    assert "dashboard.users" in caught.value.message
    assert "run.py password" in (caught.value.remedy or "")
    check_exposure(settings(**changes, users={"alice": user(password=PASSWORD)}))


# -- passwords --------------------------------------------------------------------------------


def test_hashes_are_scrypt_with_owasp_parameters_and_a_salt(monkeypatch):
    monkeypatch.undo()
    first, second = hash_password(PASSWORD), hash_password(PASSWORD)
    assert first.startswith("scrypt:32768:8:3$")
    assert first != second
    assert PASSWORD not in first


@pytest.mark.parametrize("password", ["", "x" * 11, "x" * 257])
def test_passwords_have_a_least_and_a_most_length(password):
    with pytest.raises(ConfigError, match="12 to 256"):
        hash_password(password)


def accounts_of(**users) -> Accounts:
    return Accounts(settings(users=users))


def test_a_password_may_be_a_hash_itself_or_in_a_file(tmp_path):
    hashed, plain = tmp_path / "hashed", tmp_path / "plain"
    hashed.write_text(hash_password(PASSWORD) + "\n", "utf-8")
    plain.write_text(PASSWORD + "\n", "utf-8")
    accounts = accounts_of(
        hash=user(password=hash_password(PASSWORD)),
        plain=user(password=PASSWORD),
        file=user("viewer", password_file=hashed),
        secret=user("viewer", password_file=plain),
    )
    for name, role in (
        ("hash", Role.OPERATOR),
        ("plain", Role.OPERATOR),
        ("file", Role.VIEWER),
        ("secret", Role.VIEWER),
    ):
        assert accounts.verify(name, PASSWORD) == Identity(name, role)
        assert accounts.verify(name, PASSWORD + "!") is None


def test_a_hash_is_no_password_of_its_own():
    stolen = hash_password(PASSWORD)
    assert accounts_of(alice=user(password=stolen)).verify("alice", stolen) is None


@pytest.mark.parametrize("password", ["", "x", "y" * 10**6, "\0", "correct horse battery\0"])
def test_wrong_passwords_are_wrong(password):
    assert accounts_of(alice=user(password=PASSWORD)).verify("alice", password) is None


def test_an_unknown_name_is_hashed_for_as_long_as_a_known_one(monkeypatch):
    accounts = accounts_of(alice=user(password=PASSWORD))
    checked = []
    monkeypatch.setattr(
        passwords, "check_password_hash", lambda h, _p: checked.append(h.split("$")[0])
    )
    assert accounts.verify("alice", "wrong password") is None
    assert accounts.verify("mallory", "wrong password") is None
    assert checked == ["scrypt:1024:1:1"] * 2


def test_what_was_right_is_not_hashed_again_and_what_is_wrong_always(monkeypatch):
    accounts = accounts_of(alice=user(password=PASSWORD), bob=user(password=PASSWORD + "?"))
    assert accounts.verify("alice", PASSWORD)
    calls = []
    monkeypatch.setattr(passwords, "check_password_hash", lambda *a: calls.append(a))
    assert accounts.verify("alice", PASSWORD) == ALICE
    assert calls == []
    assert accounts.verify("bob", PASSWORD) is None
    assert accounts.verify("alice", "another password") is None
    assert len(calls) == 2


def test_bad_passwords_of_the_settings_are_told_without_repeating_them(tmp_path):
    secret = "short-secr"
    for given, words in (
        (user(password=secret), ("dashboard.users.alice.password:", "10 characters")),
        (user(password="scrypt:1:2:3$broken" + secret), ("begins like a hash", "run.py password")),
        (user(password=generate_password_hash(secret, "pbkdf2")), ("none of scrypt",)),
        (user(password=f"scrypt:9999:8:1$abcdefgh${128 * '0'}"), ("scrypt does not take",)),
        (user(password=f"scrypt:32768:99:99$abcdefgh${128 * '0'}"), ("scrypt does not take",)),
        (user(password_file=tmp_path / "none"), ("password_file", "No such file")),
        (user(password_file=tmp_path), ("password_file", "directory")),
    ):
        with pytest.raises(ConfigError) as caught:
            accounts_of(alice=given)
        for word in words:
            assert word in str(caught.value)
        assert secret not in str(caught.value)


# -- sessions ---------------------------------------------------------------------------------


def test_a_session_lasts_while_somebody_acts_and_not_for_ever(clock):
    sessions = Sessions(idle_s=60, max_s=300, clock=clock)
    key = sessions.begin(ALICE)
    for _ in range(5):
        clock.now_s += 59
        assert sessions.find(key, active=True) == ALICE
    clock.now_s += 6
    assert sessions.find(key, active=True) is None


def test_refreshes_do_not_keep_a_session_from_idling(clock):
    sessions = Sessions(idle_s=60, max_s=300, clock=clock)
    key = sessions.begin(ALICE)
    for _ in range(6):
        clock.now_s += 10
        assert sessions.find(key, active=False) == ALICE
    clock.now_s += 1
    assert sessions.find(key, active=True) is None


def test_an_ended_session_is_over_whatever_the_browser_keeps(clock):
    sessions = Sessions(60, 300, clock)
    key, other = sessions.begin(ALICE), sessions.begin(ALICE)
    sessions.end(key)
    sessions.end("unknown")
    sessions.end(None)
    assert sessions.find(key, active=True) is None
    assert sessions.find(other, active=True) == ALICE


@pytest.mark.parametrize("key", [None, "", "x", 7, b"", ["x"]])
def test_what_is_no_key_finds_no_session(clock, key):
    assert Sessions(60, 300, clock).find(key, active=True) is None


def test_keys_are_long_and_sessions_bounded(clock):
    sessions = Sessions(60, 300, clock)
    keys = [sessions.begin(ALICE) for _ in range(MOST_OF_A_USER + 1)]
    assert len(set(keys)) == len(keys)
    assert min(map(len, keys)) >= 43
    assert sessions.find(keys[0], active=True) is None
    assert sessions.find(keys[1], active=True) == ALICE


def test_nobodys_logins_end_the_sessions_of_others(clock):
    # A viewer may log in as often as it likes.
    sessions = Sessions(60, 300, clock)
    key = sessions.begin(ALICE)
    for _ in range(10 * MOST_OF_A_USER):
        sessions.begin(Identity("wall", Role.VIEWER))
    assert sessions.find(key, active=True) == ALICE
    assert len(sessions._sessions) == 1 + MOST_OF_A_USER


# -- the rate of attempts ---------------------------------------------------------------------


def test_an_address_has_a_few_attempts_and_then_one_by_one(clock):
    attempts = Attempts(clock)
    assert [attempts.admit("10.0.0.1") for _ in range(PER_ADDRESS)] == [0.0] * PER_ADDRESS
    assert attempts.admit("10.0.0.1") == pytest.approx(ADDRESS_REFILL_S)
    assert attempts.admit("10.0.0.2") == 0
    clock.now_s += ADDRESS_REFILL_S
    assert attempts.admit("10.0.0.1") == 0
    assert attempts.admit("10.0.0.1") > 0


def test_many_addresses_together_have_a_bound_too(clock):
    attempts = Attempts(clock)
    admitted = [attempts.admit(f"10.0.{i}.1") for i in range(60)]
    assert admitted.count(0.0) == OVERALL
    assert admitted[-1] > 0


def test_one_address_alone_does_not_use_up_what_is_for_all(clock):
    attempts = Attempts(clock)
    for _ in range(1000):
        attempts.admit("10.0.0.1")
    assert attempts.admit("10.0.0.2") == 0


def test_an_address_that_logged_in_is_not_locked_out_by_strangers(clock):
    attempts = Attempts(clock)
    assert attempts.admit("10.0.0.1") == 0
    attempts.succeeded("10.0.0.1")
    while any(attempts.admit(f"10.1.{i}.1") == 0 for i in range(60)):
        pass
    assert attempts.admit("10.9.9.9") > 0
    assert [attempts.admit("10.0.0.1") for _ in range(PER_ADDRESS)] == [0.0] * PER_ADDRESS
    assert attempts.admit("10.0.0.1") > 0


def test_this_machine_is_not_locked_out_by_strangers(clock):
    # Through a tunnel the operator gets in, whatever knocks at the proxy.
    attempts = Attempts(clock)
    while any(attempts.admit(f"10.1.{i}.1") == 0 for i in range(60)):
        pass
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.2", "127.8.8.8", "::1"):
        assert attempts.admit(address) == 0
    assert attempts.admit("127.0.0.1") > 0


def test_a_known_browser_is_not_locked_out_by_its_own_address(clock):
    attempts = Attempts(clock)
    while any(attempts.admit(f"10.1.{i}.1") == 0 for i in range(60)):
        pass
    assert [attempts.admit("10.1.0.1", "alice") for _ in range(PER_ADDRESS)] == [0.0] * PER_ADDRESS
    assert attempts.admit("10.9.9.9", "alice") > 0
    assert attempts.admit("10.1.0.1", "wall") == 0


def test_logins_of_a_known_browser_that_succeed_are_not_counted(clock):
    attempts = Attempts(clock)
    for _ in range(200):
        assert attempts.admit("10.0.0.1", "alice") == 0
        attempts.succeeded("10.0.0.1", "alice")
    assert attempts._overall.wait_s(clock()) == 0


def test_logins_that_succeed_are_not_counted(clock):
    attempts = Attempts(clock)
    for _ in range(200):
        assert attempts.admit("10.0.0.1") == 0
        attempts.succeeded("10.0.0.1")


def test_memory_is_bounded(clock):
    attempts = Attempts(clock)
    for i in range(3 * MOST_ADDRESSES):
        address = f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}"
        attempts.admit(address)
        attempts.succeeded(address)
    assert len(attempts._addresses) == len(attempts._proven) == MOST_ADDRESSES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "<script>", True),
    ],
)
def test_an_ipv6_network_counts_as_one_address(one, other, same):
    assert (network_of(one) == network_of(other)) is same


# -- the trail --------------------------------------------------------------------------------


def test_a_flood_of_logins_writes_few_events_and_says_how_many_it_left_out(clock):
    written = []
    trail = Trail(written.append, clock)
    for _ in range(1000):
        trail.tell("warning", "login_failed", "login failed")
    assert len(written) == BURST
    clock.now_s += REFILL_S
    trail.tell("info", "login", "alice logged in", address="10.0.0.1")
    assert written[-1].message == f"alice logged in (and {1000 - BURST} more events of logins " + (
        "before it)"
    )
    assert written[-1].detail == {"address": "10.0.0.1", "left_out": 1000 - BURST}


def test_a_store_that_fails_keeps_nobody_out(clock):
    def fail(_event):
        raise OSError("disk full")

    Trail(fail, clock).tell("info", "login", "alice logged in")


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "Alice", "a b", "<b>", "a" * 41, "-a", "alice\n"])
def test_names_are_plain(name):
    with pytest.raises(ValueError, match="users"):
        settings(users={name: {"password": PASSWORD}})


@pytest.mark.parametrize(
    "given", [{}, {"role": "viewer"}, {"password": PASSWORD, "password_file": "x"}]
)
def test_a_user_has_one_password(given):
    with pytest.raises(ValueError, match="either password or password_file"):
        settings(users={"alice": given})


def test_a_user_looks_only_unless_told_otherwise():
    assert settings(users={"alice": {"password": PASSWORD}}).users["alice"].role is Role.VIEWER
    assert PASSWORD not in repr(settings(users={"alice": {"password": PASSWORD}}))


def test_a_proxy_is_one_address():
    with pytest.raises(ValueError, match="would believe anybody"):
        settings(trusted_proxy="*")
    assert settings(trusted_proxy="127.0.0.1").trusted_proxy == "127.0.0.1"


def test_the_environment_names_users():
    from backend.config import load_settings

    prefix = "AUTOPILOT_DASHBOARD__USERS__"
    found = load_settings(
        environ={f"{prefix}ALICE__PASSWORD": PASSWORD, f"{prefix}ALICE__ROLE": "operator"}
    )
    assert Accounts(found.dashboard).verify("alice", PASSWORD) == ALICE
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={f"{prefix}ALICE__PASSWROD": PASSWORD})
    assert PASSWORD not in str(caught.value)
