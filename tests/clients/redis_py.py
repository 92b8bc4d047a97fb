"""What a program written with redis-py does: every type, pipelines, transactions, blocking, messages, scripts.

    redis_py.py PORT [PROTOCOL]

Wants an empty server of its own. Prints a line `redis-py …: N checks` at the end, or fails at the first check that does.
"""

import sys
import threading
import time

import redis

PORT = int(sys.argv[1])
PROTOCOL = int(sys.argv[2]) if len(sys.argv) > 2 else 2
# Seconds: what waits longer is stuck.
DEADLINE = 10
checks = 0


def connect(**options):
    options = {"protocol": PROTOCOL, "decode_responses": True, "socket_timeout": DEADLINE, **options}
    return redis.Redis(port=PORT, **options)


def equal(found, wanted):
    global checks
    checks += 1
    assert found == wanted, f"found {found!r} instead of {wanted!r}"


def fails(error, call, *args):
    global checks
    checks += 1
    try:
        found = call(*args)
    except error as raised:
        return str(raised)
    raise AssertionError(f"found {found!r} instead of {error.__name__}")


def eventually(condition):
    global checks
    checks += 1
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def pairs(found):
    """Members and scores, which RESP2 has as tuples and RESP3 as lists, a single pair without a list around it."""
    if len(found) == 2 and isinstance(found[1], float):
        found = [found]
    return [tuple(pair) for pair in found]


def strings(r):
    equal(r.set("s", "hello", ex=100), True)
    equal(r.get("s"), "hello")
    equal(r.set("s", "other", nx=True), None)
    equal(r.set("s", "new", get=True), "hello")
    equal(r.append("s", "er"), 5)
    equal(r.getrange("s", 0, 2), "new")
    equal(r.setrange("s", 3, "t!"), 5)
    equal(r.getex("s", px=100_000), "newt!")
    equal(0 < r.pttl("s") <= 100_000, True)
    equal(r.getdel("s"), "newt!")
    equal(r.get("s"), None)
    equal(r.mset({"a": 1, "b": "2"}), True)
    equal(r.mget("a", "b", "none"), ["1", "2", None])
    equal(r.incr("a"), 2)
    equal(r.decrby("a", 5), -3)
    equal(r.incrbyfloat("b", 0.5), 2.5)
    equal(r.msetnx({"a": 1, "z": 1}), False)
    equal(r.strlen("b"), 3)
    equal(r.lcs("a", "b"), "")
    raw = connect(decode_responses=False)
    equal(raw.set(b"\x00\xff", bytes(range(256))), True)
    equal(raw.get(b"\x00\xff"), bytes(range(256)))
    big = "x" * 3_000_000
    equal(r.set("big", big), True)
    equal(r.get("big") == big, True)
    fails(redis.ResponseError, r.incr, "big")


def keys(r):
    r.mset({f"key:{n}": n for n in range(500)})
    equal(r.exists("key:0", "key:499", "none"), 2)
    equal(sorted(r.scan_iter("key:*", count=37)), sorted(f"key:{n}" for n in range(500)))
    equal(sorted(r.scan_iter(_type="hash")), [])
    equal(sorted(r.keys("key:1?")), [f"key:{n}" for n in range(10, 20)])
    equal(r.expire("key:0", 100), True)
    equal(r.expire("key:0", 10, gt=True), False)
    equal(0 < r.ttl("key:0") <= 100, True)
    equal(r.persist("key:0"), True)
    equal(r.rename("key:0", "renamed"), True)
    equal(r.copy("renamed", "copied"), True)
    equal(r.type("copied"), "string")
    raw = connect(decode_responses=False)
    dump = raw.dump("copied")
    equal(raw.restore("restored", 0, dump), b"OK")
    equal(r.get("restored"), "0")
    fails(redis.ResponseError, raw.restore, "restored", 0, dump)
    equal(r.touch("renamed", "none"), 1)
    equal(r.unlink("renamed", "copied"), 2)
    equal(r.delete("restored"), 1)
    equal(r.set("soon", 1, px=20), True)
    eventually(lambda: r.get("soon") is None)


