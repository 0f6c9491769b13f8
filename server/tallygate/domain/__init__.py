"""The rules of quota and metering: pure, standard library only, no clock, no asyncio."""
