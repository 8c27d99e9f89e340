"""The core: plain functions over values; no I/O, no clock, no randomness, no asyncio, no logging."""
