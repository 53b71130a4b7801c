"""Who asks. What bodies may look like is in test_request_body.py and, over sockets, in e2e/test_requests.py."""

from proxy.incoming import owner_of


def test_the_guard_knows_an_owner_by_a_hash_of_the_credential_or_not_at_all() -> None:
    keys = [{"authorization": "Bearer sk-a"}, {"authorization": "Bearer sk-b"}, {"api-key": "sk-a"}]
    owners = [owner_of(headers) for headers in keys]
    assert len(set(owners)) == 3
    assert not any("sk-" in owner for owner in owners)
    assert owner_of({"x-title": "app"}) == ""
