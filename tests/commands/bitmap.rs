//! Bit commands.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::common::rng;
use crate::duel::Duel;

#[test]
fn single_bits() {
    Duel::start().script(
        r#"
        SETBIT k 7 1
        GET k
        SETBIT k 7 1
        SETBIT k 7 0
        GET k
        SETBIT k 100 0
        STRLEN k
        SETBIT k 100 1
        GETBIT k 100
        GETBIT k 101
        GETBIT k 4294967295
        GETBIT none 5
        SETBIT zero 0 0
        GET zero
        SET text "foo"
        SETBIT text 1 0
        GET text
        SET number 1
        SETBIT number 6 1
        GET number
        SET k2 v EX 1000
        SETBIT k2 3 1
        ~TTL k2
        SETBIT k 4294967296 1
        SETBIT k 4294967295999 1
        SETBIT k -1 1
        SETBIT k x 1
        SETBIT k 01 1
        SETBIT k "" 1
        SETBIT k #1 1
        SETBIT k 1 2
        SETBIT k 1 -1
        SETBIT k 1 x
        SETBIT k 1 01
        SETBIT k 1 ""
        SETBIT k 1
        GETBIT k -1
        GETBIT k 4294967296
        GETBIT k x
        GETBIT k
        SETBIT big 8000000 1
        STRLEN big
        BITCOUNT big
        BITPOS big 1
        BITPOS big 0
        "#,
    );
}

#[test]
fn counting_and_finding() {
    Duel::start().script(
        r#"
        SET k foobar
        SET empty ""
        SET ones "\xff\xff\xff"
        SET zeros "\x00\x00\x00"
        SET mixed "\x00\xff\xf0\x00"
        BITCOUNT k
        BITCOUNT k 0 0
        BITCOUNT k 1 1 BYTE
        BITCOUNT k 5 30 BIT
        BITCOUNT k 5 30 bit
        BITCOUNT k -5 -1 BIT
        BITCOUNT k -2 -1
        BITCOUNT k -1 -2
        BITCOUNT k -1 -2 FOO
        BITCOUNT k 3 1
        BITCOUNT k 0 -100
        BITCOUNT k -100 100 BIT
        BITCOUNT k 0
        BITCOUNT k 0 1 FOO
        BITCOUNT k 0 1 BIT BIT
        BITCOUNT k x 1
        BITCOUNT k 0 x
        BITCOUNT k 0 9223372036854775807
        BITCOUNT k -9223372036854775808 -1
        BITCOUNT k -9223372036854775808 9223372036854775807 BIT
        BITCOUNT none
        BITCOUNT none 0
        BITCOUNT none x y z
        BITCOUNT empty 0 -1
        BITCOUNT
        BITPOS k 1
        BITPOS k 0
        BITPOS none 1
        BITPOS none 0
        BITPOS none 0 x
        BITPOS empty 0
        BITPOS empty 1
        BITPOS empty 0 0 -1
        BITPOS ones 0
        BITPOS ones 0 0
        BITPOS ones 0 1
        BITPOS ones 0 3
        BITPOS ones 0 0 -1
        BITPOS ones 0 0 100
        BITPOS ones 0 0 -1 BIT
        BITPOS ones 0 5 6 BIT
        BITPOS ones 1 5 6 BIT
        BITPOS zeros 1
        BITPOS zeros 1 0 -1 BIT
        BITPOS zeros 0 9 9 BIT
        BITPOS zeros 0 -1
        BITPOS mixed 1
        BITPOS mixed 0 1
        BITPOS mixed 0 1 1
        BITPOS mixed 0 8 20 BIT
        BITPOS mixed 0 8 19 BIT
        BITPOS mixed 1 9 9 BIT
        BITPOS mixed 1 21 -1 BIT
        BITPOS mixed 1 -100 -100 BIT
        BITPOS mixed 1 2 1
        BITPOS mixed 2
        BITPOS mixed x
        BITPOS mixed -1
        BITPOS none 2
        BITPOS mixed 1 x
        BITPOS mixed 1 0 x
        BITPOS mixed 1 0 x FOO
        BITPOS mixed 1 0 1 FOO
        BITPOS mixed 1 0 1 BIT 1
        BITPOS mixed
        "#,
    );
}

