"""Which endpoints may be called at all: the list of the server's settings, checked once more at every connection.

An admin types a base URL; without a list that field would reach everything the server reaches. A host is allowed by
scheme, name and port. A name is only a promise, though: what it resolves to is looked at when the connection is made,
and that very address is connected to, so a name that changes its address in between (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

from models_runtime.endpoints.errors import EndpointError, Kind, NotAllowed

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

PORTS = {"http": 80, "https": 443}
# Where clouds hand credentials to whoever asks from inside (AWS, Azure, GCP; ECS; AWS on IPv6; Alibaba): never.
METADATA = frozenset(
    ipaddress.ip_address(a) for a in ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200")
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
PATH = re.compile(r"[A-Za-z0-9._~/-]*")
MAX_BODY_BYTES = 16 * 2**20  # an answer of 512 tokens has some kB; more than this is no answer


@dataclass(frozen=True)
class Origin:
    """One allowed server, and the networks of private addresses its name may resolve to."""

    scheme: str
    host: str
    port: int
    networks: tuple[Network, ...] = ()

    def permits(self, address: Address) -> bool:
        """Whether this address may be connected to: public, or private and listed; never a metadata service."""
        address = _plain(address)
        if address in METADATA or address.is_multicast or address.is_unspecified:
            return False
        return address.is_global or any(address in network for network in self.networks)


@dataclass(frozen=True)
class AllowList:
    """The servers that may be called.

    An entry is an origin, such as `https://api.openai.com`, and after a blank the private networks its name may
    resolve to: `http://vllm.lan:8000 10.0.0.0/24`. An address, or `localhost`, needs none: `http://10.0.0.5:8000`.
    """

    origins: tuple[Origin, ...]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowList:
        """Raises NotAllowed, naming the entry."""
        return cls(tuple(_entry(entry) for entry in entries if entry.strip()))

    def check(self, base_url: str) -> tuple[str, Origin]:
        """The base URL in its plain form, and the entry that allows it. Raises NotAllowed."""
        scheme, host, port, path = _parts(base_url)
        for origin in self.origins:
            if (origin.scheme, origin.host, origin.port) == (scheme, host, port):
                return f"{_written(scheme, host, port)}{path.rstrip('/')}", origin
        known = ", ".join(_written(o.scheme, o.host, o.port) for o in self.origins) or "none"
        raise NotAllowed(
            f"{_written(scheme, host, port)} is not among the servers that may be called ({known}). "
            "Whoever runs this site can add it to the list of allowed endpoints."
        )


def _entry(entry: str) -> Origin:
    url, *networks = entry.split()
    scheme, host, port, path = _parts(url)
    if path not in ("", "/"):
        raise NotAllowed(f"Allowed endpoint {url!r}: give scheme, host and port only, without a path.")
    try:
        listed = [ipaddress.ip_network(network) for network in networks]
    except ValueError as error:
        raise NotAllowed(f"Allowed endpoint {url!r}: {error}.") from None
    if host == "localhost":
        listed += [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
    elif (address := _literal(host)) is not None:
        if address in METADATA:
            raise NotAllowed(f"Allowed endpoint {url!r}: this address is a metadata service, which is never called.")
        listed.append(ipaddress.ip_network(address))
    return Origin(scheme, host, port, tuple(listed))


def _parts(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path; nothing that two readers of a URL could understand in two ways."""
    if not url.isascii() or not url.isprintable() or re.search(r"[\s\\%@?#]", url):
        raise NotAllowed("A base URL is scheme, host, port and path and nothing else: https://api.example.org/v1.")
    try:
        split = urlsplit(url)
        host, port = split.hostname or "", split.port
    except ValueError as error:
        raise NotAllowed(f"{url!r} is no URL: {error}.") from None
    if split.scheme not in PORTS:
        raise NotAllowed(f"{url!r}: a base URL begins with https:// or http://.")
    if not (HOST.fullmatch(host) or isinstance(_literal(host), ipaddress.IPv6Address)):
        raise NotAllowed(f"{url!r}: this is no host name.")
    if not PATH.fullmatch(split.path) or ".." in split.path:
        raise NotAllowed(f"{url!r}: the path may hold letters, digits and . _ ~ / - only.")
    return split.scheme, host, PORTS[split.scheme] if port is None else port, split.path


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _written(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{'' if port == PORTS[scheme] else f':{port}'}"


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
    return address


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, in the order to try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Deadline(threading.local):
    """When the request of this thread is over, and how much it has read. A timeout of the SDK starts anew with every
    byte, so an endpoint that sends one byte a minute would hold a thread for ever."""

    at: float = float("inf")
    n_read: int = 0

    def start(self, seconds: float) -> None:
        """A new request begins."""
        self.at, self.n_read = time.monotonic() + seconds, 0


class GuardedTransport(httpx2.HTTPTransport):
    """httpx's transport, which connects to permitted addresses of one origin only and keeps to the deadline."""

    def __init__(self, origin: Origin, deadline: Deadline, *, n_connections: int, resolve: Resolve = resolve) -> None:
        is_tls = origin.scheme == "https"  # else a context that trusts nobody: reading the system's authorities is slow
        context = httpcore2.default_ssl_context() if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        super().__init__(verify=context)
        self._pool = httpcore2.ConnectionPool(  # httpx has no way to pass a backend, httpcore has
            ssl_context=context,
            max_connections=n_connections,
            max_keepalive_connections=n_connections,
            keepalive_expiry=30.0,
            network_backend=_GuardedBackend(origin, deadline, resolve),
        )


class _GuardedBackend(httpcore2.NetworkBackend):
    def __init__(self, origin: Origin, deadline: Deadline, resolve: Resolve) -> None:
        self._origin, self._deadline, self._resolve = origin, deadline, resolve
        self._tcp = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        if (host.strip("[]"), port) != (self._origin.host, self._origin.port):
            raise EndpointError(Kind.REFUSED_ADDRESS, f"{host}:{port} is not the server of this system.")
        try:
            addresses = self._resolve(self._origin.host, port)
        except OSError as error:
            raise httpcore2.ConnectError("the name is not known") from error
        for address in addresses:
            if not self._origin.permits(ipaddress.ip_address(address.split("%")[0])):
                raise EndpointError(
                    Kind.REFUSED_ADDRESS,
                    f"{self._origin.host} leads to an address that may not be called (private, or a metadata service). "
                    "If the server is yours, list its network beside it among the allowed endpoints.",
                )
        failure: httpcore2.ConnectError | httpcore2.ConnectTimeout = httpcore2.ConnectError("the name has no address")
        for address in addresses:
            try:
                return _TimedStream(
                    self._tcp.connect_tcp(address, port, timeout, local_address, socket_options), self._deadline
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


class _TimedStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._deadline.at - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the answer takes too long")
        data = self._stream.read(max_bytes, left if timeout is None else min(timeout, left))
        self._deadline.n_read += len(data)
        if self._deadline.n_read > MAX_BODY_BYTES:
            raise httpcore2.RemoteProtocolError("the answer is too long")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
