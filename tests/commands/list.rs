//! List commands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::common::{Conn, Node, rng};
use crate::duel::Duel;

#[test]
fn ends_and_indexes() {
    Duel::start().script(
        r#"
        LPUSH l a b c
        RPUSH l d e
        LRANGE l 0 -1
        LLEN l
        TYPE l
        OBJECT ENCODING l
        LPUSHX l x
        RPUSHX l y z
        LPUSHX none x
        RPUSHX none x
        EXISTS none
        LINDEX l 0
        LINDEX l -1
        LINDEX l 7
        LINDEX l 8
        LINDEX l -8
        LINDEX l -9
        LINDEX l x
        LINDEX none x
        LINDEX none 0
        LSET l 0 first
        LSET l -1 last
        LSET l 99 v
        LSET l -99 v
        LSET l x v
        LSET none x v
        LRANGE l 1 2
        LRANGE l -2 -1
        LRANGE l -100 100
        LRANGE l 3 2
        LRANGE l 100 200
        LRANGE l x 0
        LRANGE l 0 x
        LRANGE none 0 -1
        LRANGE none x y
        LRANGE l 9223372036854775807 -9223372036854775808
        LRANGE l -9223372036854775808 9223372036854775807
        LPOP l
        RPOP l
        LPOP l 2
        RPOP l 2
        LPOP l 0
        RPOP l 0
        LPOP l -1
        LPOP l x
        LPOP l 1 2
        LPOP none
        RPOP none
        LPOP none 0
        LPOP none 3
        RPOP none 3
        LPOP none x
        LRANGE l 0 -1
        LPOP l 100
        EXISTS l
        LPUSH l
        LPUSH
        RPOP
        SET s v
        LPUSH s a
        RPUSHX s a
        LPOP s
        LPOP s 0
        LLEN s
        LRANGE s 0 -1
        LINDEX s 0
        LSET s 0 v
        LTRIM s 0 -1
        RPUSH t a b
        EXPIRE t 1000
        LPUSH t c
        LPOP t
        ~TTL t
        LPOP t 2
        RPUSH t a
        TTL t
        RPUSH "" "" "\x00\xff"
        LRANGE "" 0 -1
        "#,
    );
}

#[test]
fn trimming_inserting_removing() {
    Duel::start().script(
        r#"
        RPUSH l a b c d e f a b c
        LTRIM l 1 -2
        LRANGE l 0 -1
        LTRIM l -100 100
        LTRIM l 2 3
        LRANGE l 0 -1
        LTRIM l 5 9
        EXISTS l
        LTRIM none 0 1
        LTRIM none x 1
        LTRIM l 0
        RPUSH l a b c
        LTRIM l 2 1
        EXISTS l
        RPUSH l a b c a b c
        LINSERT l BEFORE a 1
        LINSERT l after a 2
        LINSERT l AFTER c 3
        LINSERT l BEFORE zz 4
        LINSERT none BEFORE a 4
        LINSERT l beside a 4
        LINSERT none beside a 4
        LRANGE l 0 -1
        LREM l 1 a
        LREM l -1 b
        LREM l 0 c
        LREM l 5 zz
        LREM l x a
        LREM none 0 a
        LREM none x a
        LRANGE l 0 -1
        LREM l -9223372036854775808 a
        LREM l 9223372036854775807 b
        LRANGE l 0 -1
        RPUSH l2 x x x
        LREM l2 0 x
        EXISTS l2
        SET s v
        LREM s 0 a
        LINSERT s BEFORE a b
        "#,
    );
}

