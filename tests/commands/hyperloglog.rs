//! HyperLogLog commands. The cardinality that a value stores, its bytes 8 to 15, is not compared: Redis stores it when it
//! counts, we do when a value is made.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::common::rng;
use crate::duel::Duel;

#[test]
fn adding_counting_merging() {
    Duel::start().script(
        r#"
        PFADD h
        PFADD h
        PFCOUNT h
        STRLEN h
        PFADD h a b c
        PFADD h a b c
        PFADD h ""
        PFADD h "\x00\xff" "12345678" "1234567890"
        PFCOUNT h
        GETRANGE h 0 7
        GETRANGE h 16 -1
        PFDEBUG DECODE h
        PFDEBUG ENCODING h
        PFCOUNT none
        PFCOUNT none h none2
        PFADD i c d e f
        EXPIRE i 1000
        PFMERGE i h none
        ~TTL i
        PFCOUNT i
        PFCOUNT h i
        PFMERGE fresh
        PFCOUNT fresh
        PFDEBUG DECODE fresh
        PFMERGE j h i
        GETRANGE j 16 -1
        PFDEBUG TODENSE j
        PFDEBUG TODENSE j
        PFDEBUG ENCODING j
        PFDEBUG DECODE j
        STRLEN j
        GETRANGE j 16 -1
        PFADD j x y z
        PFADD j x y z
        PFCOUNT j
        PFMERGE h j
        PFDEBUG ENCODING h
        PFDEBUG GETREG h
        PFDEBUG GETREG i
        PFDEBUG ENCODING i
        PFADD i new
        ~TTL i
        PFDEBUG FOO h
        PFDEBUG GETREG none
        PFDEBUG FOO none
        PFDEBUG GETREG
        PFDEBUG GETREG h h
        PFSELFTEST
        PFADD
        PFCOUNT
        PFMERGE
        "#,
    );
}

#[test]
fn what_is_none() {
    Duel::start().script(
        r#"
        SET text "not one"
        SET number 12345
        PFADD text a
        PFCOUNT text
        PFCOUNT number none
        PFMERGE h text
        PFMERGE text h
        PFDEBUG GETREG text
        EXISTS h
        PFADD h a b c
        SETRANGE h 0 hyll
        PFCOUNT h
        PFADD h2 a b c
        SETRANGE h2 4 "\x02"
        PFCOUNT h2
        SETRANGE h2 4 "\x00"
        PFCOUNT h2
        PFADD h3 a b c
        APPEND h3 "hello"
        PFCOUNT h3
        PFCOUNT h3 none
        PFMERGE h4 h3
        PFDEBUG GETREG h3
        SET short "HYLL\x01"
        PFCOUNT short
        SET header "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80"
        PFCOUNT header
        PFADD header a
        SET overlong "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x7f\xff\xff"
        PFCOUNT overlong
        PFCOUNT overlong none
        PFDEBUG GETREG overlong
        SET stored "HYLL\x01\x00\x00\x00\x07\x01\x00\x00\x00\x00\x00\x00\x7f\xff"
        PFCOUNT stored
        PFCOUNT stored none
        "#,
    );
}

const KEYS: [&str; 4] = ["a", "b", "{t}c", "{t}d"];
const COMMANDS: usize = 4_000;
const ROUND: usize = 500;

fn command(rng: &mut StdRng) -> Vec<String> {
    let mut key = || KEYS.choose(rng).expect("a key").to_string();
    let (a, b, c) = (key(), key(), key());
    let word = String::from;
    match rng.random_range(0..30) {
        0..10 => {
            // From small to so large that the values become dense.
            let universe = 10u32.pow(rng.random_range(1..7));
            let mut add = vec![word("PFADD"), a];
            add.extend((0..rng.random_range(0..100)).map(|_| rng.random_range(0..universe).to_string()));
            add
        }
        10..14 => vec![word("PFCOUNT"), a],
        14..16 => vec![word("PFCOUNT"), a, b, c],
        16..18 => vec![word("PFMERGE"), a, b, c],
        18 => vec![word("PFMERGE"), a],
        19 => vec![word("PFDEBUG"), word("ENCODING"), a],
        20 => vec![word("PFDEBUG"), word("DECODE"), a],
        21..26 => vec![word("GETRANGE"), a, word("16"), word("-1")],
        26 => vec![word("EXPIRE"), a, word("100000")],
        27 => vec![word("TTL"), a],
        28 => match rng.random_range(0..4) {
            0 => vec![word("PFDEBUG"), word("TODENSE"), a],
            1 => vec![word("PFDEBUG"), word("GETREG"), a],
            _ => vec![word("STRLEN"), a],
        },
        _ => vec![word("DEL"), a],
    }
}

fn bytes(commands: impl IntoIterator<Item = Vec<String>>) -> Vec<Vec<Vec<u8>>> {
    commands.into_iter().map(|command| command.into_iter().map(String::into_bytes).collect()).collect()
}

#[test]
fn a_random_stream() {
    let mut duel = Duel::start();
    let mut rng = rng();
    let state = || bytes(KEYS.map(|key| ["GETRANGE", key, "16", "-1"].map(String::from).to_vec()));
    for round in 1..=COMMANDS / ROUND {
        duel.stream(bytes((0..ROUND).map(|_| command(&mut rng))));
        duel.stream(state());
        if round == COMMANDS / ROUND / 2 {
            duel.crash();
            duel.stream(state());
        }
    }
}

/// Values with random bytes changed are told from sound ones as Redis does, and harm nothing.
#[test]
fn corrupted_values() {
    let mut duel = Duel::start();
    let mut rng = rng();
    for _ in 0..300 {
        let mut commands = vec![vec!["DEL".to_owned(), "h".to_owned()]];
        let mut add = vec!["PFADD".to_owned(), "h".to_owned()];
        let elements = rng.random_range(1..400);
        add.extend((0..elements).map(|_| rng.random::<u32>().to_string()));
        commands.push(add);
        duel.stream(bytes(commands));
        let mut commands = bytes([]);
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(16..16 + 2 * elements + 2).to_string();
            commands.push(vec![b"SETRANGE".to_vec(), b"h".to_vec(), at.into_bytes(), vec![rng.random()]]);
        }
        commands.extend(bytes([
            ["PFCOUNT", "h", "none"].map(String::from).to_vec(),
            ["PFDEBUG", "GETREG", "h"].map(String::from).to_vec(),
            ["PFDEBUG", "ENCODING", "h"].map(String::from).to_vec(),
        ]));
        duel.stream(commands);
    }
}
