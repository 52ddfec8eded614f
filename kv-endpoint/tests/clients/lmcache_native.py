"""Speaks as LMCache's native client (resp://, up to 0.5.6) does: one connection a worker; SET, GET, EXISTS and DEL of one
key, one a round trip; each answer read as the number of bytes that the hoped-for one has. A nil would hang it."""

import os
import socket
import sys
import threading

PORT = int(sys.argv[1])
PASSWORD = sys.argv[2] if len(sys.argv) > 2 else ""
WORKERS = 8


class Miss(Exception):
    pass


class Worker:
    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        # Longer than anything here takes: a hang is a failure.
        self.socket.settimeout(60)
        if PASSWORD:
            self.send(b"AUTH", PASSWORD.encode())
            assert self.exactly(5) == b"+OK\r\n"

    def send(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            parts += [b"$%d\r\n" % len(word), word, b"\r\n"]
        self.socket.sendall(b"".join(parts))

    def exactly(self, length):
        data = bytearray()
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            assert piece, "the connection was closed"
            data += piece
        return bytes(data)

    def set(self, key, value):
        self.send(b"SET", key, value)
        answer = self.exactly(5)
        assert answer == b"+OK\r\n", answer

    def get(self, key, length):
        self.send(b"GET", key)
        header = b"$%d\r\n" % length
        answer = self.exactly(len(header))
        if answer != header:
            assert answer.startswith(b"-") and answer.endswith(b"\r\n"), answer
            raise Miss
        value = self.exactly(length)
        assert self.exactly(2) == b"\r\n"
        return value

    def number(self, *words):
        self.send(*words)
        answer = self.exactly(4)
        assert answer in (b":0\r\n", b":1\r\n"), answer
        return answer == b":1\r\n"


def missed(worker, key, length):
    try:
        worker.get(key, length)
    except Miss:
        return
    raise AssertionError(f"{key} is there")


def work(n, lengths, faults):
    try:
        worker = Worker()
        for round in range(10):
            # Cache groups of one model differ in length, and take turns on a connection.
            length = lengths[round % len(lengths)]
            value = os.urandom(length)
            key = b"model@%08x@%x@%064x" % (n, lengths.index(length), round)
            assert not worker.number(b"EXISTS", key)
            worker.set(key, value)
            assert worker.number(b"EXISTS", key)
            assert worker.get(key, length) == value
            assert worker.number(b"DEL", key)
            assert not worker.number(b"DEL", key)
            # What was evicted after an EXISTS looks like this.
            missed(worker, key, length)
            missed(worker, key, length)
            # An empty key is refused, in five bytes and in four.
            worker.send(b"SET", b"", value)
            assert worker.exactly(5) == b"-NO\r\n"
            assert not worker.number(b"EXISTS", b"")
            assert worker.number(b"EXISTS", key) is False
        # A connection that has only read learns from the others what a miss looks like.
        for group, length in enumerate(lengths):
            missed(Worker(), b"model@%08x@%x@%064x" % (n, group, 1 << 255), length)
    except BaseException as fault:
        faults.append(fault)
        raise


for lengths in ((4096,), (5, 28, 999, 99_999), (131_072, 17 << 20), (2 << 20, 100)):
    faults = []
    threads = [threading.Thread(target=work, args=(n, lengths, faults)) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, (lengths, faults)
