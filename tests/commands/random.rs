//! A long random stream of string and key commands, state included.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use crate::common::{rng, unix_ms};
use crate::duel::Duel;

const COMMANDS: usize = 20_000;
/// Commands between two comparisons of all data.
const ROUND: usize = 2_000;
const DATABASES: usize = 3;

const KEYS: [&[u8]; 12] = [
    b"a",
    b"b",
    b"key:1",
    b"key:2",
    b"key:3",
    b"{tag}1",
    b"{tag}2",
    b"\x00\xff\r\n",
    b"",
    b"long key with spaces",
    b"n",
    b"f",
];

/// Makes commands. Every expiry it asks for lies at least 1,000 seconds from every other and from now, so which
/// of two is later depends neither on the machine's speed nor on which server is asked first.
struct Generator {
    rng: StdRng,
    start_ms: u64,
    made: u64,
}

impl Generator {
    fn command(&mut self) -> Vec<Vec<u8>> {
        self.made += 1;
        let (a, b) = (self.key(), self.key());
        match self.rng.random_range(0..45) {
            0..4 => vec![word("SET"), a, self.value()],
            4 | 5 => {
                let mut set = vec![word("SET"), a, self.value()];
                for _ in 0..self.rng.random_range(0..4) {
                    set.extend(self.set_option());
                }
                set
            }
            6 => vec![word("SETNX"), a, self.value()],
            7 => vec![word("SETEX"), a, self.duration(1), self.value()],
            8 => vec![word("PSETEX"), a, self.duration(1000), self.value()],
            9 | 10 => vec![word("GET"), a],
            11 => vec![word("GETSET"), a, self.value()],
            12 => vec![word("GETDEL"), a],
            13 => {
                let mut getex = vec![word("GETEX"), a];
                for _ in 0..self.rng.random_range(0..2) {
                    getex.extend(self.expiry_option());
                }
                getex
            }
            14 => vec![word("GETRANGE"), a, self.offset(), self.offset()],
            15 => vec![word("SETRANGE"), a, self.offset(), self.value()],
            16 | 17 => vec![word("APPEND"), a, self.value()],
            18 => vec![word("STRLEN"), a],
            19 => vec![word("INCR"), a],
            20 => vec![word("DECR"), a],
            21 => vec![word("INCRBY"), a, self.number()],
            22 => vec![word("DECRBY"), a, self.number()],
            23 | 24 => vec![word("INCRBYFLOAT"), a, self.number()],
            25 => vec![word("MGET"), a, b, self.key()],
            26 => vec![word("MSET"), a, self.value(), b, self.value()],
            27 => vec![word("MSETNX"), a, self.value(), b, self.value()],
            28 => {
                let mut lcs = vec![word("LCS"), a, b];
                let options = ["LEN", "IDX", "WITHMATCHLEN", "MINMATCHLEN 2"];
                for _ in 0..self.rng.random_range(0..3) {
                    lcs.extend(self.pick(&options).split(' ').map(word));
                }
                lcs
            }
            29 => vec![word(self.pick(&["DEL", "UNLINK"])), a, b],
            30 => vec![word(self.pick(&["EXISTS", "TOUCH"])), a, b],
            31 => vec![word("EXPIRE"), a, self.duration(1)],
            32..35 => {
                let mut expire = match self.rng.random_range(0..4) {
                    0 => vec![word("EXPIRE"), a, self.duration(1)],
                    1 => vec![word("PEXPIRE"), a, self.duration(1000)],
                    2 => vec![word("EXPIREAT"), a, self.instant(1)],
                    _ => vec![word("PEXPIREAT"), a, self.instant(1000)],
                };
                for _ in 0..self.rng.random_range(0..3) {
                    expire.push(word(self.pick(&["NX", "XX", "GT", "LT", "xx", "gt"])));
                }
                expire
            }
            35 => vec![word("PERSIST"), a],
            36 => vec![word(self.pick(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"])), a],
            37 => vec![word("TYPE"), a],
            38 => vec![word("RENAME"), a, b],
            39 => vec![word("RENAMENX"), a, b],
            40 | 41 => {
                let mut copy = vec![word("COPY"), a, b];
                for _ in 0..self.rng.random_range(0..3) {
                    copy.extend(self.pick(&["REPLACE", "DB 0", "DB 1", "DB 2", "DB 99"]).split(' ').map(word));
                }
                copy
            }
            42 => vec![word("KEYS"), word(self.pick(&["*", "key:*", "?", "*a*", "[^a]*", "{tag}*"]))],
            43 => vec![word("RANDOMKEY")],
            // No DBSIZE: Redis counts expired keys that nobody has touched since.
            _ => vec![word("SELECT"), word(&self.rng.random_range(0..DATABASES).to_string())],
        }
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from.choose(&mut self.rng).expect("something to choose")
    }

    fn key(&mut self) -> Vec<u8> {
        KEYS.choose(&mut self.rng).expect("a key").to_vec()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..6) {
            0 => Vec::new(),
            1 => {
                let mut bytes = vec![0; self.rng.random_range(0..80)];
                self.rng.fill_bytes(&mut bytes);
                bytes
            }
            2 => (0..self.rng.random_range(0..60)).map(|_| self.rng.random_range(b'a'..=b'd')).collect(),
            _ => self.number(),
        }
    }

    fn number(&mut self) -> Vec<u8> {
        let text = match self.rng.random_range(0..9) {
            0..3 => self.rng.random_range(-100i64..100).to_string(),
            3 => self.rng.random::<i64>().to_string(),
            4 => format!("{}.{}", self.rng.random_range(-9..10), self.rng.random::<u32>()),
            5 => format!("{}e{}", self.rng.random::<i32>(), self.rng.random_range(-25..60)),
            6 => (self.rng.random::<f64>() * 1e6).to_string(),
            7 => self.pick(&["inf", "-inf", "nan", "0x1p4", "1e4932", " 1", "01", "-0", "+3", "1.", ".5", "e5"]).into(),
            _ => self.pick(&["9223372036854775807", "-9223372036854775808", "9223372036854775808", "0", "-1"]).into(),
        };
        text.into_bytes()
    }

    fn offset(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..20) {
            0 => word(self.pick(&["x", "1.0", "9223372036854775807", "-9223372036854775808", "536870912"])),
            1..4 => word(&self.rng.random_range(-90..0).to_string()),
            _ => word(&self.rng.random_range(0..90).to_string()),
        }
    }

    /// Seconds from now, at least 1,000 of them between any two.
    fn far(&mut self) -> i64 {
        self.rng.random_range(1..20) * 100_000_000 + self.made as i64 * 2_000
    }

    /// A duration in units of 1/`per_second` seconds; now and then one that is past or refused.
    fn duration(&mut self, per_second: i64) -> Vec<u8> {
        match self.rng.random_range(0..12) {
            0 => word(self.pick(&["0", "-1", "-100000", "9223372036854775807", "x", "1.5"])),
            _ => word(&(self.far() * per_second).to_string()),
        }
    }

    /// A unix time in units of 1/`per_second` seconds; now and then one that is past or refused.
    fn instant(&mut self, per_second: i64) -> Vec<u8> {
        match self.rng.random_range(0..12) {
            0 => word(self.pick(&["0", "1", "-5", "1000000000", "9223372036854775807", "x"])),
            _ => {
                let now = self.start_ms as i64 / 1000;
                word(&((now + 1_000 + self.far()) * per_second).to_string())
            }
        }
    }

    fn expiry_option(&mut self) -> Vec<Vec<u8>> {
        match self.rng.random_range(0..5) {
            0 => vec![word("EX"), self.duration(1)],
            1 => vec![word("px"), self.duration(1000)],
            2 => vec![word("EXAT"), self.instant(1)],
            3 => vec![word("PxAt"), self.instant(1000)],
            _ => vec![word(self.pick(&["PERSIST", "KEEPTTL", "EX"]))],
        }
    }

    fn set_option(&mut self) -> Vec<Vec<u8>> {
        match self.rng.random_range(0..2) {
            0 => vec![word(self.pick(&["NX", "XX", "GET", "KEEPTTL", "get", "foo"]))],
            _ => self.expiry_option(),
        }
    }
}

fn word(word: &str) -> Vec<u8> {
    word.as_bytes().to_vec()
}

#[test]
fn twenty_thousand_random_commands() {
    let mut duel = Duel::start();
    let keys: Vec<Vec<u8>> = KEYS.iter().map(|key| key.to_vec()).collect();
    let mut generator = Generator { rng: rng(), start_ms: unix_ms(), made: 0 };
    for round in 1..=COMMANDS / ROUND {
        duel.stream((0..ROUND).map(|_| generator.command()).collect());
        duel.state(0..DATABASES, &keys);
        if round == COMMANDS / ROUND / 2 {
            duel.crash();
            duel.state(0..DATABASES, &keys);
        }
    }
}
