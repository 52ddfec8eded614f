# A pod's client that never stops, over one connection: counts what it sees into /tmp/seen.
import hashlib, itertools, json, os, redis, time

def value(n):
    return hashlib.sha256(b"%d" % n).digest() * 4096

r = redis.Redis.from_url(os.environ["STRAND_KV_URL"], socket_timeout=60)
seen = {"sets": 0, "hits": 0, "misses": 0, "wrong": 0, "errors": [], "connections": [], "slowest": 0.0, "file": 0}
data = open("/data/log", "ab", buffering=0) if os.path.isdir("/data") else None
for n in itertools.count():
    begun = time.monotonic()
    try:
        r.set("running-%d" % (n % 64), value(n % 64))
        seen["sets"] += 1
        found = r.get("running-%d" % (n % 64))
        seen["misses" if found is None else "hits" if found == value(n % 64) else "wrong"] += 1
        # One that was lost is made anew without a word: by its port it is another.
        port = r.connection_pool._available_connections[0]._sock.getsockname()[1]
        if port not in seen["connections"]:
            seen["connections"].append(port)
        if data:
            data.write(b"%d\n" % n)
            os.fsync(data.fileno())
            seen["file"] += 1
    except Exception as error:
        seen["errors"].append(repr(error))
    seen["slowest"] = max(seen["slowest"], time.monotonic() - begun)
    with open("/tmp/seen.new", "w") as out:
        json.dump(seen, out)
    os.rename("/tmp/seen.new", "/tmp/seen")
    time.sleep(0.02)
