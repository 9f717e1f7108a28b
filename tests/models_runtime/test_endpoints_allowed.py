"""Which servers may be called: by name when a system is set up, by address when the connection is made."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from models_runtime.endpoints.allowed import AllowList
from models_runtime.endpoints.client import ChatClient
from models_runtime.endpoints.errors import EndpointError, Kind, NotAllowed
from models_runtime.endpoints.values import Endpoint, Message
from tests.models_runtime.stub_server import says, stub

HELLO = [Message("user", "你好")]
LIST = AllowList.parse(["https://api.example.org", "http://vllm.lan:8000 10.0.0.0/24", "http://[::1]:9000", " "])


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://api.example.org/v1", "https://api.example.org/v1"),
        ("https://API.Example.org:443/v1/", "https://api.example.org/v1"),
        ("http://vllm.lan:8000", "http://vllm.lan:8000"),
        ("http://[::1]:9000/v1", "http://[::1]:9000/v1"),
    ],
)
def test_a_listed_server_is_written_in_one_way(url, plain):
    assert LIST.check(url)[0] == plain


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.org/v1",  # another scheme
        "https://api.example.org:8443/v1",  # another port
        "https://evil.org/v1",
        "https://api.example.org.evil.org/v1",
        "https://vllm.lan:8000",
        "http://10.0.0.5:8000",  # the network stands there for a name, not as an invitation
        "http://127.0.0.1:8000",
    ],
)
def test_a_server_that_is_not_listed_is_named(url):
    with pytest.raises(NotAllowed, match="is not among the servers") as caught:
        LIST.check(url)
    assert "https://api.example.org" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@api.example.org/v1",
        "https://api.example.org@evil.org/v1",
        "https://api.example.org\\@evil.org/v1",
        "https://api.example.org/v1?key=secret",
        "https://api.example.org/v1#x",
        "https://api.example.org/v1/../admin",
        "https://api.example.org/%2e%2e/admin",
        "https://api.example.org /v1",
        "https://api.example.org\n/v1",
        "https://аpi.example.org/v1",  # a Cyrillic letter
        "https://api.example.org:99999/v1",
        "https://[::1/v1",
        "https://",
        "ftp://api.example.org/v1",
        "file:///etc/passwd",
        "api.example.org/v1",
        "",
    ],
)
def test_a_url_that_can_be_read_in_two_ways_is_refused(url):
    with pytest.raises(NotAllowed):
        LIST.check(url)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("https://api.example.org/v1", "without a path"),
        ("http://vllm.lan:8000 10.0.0.0/33", "10.0.0.0/33"),
        ("http://169.254.169.254", "metadata"),
        ("vllm.lan:8000", "begins with https"),
    ],
)
def test_a_wrong_entry_of_the_list_is_named(entry, why):
    with pytest.raises(NotAllowed, match=why):
        AllowList.parse([entry])


PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07::1"]
PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "10.0.0.5", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "0.0.0.0"),
    *("::1", "::", "fe80::1", "fd12::1", "::ffff:10.0.0.5", "64:ff9b::a00:5", "2002:a00:5::", "224.0.0.1", "ff02::1"),
]
METADATA = ["169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "::ffff:169.254.169.254"]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_name_may_lead_to_a_public_address(address):
    assert LIST.check("https://api.example.org")[1].permits(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PRIVATE + METADATA)
def test_a_name_may_not_lead_to_a_private_address(address):
    assert not LIST.check("https://api.example.org")[1].permits(ipaddress.ip_address(address))


def test_a_private_network_is_permitted_where_it_is_listed():
    origin = LIST.check("http://vllm.lan:8000")[1]
    permitted = [a for a in PRIVATE if origin.permits(ipaddress.ip_address(a))]
    assert permitted == ["10.0.0.5", "::ffff:10.0.0.5", "64:ff9b::a00:5", "2002:a00:5::"]


@pytest.mark.parametrize("address", METADATA)
def test_a_metadata_service_is_never_permitted(address):
    origin = AllowList.parse(["http://x.lan 0.0.0.0/0 ::/0"]).check("http://x.lan")[1]
    assert not origin.permits(ipaddress.ip_address(address))


def test_localhost_may_lead_home_and_nowhere_else():
    origin = AllowList.parse(["http://localhost:11434"]).check("http://localhost:11434/v1")[1]
    assert [a for a in PRIVATE if origin.permits(ipaddress.ip_address(a))] == ["127.0.0.1", "127.8.8.8", "::1"]


# --- at the connection


def client_of(entry: str, base_url: str, resolve, **settings) -> ChatClient:
    endpoint = Endpoint(base_url, "toy", timeout_seconds=30)
    return ChatClient(endpoint, key=None, allowed=AllowList.parse([entry]), resolve=resolve, **settings)


def test_a_name_that_leads_to_a_private_address_is_not_called():
    with stub(says()) as server:
        url = f"http://api.example.org:{server.server_port}"
        with client_of(url, url, lambda host, port: ["127.0.0.1"]) as client:
            with pytest.raises(EndpointError, match=r"api\.example\.org leads to an address") as caught:
                client.answer(HELLO)
            assert caught.value.kind is Kind.REFUSED_ADDRESS
            assert not server.requests


def test_a_name_that_moves_to_a_private_address_is_not_followed_there():
    """DNS rebinding: the name is looked up once per connection, and the address looked at is the one connected to."""
    looked_up = []

    def rebind(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.2"] if len(looked_up) == 1 else ["127.0.0.1"]

    with stub(says()) as server:
        url = f"http://api.example.org:{server.server_port}"
        # 127.0.0.2 stands for the harmless address: nobody listens there, so each try is a new connection.
        with client_of(f"{url} 127.0.0.2/32", url, rebind) as client:
            kinds = []
            for _ in range(2):
                with pytest.raises(EndpointError) as caught:
                    client.answer(HELLO)
                kinds.append(caught.value.kind)
            assert kinds == [Kind.UNREACHABLE, Kind.REFUSED_ADDRESS]
            assert looked_up == ["api.example.org"] * 2 and not server.requests


def test_one_bad_address_among_good_ones_is_enough_to_refuse():
    with stub(says()) as server:
        url = f"http://api.example.org:{server.server_port}"
        with client_of(f"{url} 127.0.0.1/32", url, lambda *_: ["127.0.0.1", "10.0.0.1"]) as client:
            with pytest.raises(EndpointError) as caught:
                client.answer(HELLO)
            assert caught.value.kind is Kind.REFUSED_ADDRESS and not server.requests


def test_the_next_address_is_tried_where_one_does_not_answer():
    with stub(says()) as server:
        url = f"http://vllm.lan:{server.server_port}"
        with client_of(f"{url} 127.0.0.0/8", url, lambda *_: ["127.0.0.2", "127.0.0.1"]) as client:
            assert client.answer(HELLO).text
        assert server.requests[0]["headers"]["Host"] == f"vllm.lan:{server.server_port}"


@pytest.mark.parametrize("found", [[], OSError("no such name")])
def test_a_name_that_leads_nowhere(found):
    def lookup(host: str, port: int) -> list[str]:
        if isinstance(found, OSError):
            raise found
        return found

    with client_of("http://gone.example.org", "http://gone.example.org", lookup) as client:
        with pytest.raises(EndpointError, match="cannot be reached: the name") as caught:
            client.answer(HELLO)
        assert caught.value.kind is Kind.UNREACHABLE


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for vllm.lan, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vllm.lan")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - dt.timedelta(1), now + dt.timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("vllm.lan")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(
    ("host", "is_trusted", "says_why"),
    [("vllm.lan", True, None), ("vllm.lan", False, "self-signed"), ("other.lan", True, "mismatch")],
)
def test_tls_is_checked_against_the_name_not_the_address(certificate, monkeypatch, host, is_trusted, says_why):
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with stub(says()) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = f"https://{host}:{server.server_port}"
        with client_of(f"{url} 127.0.0.1/32", url, lambda *_: ["127.0.0.1"]) as client:
            if says_why is None:
                assert client.answer(HELLO).text == "我在听。"
            else:
                with pytest.raises(EndpointError, match=f"(?i){says_why}") as caught:
                    client.answer(HELLO)
                assert caught.value.kind is Kind.UNREACHABLE and not server.requests
