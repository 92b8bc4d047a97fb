//! EVAL, SCRIPT, FUNCTION and FCALL.

use crate::duel::Duel;

#[test]
fn scripts() {
    Duel::start().script(
        r#"
        EVAL "return 1" 0
        EVAL "return {KEYS[1], KEYS[2], ARGV[1], #ARGV}" 2 a b c d
        EVAL "return 1" 2 a
        EVAL "return 1" -1
        EVAL "return 1" x
        EVAL "return 1"
        EVAL "return redis.call('set', KEYS[1], ARGV[1])" 1 k v
        EVAL "return redis.call('get', KEYS[1])" 1 k
        EVAL "return redis.call('get', 'k')" 0
        EVAL "return redis.call('get', 'missing')" 0
        EVAL "return redis.call('incr', 'k')" 0
        EVAL "return redis.pcall('incr', 'k')" 0
        EVAL "return redis.pcall('incr', 'k').err" 0
        EVAL "return redis.call('nonsense')" 0
        EVAL "return redis.call('config', 'nonsense')" 0
        EVAL "return redis.call('get')" 0
        EVAL "return redis.call('get', 'a', 'b')" 0
        EVAL "return redis.call('watch', 'a')" 0
        EVAL "return redis.call('multi')" 0
        EVAL "return redis.call('eval', 'return 1', 0)" 0
        EVAL "return redis.call('script', 'flush')" 0
        EVAL "return redis.call('function', 'list')" 0
        EVAL "return redis.call('subscribe', 'a')" 0
        EVAL "return redis.call('monitor')" 0
        EVAL "return redis.call('publish', 'a', 'b')" 0
        EVAL "redis.call('zadd', 'zs', 1, 'm') return redis.call('zscore', 'zs', 'm')" 0
        EVAL "return redis.call('client', 'id')" 0
        EVAL "return redis.call('hello', '3')" 0
        EVAL "return redis.call('auth', 'a')" 0
        EVAL "return redis.call('config', 'get', 'maxmemory')" 0
        EVAL "return redis.call('debug', 'sleep', 0)" 0
        EVAL "return redis.call('reset')" 0
        EVAL "return redis.call('save')" 0
        EVAL "return redis.call('shutdown')" 0
        EVAL "return redis.call('blpop', 'nothing', 0)" 0
        EVAL "return redis.call('ping')" 0
        EVAL "return redis.call('echo', 'x')" 0
        EVAL "return redis.call('dbsize')" 0
        EVAL "redis.call('set', 'x', 1) return redis.call('dbsize')" 0
        EVAL "redis.call('set', 'y', 1) return #redis.call('keys', '*')" 0
        EVAL "redis.call('set', 'z', 1) redis.call('flushall') redis.call('set', 'after', 1) return redis.call('keys', '*')" 0
        GET z
        GET after
        EVAL "redis.call('select', 5) redis.call('set', 'far', 'away') return redis.call('get', 'far')" 0
        GET far
        SELECT 5
        GET far
        DEL far
        SELECT 0
        EVAL "redis.call('select', 99)" 0
        EVAL "redis.call('set', 'half', 1) error('then this')" 0
        GET half
        EVAL "redis.call('set', 'half', 2) error({err='MINE and mine alone'})" 0
        GET half
        EVAL "redis.call('set', 'half', 3) redis.call('nonsense')" 0
        GET half
        EVAL "this is no Lua" 0
        EVAL "return nothing" 0
        EVAL "nothing = 1" 0
        EVAL "return {1, 2, {3, 'four', false}, nil, 5}" 0
        EVAL "return {ok='fine'}" 0
        EVAL "return {err='ERR not fine'}" 0
        EVAL "return redis.error_reply('My error')" 0
        EVAL "return redis.status_reply('all well')" 0
        EVAL "return {double=1.5}" 0
        EVAL "return {map={a=1}}" 0
        EVAL "redis.setresp(3) return redis.call('config', 'nonsense')" 0
        EVAL "redis.setresp(3) return {double=3.25}" 0
        EVAL "redis.setresp(3) return true" 0
        EVAL "return 3.99" 0
        EVAL "return true" 0
        EVAL "return false" 0
        EVAL "return redis.sha1hex('')" 0
        EVAL "return redis.acl_check_cmd('get', 'x')" 0
        EVAL "return redis.acl_check_cmd('nonsense', 'x')" 0
        EVAL "return redis.set_repl(redis.REPL_ALL)" 0
        EVAL "return redis.set_repl(10)" 0
        EVAL "return cjson.encode({1, 2, {a='b'}})" 0
        EVAL "return redis.call('append', KEYS[1], 'x') + redis.call('strlen', KEYS[1])" 1 grows
        EVAL "for i = 1, 100 do redis.call('rpush', 'l', i) end return redis.call('lrange', 'l', 0, 3)" 0
        EVAL "redis.call('hset', 'h', 'f', 'v', 'g', 'w') return redis.call('hget', 'h', 'g')" 0
        EVAL "return redis.call('incr', KEYS[1])" 1 l
        EVAL "redis.call('set', KEYS[1], 1, 'px', 1) redis.call('debug') return 1" 1 k
        COMMAND GETKEYS EVAL "return 1" 0
        COMMAND GETKEYS EVAL "return 1" 2 a b c
        COMMAND GETKEYS FCALL f 1 a b
        COMMAND GETKEYSANDFLAGS EVAL "return 1" 1 a
        COMMAND GETKEYSANDFLAGS EVAL_RO "return 1" 1 a
        "#,
    );
}

