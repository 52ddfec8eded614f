"""valkey-glide: the asyncio client, and the synchronous one with buffers, as LMCache's valkey:// connector uses it."""

import asyncio
import os
import sys

import glide
import glide_sync

PORT = int(sys.argv[1])
TIMEOUT = 60_000  # ms: a shared machine may be slow


async def asynchronous(protocol):
    config = glide.GlideClientConfiguration(
        [glide.NodeAddress("127.0.0.1", PORT)],
        protocol=protocol,
        request_timeout=TIMEOUT,
    )
    client = await glide.GlideClient.create(config)
    assert await client.ping() == b"PONG"
    assert b"role:master" in await client.info([glide.InfoSection.REPLICATION])
    value = os.urandom(5 << 20)
    assert await client.get("nothing") is None
    assert await client.set("k", value) == "OK"
    assert await client.get("k") == value
    expiry = glide.ExpirySet(glide.ExpiryType.SEC, 100)
    assert await client.set("t", "v", expiry=expiry) == "OK"
    assert await client.ttl("t") == 100
    condition = glide.ConditionalChange.ONLY_IF_DOES_NOT_EXIST
    assert await client.set("k", "other", conditional_set=condition) is None
    assert await client.exists(["k", "t", "nothing"]) == 2
    assert await client.mset({"a": "1", "b": "2"}) == "OK"
    assert await client.mget(["a", "nothing", "b"]) == [b"1", None, b"2"]
    assert await client.strlen("k") == len(value)
    cursor, keys = await client.scan("0", match="[ab]", count=100)
    assert cursor == b"0" and sorted(keys) == [b"a", b"b"]
    assert await client.delete(["k", "t", "nothing"]) == 2
    assert await client.flushdb() == "OK"
    assert await client.dbsize() == 0
    await client.close()


def synchronous():
    config = glide_sync.GlideClientConfiguration(
        [glide_sync.NodeAddress("127.0.0.1", PORT)], request_timeout=TIMEOUT
    )
    client = glide_sync.GlideClient.create(config)
    value = os.urandom(2 << 20)
    assert client.set("k", memoryview(value)) == "OK"
    buffer = bytearray(len(value))
    assert int(client.get("k", buffer=memoryview(buffer))) == len(value)
    assert bytes(buffer) == value
    assert client.get("nothing", buffer=memoryview(buffer)) is None
    assert client.exists(["k"]) == 1
    memory = client.info([glide_sync.InfoSection.MEMORY])
    used = int(memory.split(b"used_memory:")[1].split(b"\r\n")[0])
    # A drive takes whole pages, and one more for the key.
    assert len(value) <= used <= len(value) + 8192, memory
    assert client.delete(["k"]) == 1
    client.close()


for version in (glide.ProtocolVersion.RESP3, glide.ProtocolVersion.RESP2):
    asyncio.run(asynchronous(version))
synchronous()
