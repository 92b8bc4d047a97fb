//! Streams: replies and errors of every command, and a long random stream with IDs given by the client.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use crate::common::rng;
use crate::duel::Duel;

#[test]
fn entries() {
    Duel::start().script(
        r#"
        XADD s 1-1 a 1
        XADD s 1-1 a 1
        XADD s 1-* b 2 c 3
        XADD s 0-* b 2
        XADD s 5 d 4
        XADD s 0-0 d 4
        XADD s nope d 4
        XADD s - d 4
        XADD s 6 d
        XADD s 6
        XADD s MAXLEN
        XADD s MAXLEN 5
        XADD s MAXLEN x 6 a b
        XADD s MAXLEN -1 6 a b
        XADD s MAXLEN 5 MINID 3 6 a b
        XADD s LIMIT 5 6 a b
        XADD s MAXLEN 5 LIMIT 5 6 a b
        XADD s MAXLEN ~ 5 LIMIT -5 6 a b
        XADD s MAXLEN = 3 6-1 a b
        XADD s MINID = 5 7-1 a b
        XADD none NOMKSTREAM 7-1 a b
        EXISTS none
        XADD s NOMKSTREAM 007-02 "" ""
        XLEN s
        XLEN none
        XRANGE s - +
        XREVRANGE s + -
        XRANGE s (5-0 (7-2 COUNT 1
        XRANGE s 5 7 COUNT 2
        XRANGE s 7 7
        XRANGE s 9 1
        XRANGE s - + COUNT 0
        XRANGE s - + COUNT -1
        XRANGE none - + COUNT 0
        XRANGE s - + COUNT x
        XRANGE s - + COUNT
        XRANGE s - + LIMIT 1
        XRANGE s (- +
        XRANGE s (18446744073709551615-18446744073709551615 +
        XRANGE s - (0-0
        XREVRANGE s (7 5
        XDEL s 7-1 9-9
        XDEL s x
        XDEL none x
        XDEL s
        XTRIM s MAXLEN
        XTRIM s
        XTRIM s MAXLEN 1 NOMKSTREAM
        XTRIM s MINID x
        XTRIM s MAXLEN 1 LIMIT 4
        XTRIM s MAXLEN ~ 1 LIMIT 4
        XTRIM none MAXLEN 1
        XTRIM s MAXLEN 1
        XINFO STREAM s
        XSETID s 3
        XSETID s 18446744073709551615-18446744073709551615
        XADD s * a b
        XSETID s 100-1 ENTRIESADDED 20 MAXDELETEDID 50-0
        XSETID s 100-1 ENTRIESADDED 0 MAXDELETEDID 50-0
        XSETID s 100-1 ENTRIESADDED -1
        XSETID s 100-1 MAXDELETEDID 200
        XSETID s 100-1 BAD 200
        XSETID s 100-1 ENTRIESADDED
        XSETID none 100-1
        XINFO STREAM s
        XADD s MAXLEN 0 200 a b
        XINFO STREAM s
        TYPE s
        OBJECT ENCODING s
        XADD s 200-* a b
        XADD top 5-18446744073709551615 a b
        SET text x
        XADD text 1 a b
        XLEN text
        XRANGE text - +
        XDEL text 1
        XTRIM text MAXLEN 1
        XREAD STREAMS text 0
        XINFO STREAM text
        XSETID text 1
        XINFO STREAM none
        XINFO STREAM s BAD
        XINFO NOPE s
        XINFO STREAM
        XGROUP NOPE s
        "#,
    );
}

#[test]
fn reading() {
    Duel::start().script(
        r#"
        XADD s 1 a 1
        XADD s 2 a 2
        XADD s 3 a 3
        XADD t 2 b 2
        XREAD STREAMS s 0
        XREAD COUNT 2 STREAMS s t none 1 0 0
        XREAD COUNT 0 STREAMS s 2-5
        XREAD COUNT -3 STREAMS s 2-5
        XREAD STREAMS s $
        XREAD STREAMS s 3
        XREAD BLOCK 1 STREAMS s t $ 2
        XREAD BLOCK 1 STREAMS none 18446744073709551615-18446744073709551615
        XREAD BLOCK 0 STREAMS s 1
        XREAD BLOCK -1 STREAMS s 1
        XREAD BLOCK x STREAMS s 1
        XREAD STREAMS s >
        XREAD STREAMS s t 1
        XREAD STREAMS s
        XREAD COUNT 2 s 1
        XREAD NOACK STREAMS s 1
        XREAD GROUP g c STREAMS s 1
        XREAD COUNT x STREAMS s 1
        XREAD STREAMS s x
        MULTI
        XREAD BLOCK 0 STREAMS s $
        XREAD BLOCK 0 STREAMS s 2
        EXEC
        XREADGROUP GROUP g c STREAMS s >
        XREADGROUP GROUP g c STREAMS none >
        XGROUP CREATE s g 1
        XGROUP CREATE s g 1
        XGROUP CREATE s h x
        XGROUP CREATE none g 0
        XGROUP CREATE none g 0 MKSTREAM ENTRIESREAD 0
        XGROUP CREATE s h $ ENTRIESREAD -2
        XGROUP CREATE s h $ ENTRIESREAD x
        XGROUP CREATE s h $ ENTRIESREAD
        XGROUP CREATE s h $ NOPE
        XREADGROUP GROUP g c STREAMS s $
        XREADGROUP GROUP g c COUNT 1 STREAMS s >
        XREADGROUP GROUP g c STREAMS s s > >
        XREADGROUP GROUP g c STREAMS s >
        XREADGROUP GROUP g c BLOCK 1 STREAMS s >
        XREADGROUP GROUP g c BLOCK 0 STREAMS s 0
        XREADGROUP GROUP g d STREAMS s 0
        XREADGROUP GROUP g c COUNT 1 STREAMS s 2
        XREADGROUP COUNT 1 STREAMS s 2 2 2
        XREADGROUP GROUP nope c STREAMS s 2
        XDEL s 2
        XREADGROUP GROUP g c STREAMS s 0
        XINFO GROUPS s
        XPENDING s g
        XPENDING s g - + 10
        XPENDING s g - + 10 c
        XPENDING s g - + 10 nobody
        XPENDING s g IDLE 100000000 - + 10
        XPENDING s g IDLE 0 (2 + 10 c
        XPENDING s g IDLE x - + 10
        XPENDING s g IDLE 1 - +
        XPENDING s g - +
        XPENDING s g - + x
        XPENDING s g - + -1
        XPENDING s g x + 1
        XPENDING s nope
        XPENDING nope g
        XACK s g 2 2 3-1
        XACK s g x
        XACK s nope x
        XACK nope g x
        XPENDING s g
        XGROUP SETID s g 0 ENTRIESREAD 1
        XGROUP SETID s g - ENTRIESREAD 1 MKSTREAM
        XGROUP SETID s nope 0
        XGROUP SETID none2 nope 0
        XINFO GROUPS s
        XREADGROUP GROUP g d NOACK STREAMS s >
        XGROUP SETID s g 1
        XREADGROUP GROUP g d STREAMS s >
        XPENDING s g
        XGROUP CREATECONSUMER s g e
        XGROUP CREATECONSUMER s g e
        XGROUP CREATECONSUMER s nope e
        XGROUP DELCONSUMER s g d
        XGROUP DELCONSUMER s g d
        XGROUP DELCONSUMER s nope d
        XINFO GROUPS s
        XINFO GROUPS none
        XINFO GROUPS nothing
        XINFO CONSUMERS s nope
        XPENDING s g
        XGROUP DESTROY s g
        XGROUP DESTROY s g
        XGROUP DESTROY nothing g
        XINFO GROUPS s
        "#,
    );
}

#[test]
fn claiming() {
    Duel::start().script(
        r#"
        XADD s 1 a 1
        XADD s 2 a 2
        XADD s 3 a 3
        XADD s 4 a 4
        XADD s 5 a 5
        XGROUP CREATE s g 0
        XREADGROUP GROUP g a STREAMS s >
        XCLAIM s g b 0 1 2-0 9
        XCLAIM s g b 1000000 3
        XCLAIM s g b 0 3 JUSTID
        XCLAIM s g b 0 3 3 RETRYCOUNT 7 JUSTID
        XCLAIM s g b 0 3 IDLE 1000 TIME 5
        XCLAIM s g b 0 x
        XCLAIM s g b x 3
        XCLAIM s g b 0 3 NOPE
        XCLAIM s g b 0 3 IDLE
        XCLAIM s g b 0 3 IDLE x
        XCLAIM s g b 0 3 TIME x
        XCLAIM s g b 0 3 RETRYCOUNT x
        XCLAIM s g b 0 3 LASTID x
        XCLAIM s nope b 0 3
        XCLAIM nope g b 0 3
        XACK s g 4
        XCLAIM s g b 0 4
        XCLAIM s g b 0 4 FORCE
        XCLAIM s g c 0 77 FORCE LASTID 90
        XINFO GROUPS s
        XDEL s 5 2
        XPENDING s g - + 10
        XCLAIM s g c 0 5
        XPENDING s g
        XAUTOCLAIM s g d 0 0 COUNT 2
        XAUTOCLAIM s g d 0 (2 COUNT 1 JUSTID
        XAUTOCLAIM s g d 1000000 - COUNT 1
        XAUTOCLAIM s g d 0 -
        XAUTOCLAIM s g d 0 +
        XAUTOCLAIM s g d 0 x
        XAUTOCLAIM s g d x 0
        XAUTOCLAIM s g d 0 0 COUNT 0
        XAUTOCLAIM s g d 0 0 COUNT x
        XAUTOCLAIM s g d 0 0 COUNT
        XAUTOCLAIM s g d 0 0 NOPE
        XAUTOCLAIM s nope d 0 0
        XAUTOCLAIM nope g d 0 0
        XPENDING s g - + 10
        XPENDING s g
        "#,
    );
}

const COMMANDS: usize = 6_000;
const KEYS: [&str; 3] = ["s", "t", "{s}u"];
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Makes commands with IDs near to each other that rise slowly.
struct Generator {
    rng: StdRng,
    now: u64,
    /// Trims by nodes, and otherwise by ID. Not both: Redis keeps a node without entries when trimming by ID removed the last of
    /// them, and a larger ID had been deleted from it.
    by_nodes: bool,
}

impl Generator {
    fn pick(&mut self, words: &[&str]) -> String {
        words.choose(&mut self.rng).expect("a word").to_string()
    }

    fn below(&mut self, end: u64) -> u64 {
        self.rng.random_range(0..end)
    }

    fn id(&mut self) -> String {
        let ms = (self.now + 2).saturating_sub(self.below(30));
        match self.below(3) {
            0 => ms.to_string(),
            _ => format!("{ms}-{}", self.below(3)),
        }
    }

    fn edge(&mut self) -> String {
        match self.below(4) {
            0 => "-".into(),
            1 => "+".into(),
            2 => format!("({}", self.id()),
            _ => self.id(),
        }
    }

    fn count(&mut self) -> String {
        match self.below(3) {
            0 => format!("COUNT {}", self.below(5)),
            _ => String::new(),
        }
    }

    fn value(&mut self) -> String {
        match self.below(4) {
            0 => self.rng.next_u64().to_string(),
            1 => (self.below(300) as i64 - 100).to_string(),
            _ => "x".repeat(self.below(90) as usize + 1),
        }
    }

    fn pairs(&mut self) -> String {
        let pairs = (0..=self.below(3)).map(|_| format!("{} {}", self.pick(&NAMES), self.value()));
        pairs.collect::<Vec<_>>().join(" ")
    }

    fn trim(&mut self) -> String {
        match self.below(5) {
            0 => format!("MAXLEN {}", self.below(20)),
            _ if !self.by_nodes => format!("MINID = {}", self.id()),
            1 => format!("MAXLEN ~ {} LIMIT {}", self.below(20), self.below(30)),
            _ => format!("MAXLEN ~ {}", self.below(20)),
        }
    }

    fn command(&mut self) -> String {
        let (key, group, consumer) = (self.pick(&KEYS), self.pick(&NAMES[..2]), self.pick(&NAMES));
        let id = self.id();
        match self.below(60) {
            0..16 => {
                self.now += self.below(3);
                let id = match self.below(6) {
                    0 => id,
                    1 => format!("{}", self.now),
                    _ => format!("{}-*", self.now),
                };
                let trim = if self.below(4) == 0 { self.trim() } else { String::new() };
                format!("XADD {key} {trim} {id} {}", self.pairs())
            }
            16 | 17 => format!("XDEL {key} {id} {}", self.id()),
            18 | 19 => format!("XTRIM {key} {}", self.trim()),
            20 | 21 => format!("XRANGE {key} {} {} {}", self.edge(), self.edge(), self.count()),
            22 => format!("XREVRANGE {key} {} {} {}", self.edge(), self.edge(), self.count()),
            23 => format!("XLEN {key}"),
            24 => format!("XREAD {} STREAMS {key} {} {id} {}", self.count(), self.pick(&KEYS), self.id()),
            25..30 => {
                let no_ack = if self.below(5) == 0 { "NOACK" } else { "" };
                format!("XREADGROUP GROUP {group} {consumer} {no_ack} {} STREAMS {key} >", self.count())
            }
            30 | 31 => format!("XREADGROUP GROUP {group} {consumer} {} STREAMS {key} {id}", self.count()),
            32 | 33 => {
                let options = self.pick(&["", "MKSTREAM", "ENTRIESREAD 3", "MKSTREAM ENTRIESREAD 2"]);
                let id = if self.below(2) == 0 { "0".into() } else { id };
                format!("XGROUP CREATE {key} {group} {id} {options}")
            }
            34 => format!("XGROUP SETID {key} {group} {id}"),
            35 if self.below(3) == 0 => format!("XGROUP DESTROY {key} {group}"),
            36 => format!("XGROUP DELCONSUMER {key} {group} {consumer}"),
            37 => format!("XGROUP CREATECONSUMER {key} {group} {consumer}"),
            38..41 => format!("XACK {key} {group} {id} {}", self.id()),
            41 | 42 => format!("XPENDING {key} {group}"),
            43 => format!("XPENDING {key} {group} {} {} 5", self.edge(), self.edge()),
            44 => format!("XPENDING {key} {group} - + 3 {consumer}"),
            45..48 => {
                let idle = self.pick(&["0", "0", "100000000"]);
                let options = self.pick(&["", "FORCE", "JUSTID", "RETRYCOUNT 9", "TIME 77 FORCE JUSTID"]);
                format!("XCLAIM {key} {group} {consumer} {idle} {id} {} {options}", self.id())
            }
            48..50 => {
                let idle = self.pick(&["0", "0", "100000000"]);
                format!(
                    "XAUTOCLAIM {key} {group} {consumer} {idle} {id} {} {}",
                    self.count(),
                    self.pick(&["", "JUSTID"])
                )
            }
            50 => format!("XSETID {key} {id}"),
            51 => format!("XSETID {key} {} ENTRIESADDED 100 MAXDELETEDID {id}", self.now + 3),
            52 | 53 => format!("XINFO GROUPS {key}"),
            54 | 55 => format!("XINFO STREAM {key}"),
            56 if self.below(3) == 0 => format!("DEL {key}"),
            _ => format!("XINFO STREAM {key}"),
        }
    }
}

fn words(line: String) -> Vec<Vec<u8>> {
    line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn nodes_by_size() {
    let mut duel = Duel::start();
    let mut generator = Generator { rng: rng(), now: 10, by_nodes: true };
    let mut commands = vec!["CONFIG SET stream-node-max-entries 0".to_owned()];
    for number in 1..2000 {
        if number % 100 == 1 {
            commands.push(format!("CONFIG SET stream-node-max-bytes {}", 200 + generator.below(800)));
        }
        let pairs = generator.pairs();
        commands.push(format!("XADD s MAXLEN ~ {} {number} {pairs}", generator.below(20)));
        commands.push("XLEN s".into());
    }
    duel.stream(commands.into_iter().map(words).collect());
}

#[test]
fn random() {
    let mut duel = Duel::start();
    let mut generator = Generator { rng: rng(), now: 10, by_nodes: true };
    for by_nodes in [true, false] {
        generator.by_nodes = by_nodes;
        duel.stream(vec![words("CONFIG SET stream-node-max-entries 3".into())]);
        duel.stream((0..COMMANDS).map(|_| words(generator.command())).collect());
        // What is on the disk is what was answered from.
        duel.crash();
        let questions = ["XRANGE @ - +", "XINFO STREAM @", "XINFO GROUPS @", "XPENDING @ a", "XPENDING @ b - + 1000"];
        let of_key = |key: &&str| questions.map(|question| words(question.replace('@', key)));
        duel.stream(KEYS.iter().flat_map(of_key).collect());
        duel.stream(vec![words("FLUSHALL".into())]);
    }
}