#[test]
fn flags_of_scripts() {
    Duel::start().script(
        r##"
        SET x 1
        EVAL_RO "return redis.call('get', KEYS[1])" 1 x
        EVAL_RO "return redis.call('set', KEYS[1], 2)" 1 x
        EVAL_RO "return redis.pcall('set', KEYS[1], 2).err" 1 x
        EVAL "#!lua flags=no-writes\nreturn redis.call('set', KEYS[1], 2)" 1 x
        EVAL "#!lua flags=no-writes\nreturn redis.call('get', KEYS[1])" 1 x
        EVAL_RO "#!lua\nreturn 1" 0
        EVAL_RO "#!lua flags=no-writes\nreturn 1" 0
        EVAL "#!lua\nreturn redis.call('set', KEYS[1], 2)" 1 x
        EVAL "#!lua flags=nonsense\nreturn 1" 0
        EVAL "#!python\nreturn 1" 0
        EVAL "#!lua" 0
        CONFIG SET maxmemory 1
        EVAL "return redis.call('set', 'x', 1)" 0
        EVAL "return redis.call('get', 'x')" 0
        EVAL "#!lua\nreturn 1" 0
        EVAL "#!lua flags=no-writes\nreturn 1" 0
        EVAL "#!lua flags=allow-oom\nreturn redis.call('set', 'x', 9)" 0
        EVAL "redis.call('del', 'x') return redis.call('set', 'x', 5)" 0
        CONFIG SET maxmemory 0
        CONFIG SET min-replicas-to-write 1
        EVAL "return redis.call('set', 'x', 1)" 0
        EVAL "return redis.call('get', 'x')" 0
        EVAL "#!lua\nreturn 1" 0
        CONFIG SET min-replicas-to-write 0
        "##,
    );
}

#[test]
fn the_cache_of_scripts() {
    Duel::start().script(
        r#"
        SCRIPT FLUSH
        EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
        SCRIPT LOAD "return 1"
        EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
        EVALSHA E0E1F9FABFC9D4800C877A703B823AC0578FF8DB 0
        EVALSHA_RO e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
        EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db x
        EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 1
        EVALSHA short 0
        EVALSHA ffffffffffffffffffffffffffffffffffffffff 0
        SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db ffffffffffffffffffffffffffffffffffffffff short
        SCRIPT LOAD "this is no Lua"
        SCRIPT LOAD
        SCRIPT EXISTS
        SCRIPT FLUSH SYNC
        SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db
        SCRIPT FLUSH ASYNC
        SCRIPT FLUSH nonsense
        SCRIPT FLUSH SYNC SYNC
        SCRIPT KILL
        SCRIPT nonsense
        SCRIPT
        FUNCTION KILL
        "#,
    );
}

#[test]
fn functions() {
    Duel::start().script(
        r##"
        FUNCTION FLUSH
        FUNCTION LIST
        FUNCTION STATS
        FUNCTION LOAD "#!lua name=one\nredis.register_function('f', function(keys, args) return {keys, args} end)"
        FUNCTION LOAD "#!lua name=one\nredis.register_function('f', function(keys, args) return 2 end)"
        FUNCTION LOAD "#!lua name=two\nredis.register_function('f', function(keys, args) return 2 end)"
        FUNCTION LOAD REPLACE "#!lua name=one\nredis.register_function('f', function(keys, args) return {keys, args} end)"
        FUNCTION LOAD REPLACE
        FUNCTION LOAD again "#!lua name=x\n"
        FUNCTION LOAD "#!lua name=bad\nreturn nonsense("
        FUNCTION LOAD "#!lua name=bad\nredis.call('ping')"
        FUNCTION LOAD "#!lua name=none\nreturn 1"
        FUNCTION LOAD "#!js name=none\nreturn 1"
        FUNCTION LOAD "#!lua\nreturn 1"
        FUNCTION LOAD "return 1"
        FCALL f 2 a b c d
        FCALL F 0
        FCALL g 0
        FCALL f x
        FCALL f 3 a
        FCALL f -1
        FCALL_RO f 0
        FUNCTION LIST
        FUNCTION LIST WITHCODE
        FUNCTION LIST LIBRARYNAME ON*
        FUNCTION LIST LIBRARYNAME tw*
        FUNCTION LIST LIBRARYNAME
        FUNCTION LIST nonsense
        FUNCTION STATS
        FUNCTION DUMP
        FLUSHALL
        FCALL f 0
        FUNCTION LOAD "#!lua name=ro\nredis.register_function{function_name='get', callback=function(keys) return redis.call('get', keys[1]) end, flags={'no-writes'}, description='reads'}"
        FCALL_RO get 1 x
        FCALL get 1 x
        FUNCTION LIST LIBRARYNAME ro
        FUNCTION DELETE one
        FUNCTION DELETE one
        FCALL f 0
        FUNCTION RESTORE nonsense
        FUNCTION RESTORE nonsense nonsense
        FUNCTION RESTORE nonsense FLUSH x
        FUNCTION FLUSH nonsense
        FUNCTION FLUSH SYNC SYNC
        FUNCTION FLUSH ASYNC
        FUNCTION LIST
        FUNCTION nonsense
        MULTI
        FUNCTION LOAD "#!lua name=m\nredis.register_function('m', function(keys, args) return redis.call('incr', 'count') end)"
        FCALL m 0
        EVAL "return redis.call('incr', 'count')" 0
        FUNCTION STATS
        FUNCTION LOAD "#!lua name=m\nredis.register_function('m', function() return 1 end)"
        EVAL "return redis.call('nonsense')" 0
        EXEC
        FCALL m 0
        GET count
        FUNCTION FLUSH
        FUNCTION STATS
        "##,
    );
}
