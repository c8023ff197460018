"""Which addresses we may connect to on somebody's word: public ones, and those allowed by name.

Invariant: an address is judged by where its packets end up, so that an IPv4 address in IPv6's
clothes (mapped, 6to4, NAT64, Teredo) is judged as what it is.
"""

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
COMPATIBLE = ipaddress.IPv6Network("::/96")
"""IPv4-compatible, long deprecated."""
NOT_PUBLIC: tuple[Network, ...] = (
    ipaddress.ip_network("168.63.129.16"),
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("192.88.99.0/24"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("3fff::/20"),
    ipaddress.ip_network("5f00::/16"),
)
"""Beyond what `ipaddress` knows: a cloud's service to its machines that is public by number, and
what IANA has set aside."""


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks as `10.0.0.0/8`, or single addresses. Raises: ValueError."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def is_allowed(text: str, allowed: Sequence[Network]) -> bool:
    """May we connect to this address, as a resolver or a socket words it?"""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    ends = meant(address)
    if is_listed(text, allowed):
        return True
    return all(is_public(end) for end in ends)


def is_listed(text: str, allowed: Sequence[Network]) -> bool:
    """Is it, and whatever it hides, among those allowed by name?"""
    ends = meant(ipaddress.ip_address(text.partition("%")[0]))
    return all(any(end in network for network in allowed) for end in ends)


def meant(address: Address) -> tuple[Address, ...]:
    """Where packets to this address end up."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    low = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in NAT64 or (address in COMPATIBLE and int(address) > 1):
        return (low,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    return (address,)


def is_public(address: Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in NOT_PUBLIC)
    )