def hashes(r):
    equal(r.hset("h", mapping={"a": 1, "b": "two"}), 2)
    equal(r.hgetall("h"), {"a": "1", "b": "two"})
    equal(r.hincrby("h", "a", 5), 6)
    equal(r.hmget("h", ["a", "none"]), ["6", None])
    equal(r.hsetnx("h", "b", "x") in (0, False), True)
    equal(sorted(r.hkeys("h")), ["a", "b"])
    equal(r.hstrlen("h", "b"), 3)
    equal(sorted(r.hrandfield("h", 2)), ["a", "b"])
    r.hset("large", mapping={f"field{n}": n for n in range(2000)})
    equal(dict(r.hscan_iter("large", count=100)), {f"field{n}": str(n) for n in range(2000)})
    equal(r.hdel("h", "a", "b", "none"), 2)
    equal(r.exists("h"), 0)


def lists(r):
    equal(r.rpush("l", "a", "b", "c"), 3)
    equal(r.lpush("l", "z"), 4)
    equal(r.lrange("l", 0, -1), ["z", "a", "b", "c"])
    equal(r.lindex("l", 1), "a")
    equal(r.linsert("l", "BEFORE", "b", "x"), 5)
    equal(r.lpos("l", "b"), 3)
    equal(r.lset("l", 0, "first"), True)
    equal(r.lrem("l", 1, "x"), 1)
    equal(r.lpop("l", 2), ["first", "a"])
    equal(r.lmove("l", "m", "LEFT", "RIGHT"), "b")
    equal(r.ltrim("l", 1, -1), True)
    equal(r.llen("l"), 0)
    equal(list(r.lmpop(2, "l", "m", direction="LEFT")), ["m", ["b"]])


def sets(r):
    equal(r.sadd("s1", 1, 2, 3), 3)
    equal(r.sadd("s2", 2, 3, 4), 3)
    equal(set(r.sinter("s1", "s2")), {"2", "3"})
    equal(set(r.sunion("s1", "s2")), {"1", "2", "3", "4"})
    equal(r.sdiffstore("s3", "s1", "s2"), 1)
    equal(set(r.smembers("s3")), {"1"})
    equal(r.smismember("s1", ["1", "9"]), [1, 0])
    equal(r.sintercard(2, ["s1", "s2"]), 2)
    equal(r.smove("s1", "s2", "1"), True)
    equal(r.spop("s3"), "1")
    r.sadd("large set", *range(2000))
    equal(set(r.sscan_iter("large set", count=100)), {str(n) for n in range(2000)})


def sorted_sets(r):
    equal(r.zadd("z", {"a": 1, "b": 2.5, "c": float("inf")}), 3)
    equal(r.zrange("z", 0, -1), ["a", "b", "c"])
    equal(pairs(r.zrange("z", 0, 1, withscores=True)), [("a", 1.0), ("b", 2.5)])
    equal(r.zincrby("z", 2, "a"), 3.0)
    equal(r.zrank("z", "a"), 1)
    equal(r.zscore("z", "c"), float("inf"))
    equal(r.zscore("z", "none"), None)
    equal(r.zmscore("z", ["b", "none"]), [2.5, None])
    equal(r.zrangebyscore("z", "(2.5", "+inf"), ["a", "c"])
    equal(r.zcount("z", "-inf", 3), 2)
    equal(r.zadd("z", {"a": 1}, gt=True, ch=True), 0)
    equal(r.zadd("y", {"a": 10, "d": 4}), 2)
    equal(pairs(r.zunion(["z", "y"], withscores=True))[-2:], [("a", 13.0), ("c", float("inf"))])
    equal(r.zinterstore("x", ["z", "y"]), 1)
    equal(r.zdiff(["z", "y"]), ["b", "c"])
    equal(pairs(r.zpopmin("z")), [("b", 2.5)])
    equal(r.zrangestore("w", "z", 0, 0), 1)
    r.zadd("large zset", {f"m{n}": n for n in range(2000)})
    equal(dict(r.zscan_iter("large zset", count=100)), {f"m{n}": float(n) for n in range(2000)})
    equal(r.zremrangebyrank("large zset", 0, 999), 1000)
    equal(r.zrange("large zset", 0, 0), ["m1000"])


