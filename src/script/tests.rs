//! Scripts and functions against a host that is a small map.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::*;

/// A host with `get`, `set`, `echo`, `fail`, `abort` and a log.
#[derive(Default)]
pub(super) struct Fake {
    data: HashMap<Bytes, Bytes>,
    log: Vec<(LogLevel, String)>,
    calls: usize,
    run: Option<Arc<Run>>,
}

impl Host for Fake {
    fn call(&mut self, args: Vec<Bytes>, reply: &mut Reply) -> Result<(), Abort> {
        self.calls += 1;
        match (args[0].to_ascii_lowercase().as_slice(), args.len()) {
            (b"get", 2) => match self.data.get(&args[1]) {
                Some(value) => reply.bulk(value),
                None => reply.null(),
            },
            (b"set", 3) => {
                self.data.insert(args[1].clone(), args[2].clone());
                self.run.as_ref().unwrap().set_wrote();
                reply.ok();
            }
            (b"count", _) => reply.int(args.len() as i64),
            (b"proto", 1) => reply.int(reply.proto().into()),
            (b"map", 1) => {
                reply.map(1);
                reply.bulk(b"k");
                reply.double(1.5);
            }
            (b"abort", 1) => return Err(Abort),
            (b"get" | b"set", _) => reply.error("ERR Wrong number of args calling Redis command from script"),
            _ => reply.error("ERR Unknown Redis command called from script"),
        }
        Ok(())
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        self.log.push((level, String::from_utf8_lossy(text).into_owned()));
    }

    fn set_repl(&mut self, log: bool, replicas: bool) {
        self.log.push((LogLevel::Debug, format!("repl {log} {replicas}")));
    }

    fn acl_check_cmd(&mut self, args: &[Bytes]) -> Option<bool> {
        match args[0].as_ref() {
            b"get" => Some(true),
            b"set" => Some(false),
            _ => None,
        }
    }

    fn started(&mut self, run: &Arc<Run>) {
        self.run = Some(Arc::clone(run));
    }
}

fn invocation() -> Invocation {
    Invocation { command: vec![], busy_after: None, from_master: false }
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.as_slice()).into_owned()
}

/// The reply of `code`, without the place of an error, to a client that speaks `proto`.
fn eval_as(engine: &Engine, host: &mut Fake, code: &str, proto: u8) -> String {
    let mut reply = Reply::new(proto);
    let script = match engine.load(&Bytes::copy_from_slice(code.as_bytes()), Origin::Eval) {
        Ok(script) => script,
        Err(line) => return format!("-{line}\r\n"),
    };
    let (keys, args) = (["k1".into(), "k2".into()], ["a1".into()]);
    let ended = engine.eval(&script, &keys, &args, invocation(), host, &mut reply).unwrap();
    assert_eq!(ended.failed, reply.as_slice().starts_with(b"-"));
    text(&reply).replace(&format!(" script: {}, on @", script.sha()), " at ")
}

fn eval(code: &str) -> String {
    eval_as(&Engine::default(), &mut Fake::default(), code, 2)
}

#[test]
fn scripts_call_commands() {
    let code = "redis.call('set', KEYS[1], ARGV[1]) return {redis.call('GET', 'k1'), redis.call('get', 'none'), #KEYS}";
    assert_eq!(eval(code), "*3\r\n$2\r\na1\r\n$-1\r\n:2\r\n");
    assert_eq!(
        eval("return redis.call('echo')"),
        "-ERR Unknown Redis command called from script at user_script:1.\r\n"
    );
    assert_eq!(eval("return redis.pcall('echo')"), "-ERR Unknown Redis command called from script\r\n");
    assert_eq!(
        eval("\nlocal x = 1\nredis.call('get')"),
        "-ERR Wrong number of args calling Redis command from script at user_script:3.\r\n"
    );
    assert_eq!(eval("redis.call('set', 'n', 2^53) return redis.call('get', 'n')"), "$16\r\n9007199254740992\r\n");
    assert_eq!(
        eval("return redis.call()"),
        "-ERR Please specify at least one argument for this redis lib call at user_script:1.\r\n"
    );
    assert_eq!(
        eval("return redis.call('get', {})"),
        "-ERR Lua redis lib command arguments must be strings or integers at user_script:1.\r\n"
    );
}