#[test]
fn positions() {
    Duel::start().script(
        r#"
        RPUSH l a b c 1 2 3 c c
        LPOS l a
        LPOS l c
        LPOS l c RANK 1
        LPOS l c RANK 2
        LPOS l c RANK 4
        LPOS l c RANK -1
        LPOS l c RANK -4
        LPOS l c COUNT 0
        LPOS l c COUNT 1
        LPOS l c COUNT 2
        LPOS l c COUNT 100
        LPOS l c COUNT 0 RANK 2
        LPOS l c COUNT 2 RANK -1
        LPOS l c count 0 rank -2 maxlen 3
        LPOS l c MAXLEN 2
        LPOS l c MAXLEN 3
        LPOS l c COUNT 0 MAXLEN 0
        LPOS l c RANK -1 MAXLEN 1
        LPOS l zz
        LPOS l zz COUNT 2
        LPOS none a
        LPOS none a COUNT 1
        LPOS l a RANK 0
        LPOS l a RANK x
        LPOS l a COUNT -1
        LPOS l a COUNT x
        LPOS l a MAXLEN -1
        LPOS l a RANK
        LPOS l a COUNT x RANK
        LPOS l a RANK 1 COUNT
        LPOS l a what 1
        LPOS l a RANK 1 RANK 2
        LPOS none a RANK 0
        LPOS l
        SET s v
        LPOS s a
        "#,
    );
}

#[test]
fn moves() {
    Duel::start().script(
        r#"
        RPUSH a 1 2 3 4
        LMOVE a b LEFT RIGHT
        LMOVE a b RIGHT LEFT
        LMOVE a b left left
        LMOVE a b right right
        EXISTS a
        LRANGE b 0 -1
        LMOVE b b LEFT RIGHT
        LMOVE b b RIGHT LEFT
        LMOVE b b LEFT LEFT
        LMOVE b b RIGHT RIGHT
        LRANGE b 0 -1
        RPOPLPUSH b b
        RPOPLPUSH b c
        LRANGE b 0 -1
        LRANGE c 0 -1
        EXPIRE c 1000
        LMOVE c c LEFT RIGHT
        RPOPLPUSH c c
        ~TTL c
        LMOVE none c LEFT RIGHT
        LMOVE c d up RIGHT
        LMOVE c d LEFT down
        LMOVE c d LEFT
        SET s v
        LMOVE s c LEFT RIGHT
        LMOVE c s LEFT RIGHT
        LMOVE none s LEFT RIGHT
        RPOPLPUSH c s
        LRANGE c 0 -1
        LMPOP 1 b LEFT
        LMPOP 2 none b RIGHT COUNT 2
        LMPOP 2 none b RIGHT COUNT 200
        LMPOP 2 none b LEFT
        LMPOP 1 c LEFT COUNT 1 COUNT 2
        LMPOP 0 c LEFT
        LMPOP x c LEFT
        LMPOP -1 c LEFT
        LMPOP 2 c LEFT
        LMPOP 3 c LEFT
        LMPOP 9223372036854775807 c LEFT
        LMPOP 1 c up
        LMPOP 1 c LEFT COUNT 0
        LMPOP 1 c LEFT COUNT x
        LMPOP 1 c LEFT COUNT
        LMPOP 1 c LEFT what 3
        LMPOP 2 s c LEFT
        LMPOP 2 c s LEFT
        LMPOP 1 c
        "#,
    );
}