#[test]
fn combining() {
    Duel::start().script(
        r#"
        SET a "\xf0\x0f\xaa"
        SET b "\xff"
        SET c foobar EX 1000
        SET empty ""
        BITOP AND r a b
        GET r
        BITOP OR r a b c
        GET r
        BITOP xor r a b c a
        GET r
        BITOP NOT r a
        GET r
        BITOP NOT r a b
        BITOP NOT r
        BITOP FOO r a
        BITOP AND r a none
        GET r
        BITOP OR r none a
        GET r
        BITOP AND c c
        TTL c
        BITOP AND c none
        EXISTS c
        BITOP OR r none empty
        EXISTS r
        BITOP OR r none
        BITOP NOT a a
        GET a
        BITOP AND r
        BITOP AND
        "#,
    );
}

#[test]
fn fields() {
    Duel::start().script(
        r#"
        BITFIELD k
        BITFIELD k SET u8 0 255 GET u8 0 GET i8 0 GET u4 2 GET i1 0
        GET k
        BITFIELD k INCRBY u8 0 1 INCRBY i8 8 -1 INCRBY i8 #2 127 INCRBY i8 #2 1
        BITFIELD k OVERFLOW SAT INCRBY u8 0 -5 INCRBY u8 0 300 OVERFLOW FAIL INCRBY u8 0 1 OVERFLOW WRAP INCRBY u8 0 1
        BITFIELD k OVERFLOW FAIL SET u8 0 256 SET u8 0 -1 SET i8 0 128 SET i8 0 -129 SET i8 0 -128
        BITFIELD k OVERFLOW SAT SET u8 0 256 SET u8 0 -1 SET i8 0 128 SET i8 0 -129
        BITFIELD k SET u63 3 -1 GET u63 3 GET i64 3 INCRBY u63 3 9223372036854775807
        BITFIELD k SET i64 5 -9223372036854775808 INCRBY i64 5 -1 OVERFLOW SAT INCRBY i64 5 1
        BITFIELD k GET u8 100000 GET i64 4294967288
        BITFIELD grow OVERFLOW FAIL SET u8 80 300
        STRLEN grow
        BITFIELD grow SET u1 200 0
        STRLEN grow
        GET k
        BITFIELD k GET u64 0
        BITFIELD k GET i65 0
        BITFIELD k GET u0 0
        BITFIELD k GET i0 0
        BITFIELD k GET 8 0
        BITFIELD k GET x8 0
        BITFIELD k GET "" 0
        BITFIELD k GET I8 0
        BITFIELD k GET u8 -1
        BITFIELD k GET u8 4294967296
        BITFIELD k GET u8 #536870912
        BITFIELD k GET u8 #
        BITFIELD k GET u8 ##1
        BITFIELD k GET u8
        BITFIELD k SET u8 0
        BITFIELD k SET u8 0 x
        BITFIELD k SET u8 x x
        BITFIELD k OVERFLOW
        BITFIELD k OVERFLOW FOO
        BITFIELD k FOO
        BITFIELD k SET u8 0 1 FOO
        BITFIELD
        BITFIELD_RO k GET u8 0 GET i5 3
        BITFIELD_RO none GET u8 0
        BITFIELD_RO none
        BITFIELD_RO k SET u8 0 1
        BITFIELD_RO k OVERFLOW SAT GET u8 0
        BITFIELD_RO k GET u8 0 INCRBY u8 0 1
        SET t v EX 1000
        BITFIELD t INCRBY u8 0 1
        ~TTL t
        GET t
        "#,
    );
}

const KEYS: [&str; 5] = ["a", "b", "c", "{t}d", "{t}e"];
const COMMANDS: usize = 10_000;
const ROUND: usize = 2_000;