#[test]
fn a_call_takes_as_many_arguments_as_lua_does() {
    for (count, fill) in [(7999, "1"), (7000, "'x'")] {
        let code =
            format!("local a = {{}} for i = 1, {count} do a[i] = {fill} end return redis.call('count', unpack(a))");
        assert_eq!(eval(&code), format!(":{}\r\n", count + 1));
        let failing = code.replace("'count'", "'nosuch'");
        assert_eq!(eval(&failing), "-ERR Unknown Redis command called from script at user_script:1.\r\n");
    }
    let code = "local a = {} for i = 1, 7999 do a[i] = 'x' end return redis.call('count', unpack(a))";
    assert_eq!(eval(code), "-ERR user_script:1: too many results to unpack at user_script:1.\r\n");
    // A short range far from 1 is not gone through number by number.
    let code = "return select('#', unpack({}, -2147483648, -2147483646))";
    assert_eq!(eval(code), ":3\r\n");
}

#[test]
fn a_call_with_more_arguments_ends_the_script_only() {
    let (engine, mut host) = (Engine::default(), Fake::default());
    let code = "local function call(n, ...) if n == 0 then return redis.call('count', ...) end return call(n - 1, 'x', ...) end \
                return call(9000)";
    let got = eval_as(&engine, &mut host, code, 2);
    assert!(got.starts_with("-ERR "), "{got}");
    assert_eq!(eval_as(&engine, &mut host, "return redis.call('count')", 2), ":1\r\n");
}

#[test]
fn replies_follow_both_protocols() {
    let engine = Engine::default();
    let run = |code: &str, proto| eval_as(&engine, &mut Fake::default(), code, proto);
    assert_eq!(run("return {true, false, 1.9, 'a'}", 3), "*4\r\n:1\r\n_\r\n:1\r\n$1\r\na\r\n");
    assert_eq!(run("redis.setresp(3) return {true, false}", 3), "*2\r\n#t\r\n#f\r\n");
    assert_eq!(run("redis.setresp(3) return redis.call('map')", 3), "%1\r\n$1\r\nk\r\n,1.5\r\n");
    assert_eq!(run("return redis.call('map')", 3), "*2\r\n$1\r\nk\r\n$3\r\n1.5\r\n");
    assert_eq!(run("redis.setresp(3) return redis.call('proto')", 2), ":3\r\n");
    assert_eq!(run("return redis.call('proto')", 3), ":2\r\n");
    assert_eq!(run("return {big_number='1\\r\\n2'}", 3), "(1  2\r\n");
    assert_eq!(run("return redis.status_reply('FINE')", 2), "+FINE\r\n");
    assert_eq!(run("return redis.error_reply('MY err')", 2), "-MY err\r\n");
    assert_eq!(run("return redis.error_reply('ALONE')", 2), "-ERR ALONE\r\n");
}

#[test]
fn errors_say_where() {
    for (code, line) in [
        ("error('x')", "-ERR user_script:1: x at user_script:1.\r\n"),
        ("error({err='MY x'})", "-MY x at user_script:1.\r\n"),
        ("error()", "-ERR nil at user_script:1.\r\n"),
        ("error({})", "-ERR (error object is a table value) at user_script:1.\r\n"),
        (
            "local t = nil\n t.x = 1",
            "-ERR user_script:2: attempt to index local 't' (a nil value) at user_script:2.\r\n",
        ),
        (
            "return cjson.decode('{')",
            "-ERR user_script:1: Expected object key string but found T_END at character 2 at user_script:1.\r\n",
        ),
        (
            "for k in pairs(nil) do end",
            "-ERR user_script:1: bad argument #1 to 'pairs' (table expected, got nil) at user_script:1.\r\n",
        ),
        ("error(redis.error_reply('X\\r\\n+INJECTED'))", "-ERR X  +INJECTED at user_script:1.\r\n"),
        ("x", "-ERR Error compiling script (new function): user_script:1: '=' expected near '<eof>'\r\n"),
    ] {
        assert_eq!(eval(code), line);
    }
}