#[test]
fn forms_that_wait_when_they_need_not() {
    Duel::start().script(
        r#"
        RPUSH a 1 2 3 4 5 6 7 8 9
        BLPOP a 0
        BRPOP none a 0
        BLPOP a a 0.5
        BLMPOP 0 2 none a LEFT COUNT 2
        BLMPOP 1.5 1 a RIGHT
        BLMOVE a b LEFT RIGHT 0
        BRPOPLPUSH a b 0
        BRPOPLPUSH b b 0
        BLPOP a x
        BLPOP a -1
        BLPOP a nan
        BLPOP a ""
        BRPOP a -0.5
        BLMPOP -1 1 a LEFT
        BLMPOP x 1 a LEFT
        BLMPOP 0 0 a LEFT
        BLMPOP x 0 a LEFT
        BLMPOP 0 1 a LEFT COUNT 0
        BLMPOP 0 3 a LEFT
        BLMPOP 0 1 a up
        BLMOVE a b up RIGHT x
        BLMOVE a b LEFT RIGHT x
        BRPOPLPUSH a b x
        BLPOP a
        SET s v
        BLPOP s 0
        BLPOP none s 0
        BLMOVE s a LEFT LEFT 0
        BLMOVE a s LEFT LEFT 0
        BLMPOP 0 2 none s LEFT
        BLPOP none 0.01
        BLMPOP 0.01 2 none none2 LEFT
        BLMOVE none s LEFT LEFT 0.01
        BRPOPLPUSH none b 0.001
        MULTI
        BLPOP none 0
        BRPOP none 0
        BLMOVE none a LEFT LEFT 0
        BRPOPLPUSH none a 0
        BLMPOP 0 1 none LEFT
        BLPOP a 0
        BLMOVE a none LEFT LEFT 0
        EXEC
        LRANGE a 0 -1
        LRANGE none 0 -1
        CLIENT UNBLOCK 999999
        CLIENT UNBLOCK -1
        CLIENT UNBLOCK x
        CLIENT UNBLOCK 1 what
        CLIENT UNBLOCK 1 timeout more
        "#,
    );
}

const KEYS: [&str; 4] = ["l", "{a}l", "{b}l", "other"];
const COMMANDS: usize = 6_000;
const ROUND: usize = 1_000;

fn command(rng: &mut StdRng) -> Vec<Vec<u8>> {
    const TEMPLATES: &[&str] = &[
        "LPUSH K V V V",
        "RPUSH K V V",
        "RPUSH K V V V V V V V V",
        "LPUSHX K V",
        "RPUSHX K V",
        "LPOP K",
        "RPOP K",
        "LPOP K C",
        "RPOP K C",
        "LLEN K",
        "LINDEX K I",
        "LSET K I V",
        "LINSERT K BEFORE V V",
        "LINSERT K AFTER V V",
        "LRANGE K I I",
        "LTRIM K I I",
        "LTRIM K 0 40",
        "LREM K I V",
        "LREM K 0 V",
        "LPOS K V",
        "LPOS K V RANK I COUNT C MAXLEN C",
        "LMOVE K K LEFT RIGHT",
        "LMOVE K K RIGHT RIGHT",
        "LMOVE K K LEFT LEFT",
        "RPOPLPUSH K K",
        "LMPOP 2 K K LEFT COUNT C",
        "LMPOP 1 K RIGHT",
        "BLPOP K K 0.001",
        "BRPOP K 0.001",
        "BLMOVE K K RIGHT LEFT 0.001",
        "BRPOPLPUSH K K 0.001",
        "BLMPOP 0.001 2 K K RIGHT COUNT C",
        "SET K V",
        "DEL K",
        "DEL K",
    ];
    let word = |word: &str, rng: &mut StdRng| match word {
        "K" => KEYS.choose(rng).expect("a key").to_string(),
        "V" => ["a", "b", "c", "", "12", "-3", "a longer one than that"].choose(rng).expect("a value").to_string(),
        "C" => rng.random_range(0..6).to_string(),
        "I" => rng.random_range(-12..12).to_string(),
        word => word.to_string(),
    };
    let mut template = TEMPLATES.choose(rng).expect("a template");
    // Each that waits in vain takes a redis-server up to a tenth of a second.
    if template.starts_with('B') && rng.random_range(0..10) > 0 {
        template = &"RPUSH K V";
    }
    template.split(' ').map(|part| word(part, rng).into_bytes()).collect()
}

#[test]
fn a_random_stream() {
    let mut duel = Duel::start();
    let mut rng = rng();
    for round in 1..=COMMANDS / ROUND {
        duel.stream((0..ROUND).map(|_| command(&mut rng)).collect());
        let all = |key: &str| ["LRANGE", key, "0", "-1"].map(|word| word.as_bytes().to_vec()).to_vec();
        duel.stream(KEYS.map(all).to_vec());
        if round == COMMANDS / ROUND / 2 {
            duel.crash();
            duel.stream(KEYS.map(all).to_vec());
        }
    }
}

