"""What commands make and look at tokens with.

Guarantees: what is looked at is judged as control does it.
Refuses to know: how results are shown.
"""

from contextlib import AsyncExitStack
from pathlib import Path

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.tokens import minting
from tallygate.adapters.tokens.key_file import FileKeys
from tallygate.adapters.tokens.key_url import UrlKeys
from tallygate.adapters.tokens.minting import Granted, add_key, retire_key, write_token
from tallygate.adapters.tokens.observer import SilentKeys
from tallygate.adapters.tokens.verifier import JwtVerifier, KeySource
from tallygate.domain.caller import Caller
from tallygate.domain.errors import InvalidField
from tallygate.settings import Settings
from tallygate.wiring.access import terms_of

__all__ = ["Granted", "add_key", "mint", "retire_key", "verified", "write_token"]


def mint(settings: Settings, private: Path, granted: Granted) -> str:
    """Return a token as this installation asks for it."""
    now_s = SystemClock().now_us() // 1_000_000
    return minting.mint(private, granted, terms_of(settings), now_s)


async def verified(settings: Settings, token: str) -> Caller:
    """Return whose token it is. Raises what control would answer with."""
    async with AsyncExitStack() as stack:
        keys: KeySource
        if settings.token_keys_file is not None:
            keys = FileKeys(settings.token_keys_file, SilentKeys())
        elif settings.token_keys_url is not None:
            found = UrlKeys(settings.token_keys_url, SystemClock(), SilentKeys())
            stack.push_async_callback(found.close)
            keys = found
        else:
            raise InvalidField("is required", field="TALLYGATE_TOKEN_KEYS_FILE")
        return await JwtVerifier(keys, terms_of(settings)).verify(token)