#[test]
fn what_scripts_catch() {
    for (code, reply) in [
        (
            "return {pcall(redis.call, 'nosuch')}",
            "*2\r\n$-1\r\n$44\r\nERR Unknown Redis command called from script\r\n",
        ),
        (
            "local _, e = xpcall(function() redis.call('nosuch') end, function(e) return e end) return type(e)",
            "$5\r\ntable\r\n",
        ),
        ("local _, e = pcall(error, {err='MY'}) return e", "$2\r\nMY\r\n"),
        ("local _, e = pcall(error, {a=1}) return e.a", ":1\r\n"),
        (
            "local _, e = coroutine.resume(coroutine.create(function() redis.call('nosuch') end)) return e",
            "-ERR Unknown Redis command called from script\r\n",
        ),
        (
            "local _, e = pcall(cjson.encode, function() end) return e",
            "$51\r\nCannot serialise function: type not supported\r\n",
        ),
    ] {
        let got = eval(code);
        match reply.strip_prefix("$51\r\n") {
            Some(message) => assert!(got.ends_with(message), "{got}"),
            None => assert_eq!(got, reply),
        }
    }
}

#[test]
fn nothing_protected_can_be_changed() {
    for code in [
        "a = 10",
        "_G.a = 10",
        "_G = {}",
        "setmetatable(_G, {})",
        "getmetatable(_G).__index = {}",
        "getmetatable('').__index = {}",
        "rawset(_G, 'a', 1)",
        "rawset(redis, 'a', 1)",
        "redis = function() end",
        "redis.call = function() end",
        "cjson.encode = 1",
        "string.rep = nil",
        "coroutine.resume = nil",
        "math.random = nil",
        "os.clock = nil",
    ] {
        let got = eval(code);
        assert!(got.contains("Attempt to modify a readonly table"), "{code}: {got}");
    }
    for name in
        ["a", "loadfile", "dofile", "print", "require", "io", "debug", "package", "setfenv", "getfenv", "newproxy"]
    {
        let got = eval(&format!("return {name}"));
        let wanted = format!("Script attempted to access nonexistent global variable '{name}'");
        assert!(got.contains(&wanted), "{got}");
    }
    assert!(eval("return os.execute('true')").contains("attempt to call field 'execute' (a nil value)"));
    assert!(eval("return loadstring(string.dump(function() return 1 end))()").contains("attempt to call a nil value"));
    assert_eq!(eval("return loadstring('return KEYS[1]')()"), "$2\r\nk1\r\n");
    assert_eq!(eval("local n = 0 for k in pairs(bit) do n = n + 1 end return n"), ":12\r\n");
    assert_eq!(eval("return rawget(_G, 'redis') == redis and next(cjson) ~= nil"), ":1\r\n");
    assert_eq!(eval("return _G"), "*0\r\n");
}

#[test]
fn a_script_leaves_nothing_behind() {
    let (engine, mut host) = (Engine::default(), Fake::default());
    let mut run = |code| eval_as(&engine, &mut host, code, 2);
    run("table.insert(_G, 1) table.insert(redis, 1) cjson.encode_max_depth(1) redis.setresp(3) collectgarbage('stop')");
    assert_eq!(run("return {#_G, #redis, cjson.encode_max_depth()}"), "*3\r\n:0\r\n:0\r\n:1000\r\n");
    assert_eq!(run("return redis.call('proto')"), ":2\r\n");
    assert_ne!(run("return math.random(2^30)"), run("return math.random(2^30)"));
    let seeded = "math.randomseed(10) return {tostring(math.random()), math.random(100), math.random(5, 10)}";
    assert_eq!(run(seeded), "*3\r\n$16\r\n0.87885112309775\r\n:80\r\n:7\r\n");
    assert_eq!(run(seeded), run(seeded));
}