/// Long enough for the blocking pool, and for more than one change to make it.
#[test]
fn long_lists() {
    let mut duel = Duel::start();
    let word = |word: &str| word.as_bytes().to_vec();
    let mut push = vec![word("RPUSH"), word("l")];
    push.extend((0..10_000).map(|n| (n % 1000).to_string().into_bytes()));
    duel.stream(vec![push]);
    let lines = [
        "LLEN l",
        "LPOS l 999 COUNT 0",
        "LPOS l 7 RANK -3",
        "LINSERT l BEFORE 5 x",
        "LINSERT l AFTER 999 y",
        "LREM l 0 500",
        "LREM l -3 501",
        "LRANGE l 0 -1",
        "LPOP l 4500",
        "RPOP l 100",
        "LTRIM l 10 5000",
        "LRANGE l 0 -1",
        "LTRIM l 1 0",
        "EXISTS l",
    ];
    duel.compare(&crate::duel::lines(&lines), 1);
}

/// A list of which a part is in memory as it was written, a part is in files only, and some elements are too long to be kept: however much
/// of it is asked for, it reads as one.
#[test]
fn a_list_is_whole_wherever_its_parts_are() {
    let (node, mut rng) = (Node::start(), rng());
    let mut conn = node.conn();
    let mut model: VecDeque<String> = VecDeque::new();
    let mut made = 0;
    let mut element = |rng: &mut StdRng| {
        let long = match rng.random_range(0..40) {
            0 => 20_000,
            1 => 1500,
            _ => 0,
        };
        next_element(&mut made, long)
    };
    for step in 0..6 {
        for _ in 0..rng.random_range(40..250) {
            let (left, new) = (rng.random(), element(&mut rng));
            push(&mut conn, &mut model, left, new);
        }
        for _ in 0..rng.random_range(0..5) {
            let (at, new) = (rng.random_range(0..model.len()), element(&mut rng));
            conn.call(&["LSET", "l", &at.to_string(), &new]).expect_ok();
            model[at] = new;
        }
        for _ in 0..rng.random_range(0..3) {
            assert_eq!(conn.run("RPOP l").text(), model.pop_back().expect("an element"));
        }
        let in_transaction = step % 2 == 0;
        if in_transaction {
            conn.run("MULTI").expect_ok();
            conn.run("LPUSH l uncommitted");
            conn.run("LSET l 1 changed");
            conn.run("LRANGE l 0 -1");
            let reply = conn.run("EXEC");
            let replies = reply.items();
            model[0] = "changed".to_string();
            model.push_front("uncommitted".to_string());
            assert_eq!(replies[2].texts(), Vec::from(model.clone()));
        }
        for _ in 0..60 {
            // What was read before a change must not be seen after it.
            let at = rng.random_range(0..model.len());
            match rng.random_range(0..10) {
                0 => {
                    let new = element(&mut rng);
                    conn.call(&["LSET", "l", &at.to_string(), &new]).expect_ok();
                    model[at] = new;
                }
                1 => {
                    let new = element(&mut rng);
                    conn.call(&["LINSERT", "l", "BEFORE", &model[at], &new]).int();
                    model.insert(at, new);
                }
                2 => {
                    conn.call(&["LREM", "l", "1", &model[at]]).int();
                    model.remove(at);
                }
                3 => {
                    assert_eq!(conn.run("LPOP l").text(), model.pop_front().expect("an element"));
                    let new = element(&mut rng);
                    conn.call(&["LPUSH", "l", &new]).int();
                    model.push_front(new);
                }
                4 => {
                    conn.run("LTRIM l 1 -2").expect_ok();
                    model.pop_front();
                    model.pop_back();
                }
                _ => {}
            }
            let first = rng.random_range(0..model.len());
            let last = rng.random_range(first..model.len().min(first + 200));
            let found = conn.run(&format!("LRANGE l {first} {last}")).texts();
            assert_eq!(found, model.range(first..=last).cloned().collect::<Vec<_>>(), "{first} to {last}");
        }
        assert_eq!(conn.run("LRANGE l 0 -1").texts(), Vec::from(model.clone()));
        let at = rng.random_range(0..model.len());
        let last = model.iter().rposition(|element| *element == model[at]).expect("it is there");
        assert_eq!(conn.call(&["LPOS", "l", &model[at], "RANK", "-1"]).int(), last as i64);
        // To files, and on some of these also out of memory.
        conn.run(if rng.random() { "SAVE" } else { "DEBUG RELOAD" }).expect_ok();
    }
}

