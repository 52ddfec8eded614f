"""redis-py, synchronous and asyncio, in RESP3 (its default) and RESP2, and what LMCache's redis:// connector does with it."""

import asyncio
import os
import sys

import redis
import redis.asyncio

PORT = int(sys.argv[1])


def ordinary(protocol):
    client = redis.Redis(port=PORT, protocol=protocol)
    client.flushdb()
    assert client.ping()
    assert client.get("nothing") is None
    assert client.set("a", b"\x00\r\n$-1\r\n") is True
    assert client.get("a") == b"\x00\r\n$-1\r\n"
    assert client.set("a", "other", nx=True) is None
    assert client.setnx("a", "other") is False
    assert client.set("t", "1", ex=100) and client.ttl("t") == 100
    assert client.set("t", "1", px=200_000) and 199_000 < client.pttl("t") <= 200_000
    assert client.setex("t", 50, "1") and client.ttl("t") == 50
    assert client.expire("t", 70) and client.ttl("t") == 70
    assert client.persist("t") and client.ttl("t") == -1
    assert client.ttl("nothing") == -2
    assert client.mset({"x": "1", "y": "2"})
    assert client.mget("x", "nothing", "y") == [b"1", None, b"2"]
    assert client.exists("x", "y", "nothing") == 2
    assert client.strlen("a") == 8
    assert client.type("a") == b"string"
    assert sorted(client.scan_iter(match="[xy]", count=1)) == [b"x", b"y"]
    assert client.dbsize() == 4
    assert client.delete("x", "nothing") == 1 and client.unlink("y") == 1
    assert client.info("replication")["role"] == "master"
    assert client.info()["agent"] == "up"
    assert client.config_get("save") == {"save": ""}
    assert client.client_id() > 0
    assert client.client_setname("me") and client.client_getname() in ("me", b"me")
    assert client.echo("x") == b"x"
    assert "get" in client.command()
    with client.pipeline(transaction=False) as pipe:
        for n in range(500):
            pipe.set(f"p{n}", str(n) * 100)
        for n in range(500):
            pipe.get(f"p{n}")
        replies = pipe.execute()
    assert replies == [True] * 500 + [(str(n) * 100).encode() for n in range(500)]
    try:
        client.execute_command("LPUSH", "a", "1")
        raise AssertionError("LPUSH is no command of this cache")
    except redis.ResponseError as error:
        assert "unknown command" in str(error)
    try:
        client.set("k" * 2000, "v")
        raise AssertionError("a key of 2000 bytes is too long")
    except redis.ResponseError as error:
        assert "2000 bytes" in str(error)
    try:
        client.set("empty", "")
        raise AssertionError("there are no empty values here")
    except redis.ResponseError as error:
        assert "at least one byte" in str(error)
    assert client.get("a") == b"\x00\r\n$-1\r\n", "the connection stays usable"
    assert client.flushall() and client.dbsize() == 0
    client.close()


async def two_keys_a_chunk():
    """The value under <key>kv_bytes, then 28 bytes under <key>metadata, whose EXISTS stands for both; 150 connections."""
    pool = redis.asyncio.BlockingConnectionPool(port=PORT, max_connections=150, timeout=120)
    client = redis.asyncio.Redis(connection_pool=pool)
    values = [os.urandom(2 << 20) for _ in range(4)]
    metadata = bytes(range(28))

    async def chunk(n):
        key = f"model@1@0@{n:016x}@bfloat16"
        assert not await client.exists(key + "metadata")
        assert await client.get(key + "metadata") is None
        await client.set(key + "kv_bytes", values[n % 4])
        await client.set(key + "metadata", metadata)
        assert await client.exists(key + "metadata")
        assert await client.get(key + "metadata") == metadata
        assert await client.get(key + "kv_bytes") == values[n % 4]

    await asyncio.gather(*(chunk(n) for n in range(150)))
    await client.delete("model@1@0@0000000000000000@bfloat16metadata")
    assert not await client.exists("model@1@0@0000000000000000@bfloat16metadata")
    await client.flushdb()
    await client.aclose()
    await pool.disconnect()


for version in (3, 2):
    ordinary(version)
asyncio.run(two_keys_a_chunk())