#[test]
fn the_host_hears_of_logs_and_replication() {
    let (engine, mut host) = (Engine::default(), Fake::default());
    let mut run = |code| eval_as(&engine, &mut host, code, 2);
    assert_eq!(run("redis.log(redis.LOG_WARNING, 'a', 1, {}, 'b') redis.set_repl(redis.REPL_AOF)"), "$-1\r\n");
    assert!(run("redis.set_repl(9)").contains("Invalid replication flags"));
    assert_eq!(run("return {redis.acl_check_cmd('get', 'x'), redis.acl_check_cmd('set')}"), "*2\r\n:1\r\n$-1\r\n");
    assert!(run("redis.acl_check_cmd('nosuch')").contains("Invalid command passed to redis.acl_check_cmd()"));
    assert_eq!(host.log, [(LogLevel::Warning, "a 1 b".into()), (LogLevel::Debug, "repl true false".into())]);
}

#[test]
fn an_abort_cannot_be_caught() {
    let engine = Engine::default();
    for code in [
        "redis.call('abort')",
        "pcall(redis.call, 'abort') redis.call('get', 'x')",
        "xpcall(function() redis.pcall('abort') end, function(e) return e end) redis.call('get', 'x')",
        "coroutine.resume(coroutine.create(function() redis.call('abort') end)) redis.call('get', 'x')",
        "while true do pcall(redis.call, 'abort') end",
    ] {
        let mut host = Fake::default();
        let script = engine.load(&Bytes::from(code), Origin::Eval).unwrap();
        let mut reply = Reply::new(2);
        assert_eq!(engine.eval(&script, &[], &[], invocation(), &mut host, &mut reply), Err(Abort), "{code}");
        assert!(reply.is_empty());
        assert_eq!(host.calls, 1);
        assert_eq!(eval_as(&engine, &mut host, "return 1", 2), ":1\r\n");
    }
}

/// Runs `code` on another thread and, when it has become slow, asks for its end until that works.
fn killed(code: &'static str) -> (Result<(), &'static str>, String) {
    let engine = Arc::new(Engine::default());
    let runner = Arc::clone(&engine);
    let thread = thread::spawn(move || {
        let script = runner.load(&Bytes::from_static(code.as_bytes()), Origin::Eval).unwrap();
        let invocation = Invocation { busy_after: Some(Duration::from_millis(5)), ..invocation() };
        let mut reply = Reply::new(2);
        runner.eval(&script, &[], &[], invocation, &mut Fake::default(), &mut reply).unwrap();
        text(&reply)
    });
    while engine.busy().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(engine.busy(), Some(ScriptKind::Eval));
    assert!(engine.running(ScriptKind::Eval).unwrap().duration() >= Duration::from_millis(5));
    assert_eq!(engine.kill(ScriptKind::Function), Err(ScriptKind::Eval.busy_error()));
    let killed = engine.kill(ScriptKind::Eval);
    if killed.is_err() {
        return (killed, String::new());
    }
    let reply = thread.join().unwrap();
    assert_eq!(engine.busy(), None);
    assert!(engine.kill(ScriptKind::Eval).unwrap_err().starts_with("NOTBUSY"));
    (killed, reply)
}

#[test]
fn a_slow_script_can_be_killed() {
    for code in [
        "while true do end",
        "local f = function() while 1 do redis.call('get', 'x') end end while 1 do pcall(f) end",
        "while 1 do coroutine.resume(coroutine.create(function() while 1 do end end)) end",
        "while 1 do xpcall(function() while 1 do end end, function() while 1 do end end) end",
    ] {
        let (killed, reply) = killed(code);
        assert_eq!(killed, Ok(()));
        assert!(reply.starts_with("-ERR Script killed by user with SCRIPT KILL... script: "), "{reply}");
        assert!(reply.ends_with(", on @user_script:1.\r\n"), "{reply}");
    }
}

