"""A small Faust worker that a test starts: it sends every record of one topic on to another, value in capitals."""

from __future__ import annotations

import sys

import faust


def make_app(bootstrap: str, source: str, target: str, folder: str) -> faust.App:
    app = faust.App(
        f"echo-{source}",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=folder,
        topic_disable_leader=True,
        topic_replication_factor=1,
        # A busy machine that stands still for a while must not cost the worker its partitions: it would repeat records.
        broker_session_timeout=60,
        broker_heartbeat_interval=1,
        broker_request_timeout=90,
        broker_commit_interval=1,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    incoming, outgoing = app.topic(source, **raw), app.topic(target, **raw)

    @app.agent(incoming)
    async def echo(stream: faust.Stream[bytes]) -> None:
        async for event in stream.events():
            await outgoing.send(key=event.key, value=event.value.upper())

    return app


if __name__ == "__main__":
    application = make_app(*sys.argv[1:5])
    application.finalize()
    faust.Worker(application, loglevel="info").execute_from_commandline()
