"""Who may call control, put together: open, by bearer tokens, or by certificates.

Guarantees: keys that cannot be used at the start keep the process from starting; a control that
other machines reach and that asks nobody who he is says so in a warning and a gauge.
Refuses to know: what callers ask for.
"""

import structlog

from tallygate.adapters.tokens.key_file import FileKeys
from tallygate.adapters.tokens.key_url import UrlKeys, UrlOptions
from tallygate.adapters.tokens.verifier import JwtVerifier, KeySource, TokenTerms
from tallygate.api.door import Door, OpenDoor, TokenDoor
from tallygate.api.peer_door import PeerDoor
from tallygate.settings import Settings
from tallygate.wiring.host import Host

log = structlog.get_logger(__name__)


def door_of(host: Host) -> Door:
    """Return what lets callers in to control. Raises `KeySetInvalid` and `InvalidField`."""
    settings, observer = host.settings, host.metrics.access
    keys: KeySource
    if settings.token_keys_file is not None:
        keys = FileKeys(settings.token_keys_file, observer)
    elif settings.token_keys_url is not None:
        options = UrlOptions(refresh_min_s=settings.token_keys_refresh_ms / 1000)
        found = UrlKeys(settings.token_keys_url, host.clock, observer, options)
        host.connections.push_async_callback(found.close)
        keys = found
    elif host.secured.permits is not None:
        return PeerDoor(host.secured.permits, observer)
    else:
        warn_if_open(host)
        return OpenDoor()
    return TokenDoor(JwtVerifier(keys, terms_of(settings)), observer)


def terms_of(settings: Settings) -> TokenTerms:
    """Return what a token must say."""
    return TokenTerms(
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        leeway_s=settings.token_leeway_ms / 1000,
        roles_claim=settings.token_roles_claim,
        tenants_claim=settings.token_tenants_claim,
    )


def warn_if_open(host: Host) -> None:
    """Say so where others than this machine can call control, and nobody is asked who he is.

    It is not refused: a mesh or a network's policy may ask, which cannot be seen from here.
    """
    settings = host.settings
    for address in (settings.control_address, settings.http_address):
        if address is not None and settings.lets_everybody_in(address):
            host.metrics.access.open.set(1)
            log.warning(
                "control_is_open",
                address=address,
                advice="set TALLYGATE_TOKEN_KEYS_FILE, or keep others away from this address",
            )
