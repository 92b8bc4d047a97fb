//! Fuzzing under proptest: valid inputs are mutated, and what makes a target answer in a new way is mutated further.
//!
//! `HAYPILE_FUZZ_SECONDS` says how long each target runs, `HAYPILE_TEST_SEED` repeats a run. An input that fails is shrunk and printed
//! as hexadecimal digits; kept as a line of `tests/fuzz/found/<target>` it is tried first from then on.

#![allow(dead_code, reason = "the library's tests and the black-box tests use their own parts")]

use std::collections::HashSet;
use std::fmt::Debug;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// How long a target runs when nothing is said.
const DEFAULT_SECONDS: f64 = 1.0;
/// Inputs between two looks at the clock.
const ROUND: u32 = 64;
/// Inputs that are kept to be mutated.
const MAX_CORPUS: usize = 4096;
/// Longest input, bytes.
const MAX_LEN: usize = 256 << 10;
/// An input that takes longer is a fault by itself, on however busy a machine.
const TOO_LONG: Duration = Duration::from_secs(30);

/// How a target answered: inputs that are answered in the same way are of the same interest.
pub type Answer = u64;

/// The answer that a value stands for.
pub fn answer(value: impl Hash) -> Answer {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The answer of a result: what kind of error, or roughly how much was read.
pub fn answer_of<T, E: Debug>(result: &Result<T, E>, size: impl Fn(&T) -> usize) -> Answer {
    match result {
        Ok(value) => answer(("ok", size(value).checked_ilog2())),
        // Numbers and names in an error would make each of them new.
        Err(error) => {
            let text = format!("{error:?}");
            let kept = text.split('"').step_by(2).flat_map(str::chars).filter(|c| !c.is_ascii_digit());
            answer(kept.take(80).collect::<String>())
        }
    }
}

/// One step away from a valid input.
#[derive(Clone, Debug)]
enum Mutation {
    Flip { at: Index, bit: u8 },
    Byte { at: Index, byte: u8 },
    Number { at: Index, width: usize, value: u64, big_endian: bool },
    Truncate { to: Index },
    Remove { from: Index, len: usize },
    Repeat { from: Index, len: usize, times: usize },
    Insert { at: Index, bytes: Vec<u8> },
    Token { at: Index, which: Index, replace: bool },
    Splice { other: Index, from: Index, len: usize, at: Index },
}

/// Lengths and counts that formats trip over.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    0x3f,
    0x40,
    0x7f,
    0x80,
    0xfe,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let number = prop_oneof![3 => proptest::sample::select(&EDGES[..]), 1 => any::<u64>()];
    let width = proptest::sample::select(&[1usize, 2, 4, 8][..]);
    prop_oneof![
        3 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte { at, byte }),
        3 => (any::<Index>(), width, number, any::<bool>())
            .prop_map(|(at, width, value, big_endian)| Mutation::Number { at, width, value, big_endian }),
        1 => any::<Index>().prop_map(|to| Mutation::Truncate { to }),
        1 => (any::<Index>(), 1usize..64).prop_map(|(from, len)| Mutation::Remove { from, len }),
        1 => (any::<Index>(), 1usize..64, 1usize..40)
            .prop_map(|(from, len, times)| Mutation::Repeat { from, len, times }),
        1 => (any::<Index>(), proptest::collection::vec(any::<u8>(), 1..24))
            .prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        2 => (any::<Index>(), any::<Index>(), any::<bool>())
            .prop_map(|(at, which, replace)| Mutation::Token { at, which, replace }),
        2 => (any::<Index>(), any::<Index>(), 1usize..4096, any::<Index>())
            .prop_map(|(other, from, len, at)| Mutation::Splice { other, from, len, at }),
    ]
}

impl Mutation {
    fn apply(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>], tokens: &[Vec<u8>]) {
        // Positions up to and with the end.
        let place = |index: &Index, input: &[u8]| index.index(input.len() + 1);
        let overwrite = |input: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            let end = (at + bytes.len()).min(input.len());
            input.splice(at..end, bytes.iter().copied());
        };
        match self {
            Mutation::Flip { at, bit } if !input.is_empty() => {
                let at = at.index(input.len());
                input[at] ^= 1 << bit;
            }
            Mutation::Byte { at, byte } if !input.is_empty() => {
                let at = at.index(input.len());
                input[at] = *byte;
            }
            Mutation::Flip { .. } | Mutation::Byte { .. } => {}
            Mutation::Number { at, width, value, big_endian } => {
                let bytes = if *big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
                let bytes = if *big_endian { &bytes[8 - width..] } else { &bytes[..*width] };
                overwrite(input, place(at, input), bytes);
            }
            Mutation::Truncate { to } => input.truncate(place(to, input)),
            Mutation::Remove { from, len } => {
                let from = place(from, input);
                let end = (from + len).min(input.len());
                input.drain(from..end);
            }
            Mutation::Repeat { from, len, times } => {
                let from = place(from, input);
                let part = input[from..(from + len).min(input.len())].repeat(*times);
                input.splice(from..from, part);
            }
            Mutation::Insert { at, bytes } => {
                let at = place(at, input);
                input.splice(at..at, bytes.iter().copied());
            }
            Mutation::Token { at, which, replace } => {
                if !tokens.is_empty() {
                    let at = place(at, input);
                    let token = which.get(tokens);
                    if *replace {
                        overwrite(input, at, token);
                    } else {
                        input.splice(at..at, token.iter().copied());
                    }
                }
            }
            Mutation::Splice { other, from, len, at } => {
                let other = other.get(corpus);
                let from = place(from, other);
                let part = &other[from..(from + len).min(other.len())];
                overwrite(input, place(at, input), part);
            }
        }
        input.truncate(MAX_LEN);
    }
}