#[test]
fn memory_is_bounded() {
    let (engine, mut host) = (Engine::new(8 << 20), Fake::default());
    for code in [
        "local s = string.rep('x', 1024 * 1024) local t = {} while true do t[#t + 1] = s .. #t end",
        "local t = {} while true do t = {t} end",
        "return string.rep('x', 1024 * 1024 * 1024)",
        "return cjson.decode('[' .. string.rep('1,', 4000000) .. '1]')",
    ] {
        let got = eval_as(&engine, &mut host, code, 2);
        assert!(got.starts_with("-ERR ") && got.contains("not enough memory"), "{got}");
    }
    assert_eq!(eval_as(&engine, &mut host, "return 1", 2), ":1\r\n");
}

#[test]
fn deep_values_are_refused() {
    let deep = || {
        let json = "local t = {} for i = 1, 1000 do t = {t} end return cjson.encode(t)";
        assert!(eval(json).contains("Cannot serialise, excessive nesting (1001)"));
        assert!(eval("return cjson.decode(string.rep('[', 1001))").contains("too many nested data structures (1001)"));
        assert_eq!(
            eval("return #cjson.encode(cjson.decode(string.rep('[', 999) .. string.rep(']', 999)))"),
            ":1998\r\n"
        );
        assert!(eval("local a = {}; a[1] = {a}; return a").ends_with("*1\r\n-ERR reached lua stack limit\r\n"));
        assert!(eval("return cmsgpack.unpack(string.rep('\\145', 5000))").contains("too many nested values"));
        assert!(eval("local function f() return f() + 1 end return f()").contains("stack overflow"));
        assert!(eval("local function f(s) return (s:gsub('.', f)) end return f('a')").contains("stack overflow"));
    };
    thread::Builder::new().stack_size(32 << 20).spawn(deep).unwrap().join().unwrap();
}

#[test]
fn the_cache_of_scripts() {
    let engine = Engine::default();
    let script = engine.load(&"return 1".into(), Origin::Load).unwrap();
    assert_eq!(script.sha(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    assert!(engine.script(b"E0E1F9FABFC9D4800C877A703B823AC0578FF8DB").is_some());
    assert!(engine.script(b"nonsense").is_none());
    for number in 0..600 {
        engine.load(&format!("return {number} ").into(), Origin::Eval).unwrap();
    }
    assert_eq!(engine.cached_scripts().0, 501);
    assert!(engine.script(script.sha().as_bytes()).is_some());
    engine.flush_scripts();
    assert_eq!(engine.cached_scripts(), (0, 0));
    assert_eq!(
        engine.load(&"#!lua flags=what\n".into(), Origin::Load).unwrap_err(),
        "ERR Unexpected flag in script shebang: what"
    );
    let script = engine.load(&"#!lua flags=no-writes\nerror('x')".into(), Origin::Load).unwrap();
    assert!(script.flags().has(ScriptFlags::NO_WRITES));
}

#[test]
fn scripts_run_in_parallel() {
    let engine = Engine::default();
    thread::scope(|scope| {
        for number in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                for _ in 0..200 {
                    let code = format!("local t = {{}} for i = 1, 50 do t[i] = {number} end return #t + t[50]");
                    assert_eq!(eval_as(engine, &mut Fake::default(), &code, 2), format!(":{}\r\n", 50 + number));
                }
            });
        }
    });
}

#[test]
fn the_deprecated_api_is_there_when_asked_for() {
    let engine = Engine::default();
    engine.set_deprecated_api(true);
    let run = |code| eval_as(&engine, &mut Fake::default(), code, 2);
    assert_eq!(run("local f = function() return x end setfenv(f, {x = 5}) return f()"), ":5\r\n");
    assert_eq!(run("setfenv(1, {y = 6}) return y"), ":6\r\n");
    assert_eq!(run("getmetatable(newproxy(true)).__gc = function() end return getfenv() == _G"), ":1\r\n");
    assert!(run("setfenv(0, {})").contains("Attempt to modify a readonly table"));
    assert!(run("getfenv(pcall).x = 1 return x").contains("nonexistent global variable 'x'"));
}

fn load(libraries: &mut Libraries, engine: &Engine, code: &str, replace: bool) -> Result<String, String> {
    libraries.load(engine, &Bytes::copy_from_slice(code.as_bytes()), replace, Some(Duration::from_millis(50)))
}

