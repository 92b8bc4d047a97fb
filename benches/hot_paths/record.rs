//! Records of the log: an effect into a body, a body into a record with checksum and chain, and back as a replica and recovery read them.
//! To compare with: `commit`, of which the first two are a part, and `apply`, which begins with the rest. One iteration is one run of
//! records.

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use haypile::binlog::{Draft, Position, RunDecoder, decode_body};
use haypile::keyspace::Effect;

use crate::node::key;

/// Records of a run: those of a pipeline.
const RUN: usize = 16;
const TERM: u32 = 1;
/// Unix ms.
const TIME: u64 = 1_700_000_000_000;
/// Bytes of a value.
const VALUES: [usize; 2] = [100, 4096];

fn effects(value: usize) -> Vec<Effect> {
    let value = Bytes::from(vec![b'v'; value]);
    (0..RUN as u64).map(|n| Effect::Set { key: key(n), value: value.clone(), expire_at: None }).collect()
}

/// Drafts as commands leave them for the commit.
fn drafts(value: usize) -> Vec<Draft> {
    let draft = |effect: &Effect| {
        let mut draft = Draft::new(TIME);
        effect.encode(draft.effects());
        draft
    };
    effects(value).iter().map(draft).collect()
}

/// A run as a master sends it.
fn run(value: usize) -> Bytes {
    let (mut position, mut out) = (Position::START, Vec::new());
    drafts(value).iter().for_each(|draft| draft.encode(TERM, &mut position, &mut out));
    out.into()
}

#[divan::bench(args = VALUES)]
fn draft_effects(bencher: Bencher, value: usize) {
    let effects = effects(value);
    bencher.counter(ItemsCount::new(RUN)).counter(BytesCount::new(RUN * value)).bench(|| {
        for effect in &effects {
            let mut draft = Draft::new(TIME);
            effect.encode(draft.effects());
            black_box(draft);
        }
    });
}

/// Body, checksum, header, chain.
#[divan::bench(args = VALUES)]
fn encode(bencher: Bencher, value: usize) {
    let drafts = drafts(value);
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(RUN)).counter(BytesCount::new(run(value).len())).bench_local(|| {
        let mut position = Position::START;
        out.clear();
        drafts.iter().for_each(|draft| draft.encode(TERM, &mut position, &mut out));
        position
    });
}

/// Everything checked, nothing looked into.
#[divan::bench(args = VALUES)]
fn decode(bencher: Bencher, value: usize) {
    let run = run(value);
    bencher.counter(ItemsCount::new(RUN)).counter(BytesCount::new(run.len())).bench(|| {
        let mut records = 0;
        for record in RunDecoder::new(black_box(&run), Position::START) {
            black_box(record.expect("a record"));
            records += 1;
        }
        assert_eq!(records, RUN);
    });
}

/// The effects of records that were checked.
#[divan::bench(args = VALUES)]
fn decode_effects(bencher: Bencher, value: usize) {
    let run = run(value);
    let records = RunDecoder::new(&run, Position::START);
    let bodies: Vec<Bytes> = records.map(|record| run.slice_ref(record.expect("a record").body)).collect();
    bencher.counter(ItemsCount::new(RUN)).bench(|| {
        for body in &bodies {
            let (_, mut effects) = decode_body(body).expect("a body");
            let mut args = Vec::new();
            while effects.next_into(&mut args).expect("effects") {
                black_box(Effect::decode(body, &args).expect("an effect"));
            }
        }
    });
}
