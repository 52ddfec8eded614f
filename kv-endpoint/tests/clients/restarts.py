"""redis-py under load while agents come and go: never an error, only misses; whatever is found is right.

Runs until its input ends. Says how many gets found something, after each of them that did."""

import sys
import threading

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PORT = int(sys.argv[1])
THREADS = 6
LENGTHS = [28, 100_000, 1 << 20, 3_000_000, 20 << 20]

stop = threading.Event()
lock = threading.Lock()
counts = {"hits": 0, "misses": 0}
failures = []


def value(thread, number):
    head = b"%d %d " % (thread, number)
    length = LENGTHS[number % len(LENGTHS)]
    return head + bytes([number % 251]) * (length - len(head))


def load(thread):
    # Whatever goes wrong is to be seen: nothing is tried again.
    client = redis.Redis(port=PORT, retry=Retry(NoBackoff(), 0), socket_timeout=100)
    number = 0
    me = client.client_id()
    while not stop.is_set():
        number += 1
        key = f"{thread}-{number % 7}"
        assert client.set(key, value(thread, number)) is True
        found = client.get(key)
        assert found is None or found == value(thread, int(found.split(b" ", 2)[1])), "a wrong value"
        with lock:
            counts["misses" if found is None else "hits"] += 1
            print(counts["hits"], counts["misses"], flush=True)
    assert client.client_id() == me, "the connection was replaced"


def run(thread):
    try:
        load(thread)
    except BaseException as error:
        failures.append(f"client {thread}: {error!r}")
        stop.set()


threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
if failures:
    sys.exit("\n".join(failures))
print("whole", counts["hits"], counts["misses"])
