"""Somebody of ours who records usage by a sidecar: the channel to it.

Guarantees: certificates that it is shown and believes are those of its files when it was opened,
and it is opened anew when one of them has changed.
Refuses to know: whose usage it is.
"""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import grpc

from tallygate.adapters.file_stamp import stamp_of
from tallygate.adapters.sidecar.recorder import SidecarRecorder
from tallygate.domain.recording import Outcome, Use
from tallygate.ports.recording import UsageRecorder
from tallygate.settings import Settings
from tallygate.wiring.dialing import Dialing, opened


class DialedRecorder(UsageRecorder):
    """The `UsageRecorder` port: a sidecar at an address."""

    def __init__(self, address: str, dialing: Dialing | None, sdk: str) -> None:
        self._address = address
        self._dialing = dialing
        self._sdk = sdk
        self._stamps = self._looked()
        self._channel: grpc.aio.Channel = opened(address, dialing)
        self._recorder = SidecarRecorder(self._channel, sdk)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def record(self, uses: Sequence[Use]) -> Sequence[Outcome]:
        """Record a list."""
        return await (await self._current()).record(uses)

    async def take_back(self, use: Use) -> Outcome:
        """Refund all of an event."""
        return await (await self._current()).take_back(use)

    async def _current(self) -> SidecarRecorder:
        stamps = self._looked()
        if stamps != self._stamps:
            before, self._stamps = self._channel, stamps
            self._channel = opened(self._address, self._dialing)
            self._recorder = SidecarRecorder(self._channel, self._sdk)
            # Calls that are under way on it end first.
            await before.close(grace=10.0)
        return self._recorder

    def _looked(self) -> Sequence[object]:
        if self._dialing is None:
            return ()
        files: Sequence[Path | None] = (
            self._dialing.ca,
            self._dialing.cert,
            self._dialing.key,
        )
        return tuple(stamp_of(each) for each in files if each is not None)


def recorder_of(settings: Settings, what: str, target: str = "") -> DialedRecorder:
    """Return what records by the sidecar of these settings. Raises `CertificateUnread`."""
    address = target or settings.record_target or settings.grpc_address[0]
    sdk = f"{what}/{metadata.version('tallygate')}"
    return DialedRecorder(address, Dialing.of(settings), sdk)