/// Elements that are taken from the ends of a list one by one are read from files many at a time. Whatever is put there meanwhile, and whoever
/// looks, nobody finds what has left.
#[test]
fn who_takes_from_the_ends_of_a_list_gets_what_stands_there() {
    let (node, mut rng) = (Node::start(), rng());
    let mut conn = node.conn();
    let mut model: VecDeque<String> = VecDeque::new();
    let mut made = 0;
    let mut element = |rng: &mut StdRng| {
        // Some fill a run by themselves, or are too long for one.
        let long = [0, 0, 0, 0, 0, 0, 0, 0, 0, 200, 1500, 9000, 20_000][rng.random_range(0..13)];
        next_element(&mut made, long)
    };
    for round in 0..12 {
        for _ in 0..rng.random_range(150..400) {
            let (left, new) = (rng.random(), element(&mut rng));
            push(&mut conn, &mut model, left, new);
        }
        // Out of memory, into files.
        conn.run(if round % 4 == 3 { "SAVE" } else { "DEBUG RELOAD" }).expect_ok();
        while model.len() > 5 {
            // Mostly from one end, so that runs are used up.
            let left = rng.random_range(0..10) < round;
            let (pop, pushed) = if left { ("LPOP", "LPUSH") } else { ("RPOP", "RPUSH") };
            let take = |model: &mut VecDeque<String>| if left { model.pop_front() } else { model.pop_back() };
            let give =
                |model: &mut VecDeque<String>, new| if left { model.push_front(new) } else { model.push_back(new) };
            match rng.random_range(0..100) {
                0..70 => assert_eq!(conn.run(&format!("{pop} l")).text(), take(&mut model).expect("an element")),
                70..78 => {
                    let new = element(&mut rng);
                    push(&mut conn, &mut model, left, new);
                }
                78..82 => {
                    // Taken and given in one transaction, and taken again after it.
                    let new = element(&mut rng);
                    conn.run("MULTI").expect_ok();
                    for command in
                        [&[pop, "l"][..], &[pop, "l"], &[pushed, "l", &new], &[pop, "l"], &[pushed, "l", &new]]
                    {
                        conn.call(command);
                    }
                    let reply = conn.run("EXEC");
                    let taken = [take(&mut model), take(&mut model)].map(|taken| taken.expect("an element"));
                    assert_eq!([reply.items()[0].text(), reply.items()[1].text()], taken);
                    assert_eq!(reply.items()[3].text(), new);
                    give(&mut model, new);
                }
                82..85 => {
                    let (from, to) = if left { ("LEFT", "RIGHT") } else { ("RIGHT", "LEFT") };
                    let moved = take(&mut model).expect("an element");
                    assert_eq!(conn.run(&format!("LMOVE l l {from} {to}")).text(), moved);
                    if left { model.push_back(moved) } else { model.push_front(moved) }
                }
                85..88 => {
                    let (at, new) = (rng.random_range(0..model.len()), element(&mut rng));
                    conn.call(&["LSET", "l", &at.to_string(), &new]).expect_ok();
                    model[at] = new;
                }
                88..90 => {
                    let at = if left { 0 } else { model.len() - 1 };
                    conn.call(&["LREM", "l", if left { "1" } else { "-1" }, &model[at]]).int();
                    take(&mut model);
                }
                90..92 => {
                    let new = element(&mut rng);
                    let at = rng.random_range(0..model.len());
                    conn.call(&["LINSERT", "l", "BEFORE", &model[at], &new]).int();
                    model.insert(at, new);
                }
                92..96 => {
                    let count = rng.random_range(1..5).min(model.len());
                    let taken: Vec<_> = (0..count).filter_map(|_| take(&mut model)).collect();
                    assert_eq!(conn.run(&format!("{pop} l {count}")).texts(), taken);
                }
                96 => conn.run("DEBUG RELOAD").expect_ok(),
                _ => {
                    let at = if left { 0 } else { model.len().saturating_sub(70) };
                    let found = conn.run(&format!("LRANGE l {at} {}", at + 69)).texts();
                    assert_eq!(found, model.iter().skip(at).take(70).cloned().collect::<Vec<_>>());
                }
            }
        }
        assert_eq!(conn.run("LRANGE l 0 -1").texts(), Vec::from(model.clone()));
        if round % 3 == 0 {
            // A new list of that name has nothing of the old one.
            conn.run("DEL l").int();
            model.clear();
        }
    }
}