def bits_and_sketches(r):
    equal(r.setbit("bits", 7, 1), 0)
    equal(r.getbit("bits", 7), 1)
    equal(r.bitcount("bits"), 1)
    equal(r.bitpos("bits", 1), 7)
    equal(r.bitfield("bits").set("u8", 0, 255).incrby("u8", 8, 3).execute(), [1, 3])
    equal(r.bitop("NOT", "inverse", "bits"), 2)
    equal(r.pfadd("p", *range(1000)), 1)
    equal(abs(r.pfcount("p") - 1000) < 30, True)
    equal(r.pfadd("q", "other"), 1)
    equal(r.pfmerge("both", "p", "q"), True)
    equal(abs(r.pfcount("both") - 1001) < 30, True)


def places(r):
    equal(r.geoadd("geo", [13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"]), 2)
    equal(r.geodist("geo", "Palermo", "Catania", "km"), 166.2742)
    equal(r.geohash("geo", "Palermo"), ["sqc8b49rny0"])
    equal([round(float(n), 5) for n in r.geopos("geo", "Palermo")[0]], [13.36139, 38.11556])
    near = r.geosearch("geo", longitude=15, latitude=37, radius=200, unit="km", sort="ASC", withdist=True)
    equal([(name, round(float(distance), 4)) for name, distance in near], [("Catania", 56.4413), ("Palermo", 190.4424)])
    equal(r.geosearchstore("near", "geo", member="Palermo", width=400, height=400, unit="km"), 2)


def pipelines(r):
    pipe = r.pipeline(transaction=False)
    for n in range(5000):
        pipe.set(f"pipe:{n}", n)
    for n in range(5000):
        pipe.get(f"pipe:{n}")
    equal(pipe.execute(), [True] * 5000 + [str(n) for n in range(5000)])
    pipe = r.pipeline(transaction=False)
    pipe.set("text", "x").incr("text").get("text")
    replies = pipe.execute(raise_on_error=False)
    equal([type(reply) for reply in replies], [bool, redis.ResponseError, str])


def transactions(r):
    with r.pipeline() as pipe:
        equal(pipe.set("t", 1).incr("t").lpush("tl", "x").execute(), [True, 2, 1])
    with r.pipeline() as pipe:
        pipe.watch("t")
        value = int(pipe.get("t"))
        pipe.multi()
        pipe.set("t", value + 1)
        equal(pipe.execute(), [True])
    with r.pipeline() as pipe:
        pipe.watch("t")
        r.set("t", "taken")
        pipe.multi()
        pipe.set("t", "lost")
        fails(redis.WatchError, pipe.execute)
    equal(r.get("t"), "taken")

    r.set("counter", 0)

    def increment():
        own = connect()

        def body(pipe):
            value = int(pipe.get("counter"))
            pipe.multi()
            pipe.set("counter", value + 1)

        for _ in range(50):
            own.transaction(body, "counter")

    in_threads(increment, 4)
    equal(r.get("counter"), "200")


def in_threads(work, count):
    failures = []

    def run():
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def blocking(r):
    def later(push):
        clients = r.info("clients")["blocked_clients"]

        def run():
            eventually(lambda: r.info("clients")["blocked_clients"] > clients)
            push(connect())

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    for wait, push, wanted in [
        (lambda c: c.blpop(["q1", "q2"], timeout=DEADLINE), lambda c: c.rpush("q2", "x"), ("q2", "x")),
        (lambda c: c.brpoplpush("q1", "q3", timeout=DEADLINE), lambda c: c.rpush("q1", "y"), "y"),
        (lambda c: c.blmove("q1", "q3", DEADLINE, "LEFT", "LEFT"), lambda c: c.rpush("q1", "z"), "z"),
        (lambda c: c.bzpopmin("q4", timeout=DEADLINE), lambda c: c.zadd("q4", {"m": 2}), ("q4", "m", 2.0)),
    ]:
        thread = later(push)
        found = wait(connect(socket_timeout=2 * DEADLINE))
        equal(tuple(found) if isinstance(found, list) else found, wanted)
        thread.join()
    equal(connect().blpop("none", timeout=0.05), None)


def messages(r):
    def next_message(subscriber):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            message = subscriber.get_message(timeout=1)
            if message:
                return message["type"], message["channel"], message["data"]
        raise AssertionError("no message")

    subscriber = r.pubsub()
    subscriber.subscribe("news")
    equal(next_message(subscriber), ("subscribe", "news", 1))
    subscriber.psubscribe("n*")
    equal(next_message(subscriber), ("psubscribe", "n*", 2))
    equal(r.publish("news", "hello"), 2)
    equal({next_message(subscriber)[0], next_message(subscriber)[0]}, {"message", "pmessage"})
    equal(r.pubsub_channels("*"), ["news"])
    equal(r.pubsub_numsub("news"), [("news", 1)])
    subscriber.unsubscribe("news")
    equal(next_message(subscriber), ("unsubscribe", "news", 1))
    subscriber.close()

    r.config_set("notify-keyspace-events", "KEA")
    subscriber = r.pubsub(ignore_subscribe_messages=True)
    subscriber.psubscribe("__keyevent@0__:*")
    eventually(lambda: r.pubsub_numpat() == 1)
    subscriber.get_message(timeout=1)
    r.set("watched", 1)
    equal(next_message(subscriber), ("pmessage", "__keyevent@0__:set", "watched"))
    r.delete("watched")
    equal(next_message(subscriber), ("pmessage", "__keyevent@0__:del", "watched"))
    subscriber.close()
    r.config_set("notify-keyspace-events", "")


def scripts(r):
    equal(r.eval("return {KEYS[1], ARGV[1], 7, false}", 1, "k", "a"), ["k", "a", 7, None])
    transfer = r.register_script(
        "local n = tonumber(ARGV[1]) redis.call('decrby', KEYS[1], n) return redis.call('incrby', KEYS[2], n)"
    )
    r.mset({"from": 100, "to": 0})
    equal(transfer(keys=["from", "to"], args=[30]), 30)
    equal(r.mget("from", "to"), ["70", "30"])
    r.script_flush()
    equal(transfer(keys=["from", "to"], args=[1]), 31)
    equal(r.script_exists(transfer.sha, "0" * 40), [True, False])
    r.rpush("no number", 1)
    fails(redis.ResponseError, r.eval, "return redis.call('incr', KEYS[1])", 1, "no number")
    equal("boom" in fails(redis.ResponseError, r.eval, "error('boom')", 0), True)
    equal(
        r.function_load(
            "#!lua name=lib\n"
            "redis.register_function('twice', function(keys, args) return redis.call('append', keys[1], args[1] .. args[1]) end)",
            replace=True,
        ),
        "lib",
    )
    equal(r.fcall("twice", 1, "appended", "ab"), 4)
    equal(r.get("appended"), "abab")
    equal(r.function_delete("lib"), True)


def streams(r):
    first = r.xadd("st", {"n": 1})
    second = r.xadd("st", {"n": 2, "more": "x"})
    equal(r.xlen("st"), 2)
    equal(r.xrange("st"), [(first, {"n": "1"}), (second, {"n": "2", "more": "x"})])
    equal([entry for entry, _ in r.xrevrange("st", count=1)], [second])

    def entries(reply):
        """What XREAD and XREADGROUP found in one stream, which RESP3 has as a map."""
        if isinstance(reply, dict):
            [(name, [found])] = reply.items() if reply else [("st", [[]])]
        else:
            [[name, found]] = reply or [["st", []]]
        return [entry for entry, _ in found]

    equal(entries(r.xread({"st": first})), [second])
    equal(r.xgroup_create("st", "g", id="0"), True)
    fails(redis.ResponseError, r.xgroup_create, "st", "g")
    equal(entries(r.xreadgroup("g", "alice", {"st": ">"}, count=1)), [first])
    equal(entries(r.xreadgroup("g", "bob", {"st": ">"})), [second])
    equal(r.xack("st", "g", first), 1)
    pending = r.xpending("st", "g")
    equal((pending["pending"], pending["min"], pending["consumers"]), (1, second, [{"name": "bob", "pending": 1}]))
    equal([entry["consumer"] for entry in r.xpending_range("st", "g", "-", "+", 10)], ["bob"])
    equal([entry for entry, _ in r.xclaim("st", "g", "alice", 0, [second])], [second])
    equal(r.xautoclaim("st", "g", "carol", 0, "0-0")[1], [(second, {"n": "2", "more": "x"})])
    equal(r.xinfo_groups("st")[0]["consumers"], 3)
    equal(r.xinfo_stream("st")["length"], 2)
    equal(r.xdel("st", first), 1)
    equal(r.xtrim("st", maxlen=0, approximate=False), 1)

    waiter = []
    thread = threading.Thread(target=lambda: waiter.append(connect().xread({"st": "$"}, block=DEADLINE * 500)))
    blocked = r.info("clients")["blocked_clients"]
    thread.start()
    eventually(lambda: r.info("clients")["blocked_clients"] > blocked)
    third = r.xadd("st", {"n": 3})
    thread.join()
    equal(entries(waiter[0]), [third])


def server(r):
    equal(r.ping(), True)
    equal(r.echo("hi"), "hi")
    equal(r.info("server")["redis_version"].split(".")[0].isdigit(), True)
    equal(r.config_get("maxmemory"), {"maxmemory": "0"})
    equal(r.client_setname("tester"), True)
    equal(r.client_getname(), "tester")
    equal(any(client["name"] == "tester" for client in r.client_list()), True)
    equal(r.command_count() > 200, True)
    equal(len(r.time()), 2)
    equal(r.object("encoding", "counter"), "int")
    equal(r.select(1), True)
    equal(r.dbsize(), 0)
    equal(r.select(0), True)
    equal(connect(db=2).set("elsewhere", 1), True)
    equal(r.get("elsewhere"), None)
    fails(redis.ResponseError, r.execute_command, "NOSUCHCOMMAND")


def tracked(r):
    """What the server pushes for a client's own cache: RESP3 only. The library's cache itself wants a Redis 7.4."""
    if PROTOCOL < 3:
        return
    pushed = []
    own = redis.Connection(port=PORT, protocol=3, decode_responses=True, socket_timeout=DEADLINE)
    own.connect()
    own._parser.set_invalidation_push_handler(pushed.append)

    def call(*args):
        own.send_command(*args)
        return own.read_response()

    equal(call("CLIENT", "TRACKING", "ON"), "OK")
    r.set("tracked", "old")
    equal(call("GET", "tracked"), "old")
    r.set("tracked", "new")
    eventually(lambda: call("PING") == "PONG" and pushed)
    equal(pushed, [["invalidate", ["tracked"]]])
    equal(call("GET", "tracked"), "new")
    own.disconnect()


def concurrency(r):
    def work():
        own = connect()
        for n in range(300):
            own.incr("shared")
            own.rpush("shared list", n)
            own.zincrby("shared zset", 1, n % 10)

    in_threads(work, 8)
    equal(r.get("shared"), "2400")
    equal(r.llen("shared list"), 2400)
    equal(r.zrange("shared zset", 0, -1, withscores=True)[0][1], 240.0)


PARTS = [
    strings, keys, hashes, lists, sets, sorted_sets, bits_and_sketches, places, pipelines, transactions, blocking,
    messages, scripts, streams, concurrency, server, tracked,
]

client = connect()
client.flushall()
failed = []
for part in PARTS:
    try:
        # A connection of its own: what one part leaves must not disturb the next.
        part(connect(single_connection_client=part in (server,)))
    except Exception as failure:
        line = failure.__traceback__
        while line.tb_next and line.tb_next.tb_frame.f_code.co_filename == __file__:
            line = line.tb_next
        failed.append(part.__name__)
        print(f"redis-py {redis.__version__} RESP{PROTOCOL}: {part.__name__}, line {line.tb_lineno}: "
              f"{type(failure).__name__}: {failure}", file=sys.stderr)
client.flushall()
print(f"redis-py {redis.__version__} RESP{PROTOCOL}: {checks} checks, {len(failed)} of {len(PARTS)} parts failed")
sys.exit(1 if failed else 0)