fn call(libraries: &Libraries, engine: &Engine, name: &str) -> String {
    let Some((library, function)) = libraries.function(name.as_bytes()) else { return "none".into() };
    let mut reply = Reply::new(2);
    let (keys, args) = (["k".into()], ["a".into()]);
    engine.call(library, &function.name, &keys, &args, invocation(), &mut Fake::default(), &mut reply).unwrap();
    text(&reply)
}

#[test]
fn libraries_are_loaded_and_called() {
    let (engine, mut libraries) = (Engine::default(), Libraries::default());
    let code = "#!lua name=lib\n\
        local function twice(x) return x .. x end\n\
        redis.register_function('f1', function(keys, args) return twice(keys[1] .. args[1]) end)\n\
        redis.register_function{function_name='f2', callback=function() return redis.call('nosuch') end,\n\
            description='says no', flags={'no-writes', 'Allow-Stale'}}";
    assert_eq!(load(&mut libraries, &engine, code, false), Ok("lib".into()));
    assert_eq!(libraries.counts(), (1, 2));
    assert_eq!(call(&libraries, &engine, "F1"), "$4\r\nkaka\r\n");
    assert_eq!(
        call(&libraries, &engine, "f2"),
        "-ERR Unknown Redis command called from script script: f2, on @user_function:4.\r\n"
    );
    let (library, function) = libraries.function(b"f2").unwrap();
    assert_eq!(library.name(), "lib");
    assert_eq!(function.description.as_deref(), Some(&b"says no"[..]));
    assert_eq!(function.flags, ScriptFlags::NO_WRITES.and(ScriptFlags::ALLOW_STALE));
    assert_eq!(load(&mut libraries, &engine, code, false), Err("Library 'lib' already exists".into()));
    let other = code.replace("name=lib", "name=other");
    assert_eq!(load(&mut libraries, &engine, &other, true), Err("Function f1 already exists".into()));
    let replaced = "#!lua name=lib\nredis.register_function('F1', function() return 7 end)";
    assert_eq!(load(&mut libraries, &engine, replaced, true), Ok("lib".into()));
    assert_eq!((call(&libraries, &engine, "f1"), call(&libraries, &engine, "f2")), (":7\r\n".into(), "none".into()));
    assert_eq!(libraries.delete(b"lib"), Ok(()));
    assert_eq!(libraries.delete(b"lib"), Err("Library not found".into()));
    assert_eq!(libraries.counts(), (0, 0));
}