/// A window over the numbers moves through a list, which others read in parts.
#[test]
fn who_reads_parts_of_a_list_that_moves_sees_it_as_it_was_at_one_moment() {
    const STEPS: usize = 1500;
    let node = Node::start();
    let ended = AtomicBool::new(false);
    node.conn().call(&list_call("RPUSH", 0..150)).int();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ended = Ends(&ended);
            let (mut conn, mut rng, mut next) = (node.conn(), rng(), 150);
            for _ in 0..STEPS {
                let moved = rng.random_range(1..20);
                conn.call(&list_call("RPUSH", next..next + moved)).int();
                next += moved;
                if rng.random() {
                    conn.run(&format!("LPOP l {moved}"));
                } else {
                    conn.run(&format!("LTRIM l {moved} -1")).expect_ok();
                }
                match rng.random_range(0..100) {
                    0 => conn.run("DEBUG RELOAD").expect_ok(),
                    1..5 => conn.run("SAVE").expect_ok(),
                    _ => {}
                }
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut conn, mut rng, mut begins) = (node.conn(), rng(), 0);
                while !ended.load(Ordering::Relaxed) {
                    let first = rng.random_range(0..60);
                    let found = conn.run(&format!("LRANGE l {first} {}", first + rng.random_range(0..90))).texts();
                    let found: Vec<i64> = found.iter().map(|number| number.parse().expect("a number")).collect();
                    let begin = found[0] - first;
                    assert!(begin >= begins, "it began with {begins} before, and now with {begin}");
                    assert!(found.iter().zip(found[0]..).all(|(found, expected)| *found == expected), "{found:?}");
                    begins = begin;
                }
            });
        }
    });
}

/// An element that no other is equal to.
fn next_element(made: &mut u64, long: usize) -> String {
    *made += 1;
    format!("{made}:{}", "x".repeat(long))
}

/// Pushes an element, and into the model.
fn push(conn: &mut Conn, model: &mut VecDeque<String>, left: bool, new: String) {
    conn.call(&[if left { "LPUSH" } else { "RPUSH" }, "l", &new]).int();
    if left { model.push_front(new) } else { model.push_back(new) }
}

/// A call that pushes numbers.
fn list_call(name: &str, numbers: std::ops::Range<i64>) -> Vec<String> {
    [name.to_string(), "l".to_string()].into_iter().chain(numbers.map(|number| number.to_string())).collect()
}

/// Says so when it goes, also when a check has failed.
struct Ends<'d>(&'d AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
