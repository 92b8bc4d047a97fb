//! A long random stream of hash and set commands, state included.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use crate::common::rng;
use crate::duel::Duel;

const COMMANDS: usize = 12_000;
/// Commands between two comparisons of all data.
const ROUND: usize = 2_000;

/// In slots of their own, most of them.
const KEYS: [&str; 8] = ["a", "b", "c", "key:1", "key:2", "{tag}1", "{tag}2", "z"];

struct Generator {
    rng: StdRng,
}

impl Generator {
    fn command(&mut self) -> Vec<Vec<u8>> {
        let (a, b) = (self.key(), self.key());
        let mut command: Vec<Vec<u8>> = match self.rng.random_range(0..32) {
            0..5 => return self.with("SADD", &[a], 5),
            5 | 6 => return self.with("SREM", &[a], 4),
            7 => return self.with("SMISMEMBER", &[a], 3),
            8 => vec![word("SISMEMBER"), a, self.element()],
            9 => vec![word("SMOVE"), a, b, self.element()],
            10 => vec![word(self.pick(&["SCARD", "SMEMBERS", "HGETALL", "HKEYS", "HVALS", "HLEN"])), a],
            11 | 12 => vec![word(self.pick(&["SINTER", "SUNION", "SDIFF"])), a, b],
            13..16 => vec![word(self.pick(&["SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"])), a, b, self.key()],
            16 => vec![word("SINTERCARD"), word("2"), a, b, word("LIMIT"), self.number()],
            17 => vec![word("SPOP"), a, word("100000")],
            18..23 => {
                let mut set = vec![word(self.pick(&["HSET", "HMSET"])), a];
                for _ in 0..self.rng.random_range(1..5) {
                    set.extend([self.element(), self.value()]);
                }
                return set;
            }
            23 => vec![word("HSETNX"), a, self.element(), self.value()],
            24 => vec![word(self.pick(&["HGET", "HEXISTS", "HSTRLEN"])), a, self.element()],
            25 => return self.with("HMGET", &[a], 4),
            26 => return self.with("HDEL", &[a], 5),
            27 => vec![word("HINCRBY"), a, self.element(), self.number()],
            28 => vec![word("HINCRBYFLOAT"), a, self.element(), self.number()],
            29 => vec![word("DEL"), a],
            30 => vec![word("SET"), a, word("string")],
            _ => vec![word(self.pick(&["TYPE", "EXISTS", "SRANDMEMBER", "HRANDFIELD"])), a],
        };
        if command[0].ends_with(b"RANDMEMBER") || command[0].ends_with(b"RANDFIELD") {
            // What comes is chance; that nothing of it is asked for is not.
            command.push(word("0"));
        }
        command
    }

    /// A command with up to `most` elements.
    fn with(&mut self, name: &str, args: &[Vec<u8>], most: usize) -> Vec<Vec<u8>> {
        let mut command = vec![word(name)];
        command.extend_from_slice(args);
        for _ in 0..self.rng.random_range(1..=most) {
            command.push(self.element());
        }
        command
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from.choose(&mut self.rng).expect("something to choose")
    }

    fn key(&mut self) -> Vec<u8> {
        word(KEYS.choose(&mut self.rng).expect("a key"))
    }

    /// One of a few, so that the same ones meet again.
    fn element(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..20) {
            0 => Vec::new(),
            1 => b"\x00\xff\r\n".to_vec(),
            2..12 => word(&self.rng.random_range(0..20).to_string()),
            _ => word(&format!("e{}", self.rng.random_range(0..20))),
        }
    }

    fn number(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..12) {
            0 => word(self.pick(&["x", "-1", "1.5", "9223372036854775807", "inf", "1e3", ""])),
            _ => word(&self.rng.random_range(0..12).to_string()),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..4) {
            0 => {
                let mut bytes = vec![0; self.rng.random_range(0..80)];
                self.rng.fill_bytes(&mut bytes);
                bytes
            }
            _ => self.number(),
        }
    }
}

fn word(word: &str) -> Vec<u8> {
    word.as_bytes().to_vec()
}

/// What the keys hold: where one is of another type, both answer the same error.
fn state() -> Vec<Vec<Vec<u8>>> {
    let questions = ["TYPE", "SMEMBERS", "SCARD", "HGETALL", "HLEN", "PEXPIRETIME"];
    let of_key = |key: &&str| questions.map(|question| vec![word(question), word(key)]);
    KEYS.iter().flat_map(of_key).chain([vec![word("KEYS"), word("*")], vec![word("DBSIZE")]]).collect()
}

#[test]
fn twelve_thousand_random_commands_on_hashes_and_sets() {
    let mut duel = Duel::start();
    let mut generator = Generator { rng: rng() };
    for round in 1..=COMMANDS / ROUND {
        duel.stream((0..ROUND).map(|_| generator.command()).collect());
        duel.stream(state());
        if round == COMMANDS / ROUND / 2 {
            duel.crash();
            duel.stream(state());
        }
    }
}