#[test]
fn libraries_that_do_not_load() {
    let (engine, mut libraries) = (Engine::default(), Libraries::default());
    let registering = "Error registering functions: ERR ";
    for (code, error) in [
        ("return 1", "Missing library metadata".to_owned()),
        ("#!lua name=a", "Invalid library metadata".into()),
        ("#!lua\n", "Library name was not given".into()),
        ("#!lua name=a name=b\n", "Invalid metadata value, name argument was given multiple times".into()),
        ("#!lua name=a foo=bar\n", "Invalid metadata value given: foo=bar".into()),
        ("#! name=a\n", "Engine '' not found".into()),
        ("#!js name=a\n", "Engine 'js' not found".into()),
        ("#!lua name=a\n", "No functions registered".into()),
        ("#!lua name=a\nx", "Error compiling function: user_function:2: '=' expected near '<eof>'".into()),
        (
            "#!lua name=a\nfoo()",
            format!("{registering}user_function:2: Script attempted to access nonexistent global variable 'foo'"),
        ),
        (
            "#!lua name=a\nredis.call()",
            format!("{registering}user_function:2: Script attempted to access nonexistent global variable 'call'"),
        ),
        ("#!lua name=a\na = 1", format!("{registering}user_function:2: Attempt to modify a readonly table")),
        ("#!lua name=a\nwhile 1 do end", format!("{registering}FUNCTION LOAD timeout")),
        (
            "#!lua name=a\nredis.register_function()",
            format!("{registering}wrong number of arguments to redis.register_function"),
        ),
        (
            "#!lua name=a\nredis.register_function(nil, function() end)",
            format!("{registering}first argument to redis.register_function must be a string"),
        ),
        (
            "#!lua name=a\nredis.register_function('f', 1)",
            format!("{registering}second argument to redis.register_function must be a function"),
        ),
        (
            "#!lua name=a\nredis.register_function{callback=function() end}",
            format!("{registering}redis.register_function must get a function name argument"),
        ),
        (
            "#!lua name=a\nredis.register_function{function_name='f'}",
            format!("{registering}redis.register_function must get a callback argument"),
        ),
        (
            "#!lua name=a\nredis.register_function{x=1}",
            format!("{registering}unknown argument given to redis.register_function"),
        ),
        ("#!lua name=a\nredis.register_function{flags={'x'}}", format!("{registering}unknown flag given")),
    ] {
        assert_eq!(load(&mut libraries, &engine, code, false), Err(error), "{code}");
    }
    let rule =
        "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";
    assert_eq!(load(&mut libraries, &engine, "#!lua name=a-b\n", false), Err(rule.into()));
    let twice = "#!lua name=a\nfor i = 1, 2 do redis.register_function('f', function() end) end";
    let error = format!("{registering}Function already exists in the library");
    assert_eq!(load(&mut libraries, &engine, twice, false), Err(error));
    assert_eq!(libraries.counts(), (0, 0));
    let quoted = "#!lua name=\"foo\"\nredis.register_function('f', function() return redis.register_function end)";
    assert_eq!(load(&mut libraries, &engine, quoted, false), Ok("foo".into()));
    assert_eq!(call(&libraries, &engine, "f"), "$-1\r\n");
}

#[test]
fn the_loading_api_ends_with_the_load() {
    let (engine, mut libraries) = (Engine::default(), Libraries::default());
    let code = "#!lua name=lib\n\
        local lib = redis\n\
        lib.register_function('f1', function() lib.redis = redis end)\n\
        lib.register_function('f2', function() lib.register_function('f3', function() end) end)\n\
        lib.register_function('f3', function() mt = getmetatable(_G) end)";
    load(&mut libraries, &engine, code, false).unwrap();
    assert!(call(&libraries, &engine, "f1").contains("Attempt to modify a readonly table"));
    assert!(call(&libraries, &engine, "f2").contains("can only be called on FUNCTION LOAD command"));
    assert!(call(&libraries, &engine, "f3").contains("Attempt to modify a readonly table"));
}

#[test]
fn libraries_that_go_leave_the_others_as_they_are() {
    let (engine, mut libraries) = (Engine::default(), Libraries::default());
    let library =
        |name: &str| format!("#!lua name={name}\nredis.register_function('{name}', function() return '{name}' end)");
    for name in ["a", "b", "c", "d"] {
        load(&mut libraries, &engine, &library(name), false).unwrap();
    }
    libraries.delete(b"a").unwrap();
    libraries.delete(b"c").unwrap();
    load(&mut libraries, &engine, &library("e"), false).unwrap();
    for name in ["b", "d", "e"] {
        assert_eq!(call(&libraries, &engine, name), format!("$1\r\n{name}\r\n"));
    }
}

