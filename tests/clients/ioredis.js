// What a program written with ioredis does: every type, pipelines, transactions, blocking, messages, scripts.
//
//     ioredis.js PORT
//
// Wants an empty server of its own. Prints a line `ioredis …: N checks` at the end, or fails at the first check that does.
'use strict';

const assert = require('node:assert/strict');
const Redis = require('ioredis');
const { version } = require('ioredis/package.json');

const port = Number(process.argv[2]);
// Milliseconds: what waits longer is stuck.
const DEADLINE = 10_000;
let checks = 0;

// The first error that no command got.
let failure;
const clients = [];
function connect(options = {}) {
  const client = new Redis({
    port, host: '127.0.0.1', maxRetriesPerRequest: 1, commandTimeout: DEADLINE, showFriendlyErrorStack: true, ...options,
  });
  client.on('error', (error) => { failure ??= error; });
  clients.push(client);
  return client;
}

function equal(found, wanted) {
  checks += 1;
  assert.deepEqual(found, wanted);
}

async function fails(promise, pattern) {
  checks += 1;
  await assert.rejects(promise, (error) => pattern.test(error.message));
}

async function eventually(condition) {
  checks += 1;
  const end = Date.now() + DEADLINE;
  while (!(await condition())) {
    assert.ok(Date.now() < end, 'waited too long');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// The next event of this name, with all its arguments.
function next(emitter, event) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event}`)), DEADLINE);
    emitter.once(event, (...args) => { clearTimeout(timer); resolve(args); });
  });
}

async function collect(stream) {
  const found = [];
  for await (const batch of stream) found.push(...batch);
  return found;
}

const range = (count) => [...Array(count).keys()];
const blockedClients = async (redis) => Number(/blocked_clients:(\d+)/.exec(await redis.info('clients'))[1]);

const parts = {
  async strings(redis) {
    equal(await redis.set('s', 'hello', 'EX', 100), 'OK');
    equal(await redis.get('s'), 'hello');
    equal(await redis.set('s', 'x', 'NX'), null);
    equal(await redis.append('s', '!'), 6);
    equal(await redis.getrange('s', 1, 2), 'el');
    equal(await redis.mset({ a: 1, b: 2 }), 'OK');
    equal(await redis.mget('a', 'b', 'none'), ['1', '2', null]);
    equal(await redis.incrby('a', 41), 42);
    equal(await redis.incrbyfloat('a', '0.5'), '42.5');
    equal(await redis.getdel('b'), '2');
    const bytes = Buffer.from(range(256));
    equal(await redis.set('bytes', bytes), 'OK');
    equal(await redis.getBuffer('bytes'), bytes);
    await fails(redis.incr('s'), /not an integer/);
  },

  async keys(redis) {
    await redis.mset(Object.fromEntries(range(500).map((n) => [`key:${n}`, n])));
    equal((await collect(redis.scanStream({ match: 'key:*', count: 37 }))).length, 500);
    equal(await redis.expire('key:0', 100), 1);
    equal(await redis.ttl('key:0') > 90, true);
    equal(await redis.rename('key:0', 'renamed'), 'OK');
    equal(await redis.type('renamed'), 'string');
    equal(await redis.copy('renamed', 'copied'), 1);
    const dump = await redis.dumpBuffer('copied');
    equal(await redis.restore('restored', 0, dump), 'OK');
    equal(await redis.unlink('renamed', 'copied', 'restored', 'none'), 3);
    equal(await redis.set('soon', 1, 'PX', 20), 'OK');
    await eventually(async () => (await redis.exists('soon')) === 0);
  },

  async hashes(redis) {
    equal(await redis.hset('h', { a: 1, b: 2 }), 2);
    equal(await redis.hgetall('h'), { a: '1', b: '2' });
    equal(await redis.hincrby('h', 'a', 9), 10);
    equal(await redis.hmget('h', 'a', 'none'), ['10', null]);
    await redis.hset('large', Object.fromEntries(range(2000).map((n) => [`f${n}`, n])));
    equal((await collect(redis.hscanStream('large', { count: 100 }))).length, 4000);
    equal(await redis.hdel('h', 'a', 'b'), 2);
  },

  async lists(redis) {
    equal(await redis.rpush('l', 'a', 'b', 'c'), 3);
    equal(await redis.lrange('l', 0, -1), ['a', 'b', 'c']);
    equal(await redis.linsert('l', 'AFTER', 'a', 'x'), 4);
    equal(await redis.lmove('l', 'm', 'LEFT', 'RIGHT'), 'a');
    equal(await redis.lpop('l', 2), ['x', 'b']);
    equal(await redis.lmpop(1, 'm', 'LEFT'), ['m', ['a']]);
    equal(await redis.llen('l'), 1);
  },

  async sets(redis) {
    equal(await redis.sadd('s1', 1, 2, 3), 3);
    equal(await redis.sadd('s2', 2, 3, 4), 3);
    equal((await redis.sinter('s1', 's2')).sort(), ['2', '3']);
    equal(await redis.sunionstore('s3', 's1', 's2'), 4);
    equal(await redis.smismember('s3', 1, 9), [1, 0]);
    await redis.sadd('large set', range(2000));
    equal(new Set(await collect(redis.sscanStream('large set'))).size, 2000);
  },

  async sortedSets(redis) {
    equal(await redis.zadd('z', 1, 'a', 2.5, 'b', 'inf', 'c'), 3);
    equal(await redis.zrange('z', 0, -1, 'WITHSCORES'), ['a', '1', 'b', '2.5', 'c', 'inf']);
    equal(await redis.zincrby('z', 2, 'a'), '3');
    equal(await redis.zrank('z', 'a'), 1);
    equal(await redis.zrangebyscore('z', '(2.5', '+inf', 'LIMIT', 0, 1), ['a']);
    equal(await redis.zpopmax('z'), ['c', 'inf']);
    equal(await redis.zunionstore('y', 1, 'z', 'WEIGHTS', 2), 2);
    equal(await redis.zscore('y', 'b'), '5');
    await redis.zadd('large zset', ...range(2000).flatMap((n) => [n, `m${n}`]));
    equal((await collect(redis.zscanStream('large zset'))).length, 4000);
  },

  async bitsSketchesPlaces(redis) {
    equal(await redis.setbit('bits', 7, 1), 0);
    equal(await redis.bitcount('bits'), 1);
    equal(await redis.bitfield('bits', 'INCRBY', 'u8', 8, 3), [3]);
    equal(await redis.pfadd('p', ...range(1000)), 1);
    equal(Math.abs(await redis.pfcount('p') - 1000) < 30, true);
    equal(await redis.geoadd('geo', 13.361389, 38.115556, 'Palermo', 15.087269, 37.502669, 'Catania'), 2);
    equal(await redis.geodist('geo', 'Palermo', 'Catania', 'km'), '166.2742');
    equal(await redis.geosearch('geo', 'FROMLONLAT', 15, 37, 'BYRADIUS', 200, 'km', 'ASC'), ['Catania', 'Palermo']);
  },

  async pipelines(redis) {
    const pipeline = redis.pipeline();
    range(5000).forEach((n) => pipeline.set(`pipe:${n}`, n));
    range(5000).forEach((n) => pipeline.get(`pipe:${n}`));
    const replies = await pipeline.exec();
    equal(replies.slice(5000).map(([, value]) => value), range(5000).map(String));
    const mixed = await redis.pipeline().set('text', 'x').incr('text').get('text').exec();
    equal([mixed[0][1], mixed[1][0].message, mixed[2][1]],
      ['OK', 'ERR value is not an integer or out of range', 'x']);
  },

  async transactions(redis) {
    equal(await redis.multi().set('t', 1).incr('t').exec(), [[null, 'OK'], [null, 2]]);
    await redis.watch('t');
    await connect().set('t', 'taken');
    equal(await redis.multi().set('t', 'lost').exec(), null);
    equal(await redis.get('t'), 'taken');
    await redis.multi({ pipeline: false });
    equal(await redis.set('t', 'late'), 'QUEUED');
    equal(await redis.exec(), [[null, 'OK']]);
  },

  async blocking(redis) {
    const waiting = connect();
    for (const [wait, push, wanted] of [
      [() => waiting.blpop('q1', 'q2', 9), () => redis.rpush('q2', 'x'), ['q2', 'x']],
      [() => waiting.blmove('q1', 'q3', 'LEFT', 'LEFT', 9), () => redis.rpush('q1', 'y'), 'y'],
      [() => waiting.bzpopmin('q4', 9), () => redis.zadd('q4', 2, 'm'), ['q4', 'm', '2']],
    ]) {
      const found = wait();
      await eventually(async () => await blockedClients(redis) === 1);
      await push();
      equal(await found, wanted);
    }
    equal(await waiting.blpop('none', 0.05), null);
  },

  async messages(redis) {
    const subscriber = connect();
    equal(await subscriber.subscribe('news', 'sport'), 2);
    equal(await subscriber.psubscribe('n*'), 3);
    const [message, pattern] = [next(subscriber, 'message'), next(subscriber, 'pmessage')];
    equal(await redis.publish('news', 'hello'), 2);
    equal(await message, ['news', 'hello']);
    equal(await pattern, ['n*', 'news', 'hello']);
    equal(await redis.pubsub('NUMSUB', 'news'), ['news', 1]);
    equal(await subscriber.unsubscribe('news', 'sport'), 1);
    equal(await subscriber.punsubscribe('n*'), 0);
    equal(await subscriber.set('usable', 1), 'OK');

    await redis.config('SET', 'notify-keyspace-events', 'KEA');
    await subscriber.subscribe('__keyevent@0__:set');
    const event = next(subscriber, 'message');
    await redis.set('watched', 1);
    equal(await event, ['__keyevent@0__:set', 'watched']);
    await redis.config('SET', 'notify-keyspace-events', '');

    // Nothing else may run until it listens: the library is not ready yet for a line that comes with the reply.
    const monitor = await redis.monitor();
    clients.push(monitor);
    const seen = new Promise((resolve) => monitor.on('monitor', (_, args) => args[1] === 'monitored' && resolve(args)));
    await redis.set('monitored', 'v');
    equal(await seen, ['set', 'monitored', 'v']);
  },

  async scripts(redis) {
    equal(await redis.eval('return {KEYS[1], ARGV[1], 7, false}', 1, 'k', 'a'), ['k', 'a', 7, null]);
    redis.defineCommand('transfer', {
      numberOfKeys: 2,
      lua: "redis.call('decrby', KEYS[1], ARGV[1]) return redis.call('incrby', KEYS[2], ARGV[1])",
    });
    await redis.mset({ from: 100, to: 0 });
    equal(await redis.transfer('from', 'to', 30), 30);
    await redis.script('FLUSH');
    equal(await redis.transfer('from', 'to', 1), 31);
    equal(await redis.mget('from', 'to'), ['69', '31']);
    await fails(redis.eval("error('boom')", 0), /boom/);
    equal(await redis.function('LOAD', 'REPLACE',
      "#!lua name=lib\nredis.register_function('first', function(keys, args) return args[1] end)"), 'lib');
    equal(await redis.fcall('first', 0, 'one'), 'one');
    equal(await redis.function('DELETE', 'lib'), 'OK');
  },

  async streams(redis) {
    const first = await redis.xadd('st', '*', 'n', 1);
    const second = await redis.xadd('st', '*', 'n', 2);
    equal(await redis.xrange('st', '-', '+'), [[first, ['n', '1']], [second, ['n', '2']]]);
    equal(await redis.xread('COUNT', 1, 'STREAMS', 'st', first), [['st', [[second, ['n', '2']]]]]);
    equal(await redis.xgroup('CREATE', 'st', 'g', '0'), 'OK');
    await fails(redis.xgroup('CREATE', 'st', 'g', '0'), /BUSYGROUP/);
    equal((await redis.xreadgroup('GROUP', 'g', 'alice', 'STREAMS', 'st', '>'))[0][1].length, 2);
    equal(await redis.xack('st', 'g', first), 1);
    equal(await redis.xpending('st', 'g'), [1, second, second, [['alice', '1']]]);
    equal(await redis.xclaim('st', 'g', 'bob', 0, second, 'JUSTID'), [second]);
    equal((await redis.xautoclaim('st', 'g', 'carol', 0, '0'))[1], [[second, ['n', '2']]]);
    equal((await redis.xinfo('STREAM', 'st')).slice(0, 2), ['length', 2]);
    const reader = connect();
    const found = reader.xread('BLOCK', 9000, 'STREAMS', 'st', '$');
    await eventually(async () => await blockedClients(redis) === 1);
    const third = await redis.xadd('st', '*', 'n', 3);
    equal(await found, [['st', [[third, ['n', '3']]]]]);
    equal(await redis.xtrim('st', 'MAXLEN', 0), 3);
  },

  async connections(redis) {
    equal(await redis.ping(), 'PONG');
    equal(await redis.client('SETNAME', 'tester'), 'OK');
    equal((await redis.client('LIST')).includes('name=tester'), true);
    equal(await redis.config('GET', 'maxmemory'), ['maxmemory', '0']);
    const other = connect({ db: 3, keyPrefix: 'prefix:', connectionName: 'other' });
    equal(await other.set('k', 'v'), 'OK');
    equal(await redis.exists('prefix:k'), 0);
    equal(await other.keys('*'), ['prefix:k']);
    // A connection that is killed is made anew, and its database and name with it.
    const again = next(other, 'ready');
    const id = await other.client('ID');
    equal(await redis.client('KILL', 'ID', id), 1);
    await again;
    equal(await other.get('k'), 'v');
    equal(await other.client('GETNAME'), 'other');
    const automatic = connect({ enableAutoPipelining: true });
    equal(await Promise.all(range(200).map((n) => automatic.set(`auto:${n}`, n))), range(200).map(() => 'OK'));
    equal(await automatic.get('auto:199'), '199');
    await fails(redis.call('NOSUCHCOMMAND'), /unknown command/);
  },
};

async function main() {
  const first = connect();
  await first.flushall();
  let failed = 0;
  for (const [name, part] of Object.entries(parts)) {
    const redis = connect();
    try {
      await part(redis);
      if (failure) throw failure;
    } catch (error) {
      failed += 1;
      const line = /ioredis\.js:(\d+)/.exec(error.stack)?.[1];
      console.error(`ioredis ${version}: ${name}, line ${line}: ${error.message.split('\n').slice(0, 12).join(' ')}`);
    }
    failure = undefined;
  }
  await first.flushall();
  clients.forEach((client) => client.disconnect());
  console.log(`ioredis ${version}: ${checks} checks, ${failed} of ${Object.keys(parts).length} parts failed`);
  process.exit(failed ? 1 : 0);
}

main().catch((error) => { console.error(error); process.exit(1); });