struct Generator(StdRng);

impl Generator {
    fn command(&mut self) -> Vec<Vec<u8>> {
        let (a, b, c) = (self.pick(&KEYS), self.pick(&KEYS), self.pick(&KEYS));
        let mut words = match self.0.random_range(0..14) {
            0..3 => format!("SETBIT {a} {} {}", self.offset(), self.0.random_range(0..2)),
            3 => format!("GETBIT {a} {}", self.offset()),
            4 | 5 => format!("BITCOUNT {a} {}", self.range()),
            6 | 7 => format!("BITPOS {a} {} {}", self.0.random_range(0..2), self.range()),
            8 => format!("BITOP {} {a} {b} {c}", self.pick(&["AND", "OR", "XOR"])),
            9 => format!("BITOP NOT {a} {b}"),
            10 | 11 => {
                let steps: Vec<String> = (0..self.0.random_range(0..6)).map(|_| self.step()).collect();
                format!("BITFIELD {a} {}", steps.join(" "))
            }
            12 => format!("BITFIELD_RO {a} GET {} {}", self.kind(), self.offset()),
            _ => match self.0.random_range(0..4) {
                0 => format!("DEL {a}"),
                1 => format!("EXPIRE {a} 100000"),
                2 => format!("SETRANGE {a} {} {}", self.0.random_range(0..60), "\u{7f}".repeat(5)),
                _ => format!("GET {a}"),
            },
        };
        words = words.trim().to_owned();
        words.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn step(&mut self) -> String {
        let (kind, offset) = (self.kind(), self.offset());
        let offset = if self.0.random_range(0..3) == 0 { format!("#{}", offset % 40) } else { offset.to_string() };
        match self.0.random_range(0..5) {
            0 => format!("GET {kind} {offset}"),
            1 => format!("SET {kind} {offset} {}", self.number()),
            2 | 3 => format!("INCRBY {kind} {offset} {}", self.number()),
            _ => format!("OVERFLOW {}", self.pick(&["WRAP", "SAT", "FAIL"])),
        }
    }

    fn kind(&mut self) -> String {
        let (sign, most) = *[("i", 64), ("u", 63)].choose(&mut self.0).expect("a sign");
        format!("{sign}{}", self.0.random_range(1..=most))
    }

    fn number(&mut self) -> i64 {
        let shift = self.0.random_range(0..64);
        self.0.random::<i64>() >> shift
    }

    fn offset(&mut self) -> u32 {
        if self.0.random_range(0..50) == 0 { 300_000 } else { self.0.random_range(0..500) }
    }

    fn range(&mut self) -> String {
        let bound = |rng: &mut StdRng, most: i32| rng.random_range(-most..most);
        match self.0.random_range(0..4) {
            0 => String::new(),
            1 => format!("{} {} BIT", bound(&mut self.0, 600), bound(&mut self.0, 600)),
            2 => format!("{} {} BYTE", bound(&mut self.0, 70), bound(&mut self.0, 70)),
            _ => format!("{} {}", bound(&mut self.0, 70), bound(&mut self.0, 70)),
        }
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from.choose(&mut self.0).expect("something to choose")
    }
}

#[test]
fn a_random_stream() {
    let mut duel = Duel::start();
    let keys: Vec<Vec<u8>> = KEYS.iter().map(|key| key.as_bytes().to_vec()).collect();
    let mut generator = Generator(rng());
    for round in 1..=COMMANDS / ROUND {
        duel.stream((0..ROUND).map(|_| generator.command()).collect());
        duel.state(0..1, &keys[..0]);
        let gets = keys.iter().map(|key| vec![b"GET".to_vec(), key.clone()]).collect();
        duel.stream(gets);
        if round == COMMANDS / ROUND / 2 {
            duel.crash();
            duel.stream(keys.iter().map(|key| vec![b"GET".to_vec(), key.clone()]).collect());
        }
    }
}