#[test]
fn dumps_are_restored() {
    let (engine, mut libraries) = (Engine::default(), Libraries::default());
    let library = |lib: &str, f: &str| {
        format!(
            "#!lua name={lib}\nredis.register_function('{f}', function() return '{lib} {f}' end)--{}",
            "-".repeat(90)
        )
    };
    load(&mut libraries, &engine, &library("lib1", "f1"), false).unwrap();
    load(&mut libraries, &engine, &library("lib2", "f2"), false).unwrap();
    let dump = libraries.dump();
    assert_eq!(dump[0], 245);
    assert_eq!(libraries.restore(&engine, &dump, RestorePolicy::Append), Err("Library lib1 already exists".into()));
    assert_eq!(libraries.restore(&engine, &dump, RestorePolicy::Replace), Ok(()));
    assert_eq!(libraries.counts(), (2, 2));
    let mut others = Libraries::default();
    load(&mut others, &engine, &library("lib3", "f1"), false).unwrap();
    assert_eq!(others.restore(&engine, &dump, RestorePolicy::Replace), Err("Function f1 already exists".into()));
    assert_eq!(others.counts(), (1, 1));
    assert_eq!(others.restore(&engine, &dump, RestorePolicy::Flush), Ok(()));
    assert_eq!(others.dump(), dump);
    assert_eq!(call(&others, &engine, "f2"), "$7\r\nlib2 f2\r\n");
    let wrong = Err("DUMP payload version or checksum are wrong".to_owned());
    for at in 0..dump.len() {
        let mut broken = dump.clone();
        broken[at] ^= 1;
        assert_eq!(others.restore(&engine, &broken, RestorePolicy::Flush), wrong);
        assert_eq!(others.restore(&engine, &dump[..at], RestorePolicy::Flush), wrong);
    }
    assert_eq!(others.counts(), (2, 2));
}

#[test]
fn json_travels_both_ways() {
    for (code, text) in [
        ("cjson.encode({1, 'a', true, cjson.null, {}, {a = 1.5}})", r#"[1,"a",true,null,{},{"a":1.5}]"#),
        ("cjson.encode({[1] = 1, [3] = 3})", "[1,null,3]"),
        ("cjson.encode('\\0\\31\\127/\\\\\"')", r#""\u0000\u001f\u007f\/\\\"""#),
        ("cjson.decode('\"\\\\u00e9\\\\ud83d\\\\ude00\"')", "é😀"),
        ("cjson.encode(cjson.decode(' { \"a\" : [ 1e3 , -0.5 , null ] } '))", r#"{"a":[1000,-0.5,null]}"#),
        ("cjson.encode({0.1, 1/3, 1e14, 1e100})", "[0.1,0.33333333333333,1e+14,1e+100]"),
    ] {
        assert_eq!(eval(&format!("return {code}")), format!("${}\r\n{text}\r\n", text.len()), "{code}");
    }
    assert!(eval("return cjson.encode({[1000] = 1})").contains("Cannot serialise table: excessively sparse array"));
    assert!(eval("return cjson.encode({0/0})").contains("Cannot serialise number: must not be NaN or Inf"));
}

#[test]
fn message_pack_and_struct() {
    let hex = "local h = '' for i = 1, #s do h = h .. string.format('%02x', s:byte(i)) end return h";
    for (code, text) in [
        ("cmsgpack.pack(0.1)", "cb3fb999999999999a"),
        ("cmsgpack.pack(-1099511627776)", "d3ffffff0000000000"),
        ("cmsgpack.pack({1, 'a', {x = true}}, 200, -33)", "9301a16181a178c3ccc8d0df"),
        ("struct.pack('>I2i3b', 258, -2, -1)", "0102fffffeff"),
        ("struct.pack('!4bi', 1, 2)", "0100000002000000"),
    ] {
        let got = eval(&format!("local s = {code} {hex}"));
        assert_eq!(got, format!("${}\r\n{text}\r\n", text.len()), "{code}");
    }
    assert_eq!(eval("return {cmsgpack.unpack(cmsgpack.pack(1, 'a', {2}))}"), "*3\r\n:1\r\n$1\r\na\r\n*1\r\n:2\r\n");
    assert_eq!(eval("return {cmsgpack.unpack_limit(cmsgpack.pack(1, 2, 3), 2)}"), "*3\r\n:2\r\n:1\r\n:2\r\n");
    assert_eq!(
        eval("return {struct.unpack('<hc3s', struct.pack('<hc3s', -5, 'abc', 'z'))}"),
        "*4\r\n:-5\r\n$3\r\nabc\r\n$1\r\nz\r\n:8\r\n"
    );
    assert!(eval("return cmsgpack.unpack('\\193')").contains("Bad data format in input."));
    assert_eq!(eval("return bit.tohex(65535, -2147483648)"), "$8\r\n0000FFFF\r\n");
}