/// Mutates single inputs, for targets that do not take them from here.
pub struct Mutator {
    runner: TestRunner,
}

impl Mutator {
    /// What it does follows from the seed.
    pub fn new(seed: u64) -> Mutator {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Mutator {
            runner: TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)),
        }
    }

    /// The input, one to three steps away.
    pub fn mutate(&mut self, input: &[u8], tokens: &[Vec<u8>]) -> Vec<u8> {
        let strategy = proptest::collection::vec(mutation(), 1..4);
        let mutations = strategy.new_tree(&mut self.runner).expect("a strategy that rejects nothing").current();
        let corpus = [input.to_vec()];
        let mut output = input.to_vec();
        mutations.iter().for_each(|mutation| mutation.apply(&mut output, &corpus, tokens));
        output
    }
}

/// How long each target runs.
pub fn budget() -> Duration {
    let seconds = std::env::var("HAYPILE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(DEFAULT_SECONDS))
}

/// A target: how inputs for it look.
pub struct Fuzz {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    tokens: Vec<Vec<u8>>,
}

impl Fuzz {
    /// Inputs are made from these, which are valid.
    pub fn new(name: &'static str, seeds: Vec<Vec<u8>>) -> Fuzz {
        assert!(!seeds.is_empty(), "{name}: no seeds");
        Fuzz { name, seeds, tokens: Vec::new() }
    }

    /// Words of the format, to be put in anywhere.
    pub fn tokens<T: AsRef<[u8]>>(mut self, tokens: impl IntoIterator<Item = T>) -> Fuzz {
        self.tokens.extend(tokens.into_iter().map(|token| token.as_ref().to_vec()));
        self
    }

    /// Gives inputs to `check`, which panics when one is not taken well, until the time is over.
    #[track_caller]
    pub fn run(self, check: impl Fn(&[u8]) -> Answer) {
        let Fuzz { name, seeds, tokens } = self;
        let began = Instant::now();
        let budget = budget();
        let seed = seed();
        println!("fuzz {name}: seed {seed} (HAYPILE_TEST_SEED={seed} repeats it)");

        let mut known = HashSet::new();
        let mut corpus = seeds;
        corpus.extend(found(name));
        let watch = Watch::start(name);
        let check = |input: &[u8]| {
            watch.begins(input);
            let answer = check(input);
            watch.ended();
            answer
        };
        for input in &corpus {
            known.insert(check(input));
        }

        let config = Config { cases: ROUND, failure_persistence: None, max_shrink_time: 20_000, ..Config::default() };
        let strategy = (any::<Index>(), proptest::collection::vec(mutation(), 0..10));
        let mut inputs = 0;
        while began.elapsed() < budget {
            // A runner counts its inputs over all of its runs.
            let mut bytes = [0; 32];
            for (part, number) in bytes.chunks_mut(8).zip([seed, answer(name), u64::from(inputs)]) {
                part.copy_from_slice(&number.to_le_bytes());
            }
            let mut runner = TestRunner::new_with_rng(config.clone(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
            let fresh = std::cell::RefCell::new(Vec::new());
            let build = |(base, mutations): &(Index, Vec<Mutation>)| {
                let mut input = base.get(&corpus).clone();
                mutations.iter().for_each(|mutation| mutation.apply(&mut input, &corpus, &tokens));
                input
            };
            let result = runner.run(&strategy, |way| {
                let input = build(&way);
                let answer = check(&input);
                fresh.borrow_mut().push((answer, input));
                Ok(())
            });
            if let Err(error) = result {
                let TestError::Fail(reason, way) = error else { panic!("fuzz {name}: {error}") };
                panic!("fuzz {name}, seed {seed}: {reason}\n{}", line_for(name, &build(&way)));
            }
            inputs += ROUND;
            for (answer, input) in fresh.into_inner() {
                if known.insert(answer) && corpus.len() < MAX_CORPUS {
                    corpus.push(input);
                }
            }
        }
        println!(
            "fuzz {name}: {inputs} inputs in {:.1} s, {} ways to answer",
            began.elapsed().as_secs_f64(),
            known.len()
        );
    }
}

/// Ends the process when an input takes far too long.
struct Watch(Arc<Mutex<Option<Present>>>);

/// The input that is being checked, and since when.
type Present = (Instant, Vec<u8>);

impl Watch {
    fn start(name: &'static str) -> Watch {
        let present = Arc::new(Mutex::new(None::<Present>));
        let watched = Arc::downgrade(&present);
        std::thread::spawn(move || {
            while let Some(present) = watched.upgrade() {
                if let Some((since, input)) = &*present.lock().expect("no panic while it is held")
                    && since.elapsed() > TOO_LONG
                {
                    eprintln!("fuzz {name}: an input takes more than {TOO_LONG:?}\n{}", line_for(name, input));
                    std::process::abort();
                }
                drop(present);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Watch(present)
    }

    fn begins(&self, input: &[u8]) {
        *self.0.lock().expect("no panic while it is held") = Some((Instant::now(), input.to_vec()));
    }

    fn ended(&self) {
        *self.0.lock().expect("no panic while it is held") = None;
    }
}

fn line_for(name: &str, input: &[u8]) -> String {
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("a line for tests/fuzz/found/{name}:\n{hex}")
}

/// The seed of this run.
pub fn seed() -> u64 {
    let given = std::env::var("HAYPILE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(rand::random)
}

/// Inputs that once failed.
fn found(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found").join(name);
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(from_hex).collect()
}

fn from_hex(line: &str) -> Vec<u8> {
    let digits: Vec<u8> = line.chars().map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
