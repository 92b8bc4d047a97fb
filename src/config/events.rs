//! Which keyspace events are published: the classes of `notify-keyspace-events`.

use std::fmt;

use super::cell::{Cell, Typed};

/// A set of classes of keyspace events, and of the channels that events go to.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct EventClasses(u32);

impl EventClasses {
    /// To `__keyspace@<db>__:<key>`: K.
    pub const KEYSPACE: EventClasses = EventClasses(1);
    /// To `__keyevent@<db>__:<event>`: E.
    pub const KEYEVENT: EventClasses = EventClasses(1 << 1);
    /// Of keys of any type: DEL, EXPIRE, RENAME…: g.
    pub const GENERIC: EventClasses = EventClasses(1 << 2);
    /// Of strings: $.
    pub const STRING: EventClasses = EventClasses(1 << 3);
    /// Of lists: l.
    pub const LIST: EventClasses = EventClasses(1 << 4);
    /// Of sets: s.
    pub const SET: EventClasses = EventClasses(1 << 5);
    /// Of hashes: h.
    pub const HASH: EventClasses = EventClasses(1 << 6);
    /// Of sorted sets: z.
    pub const ZSET: EventClasses = EventClasses(1 << 7);
    /// A key's time came: x.
    pub const EXPIRED: EventClasses = EventClasses(1 << 8);
    /// A key had to go for lack of memory: e. Never happens here.
    pub const EVICTED: EventClasses = EventClasses(1 << 9);
    /// Of streams: t.
    pub const STREAM: EventClasses = EventClasses(1 << 10);
    /// A read did not find its key: m. Not part of A.
    pub const KEY_MISS: EventClasses = EventClasses(1 << 11);
    /// Of types that modules bring: d. There are none here.
    pub const MODULE: EventClasses = EventClasses(1 << 12);
    /// A key came to be: n. Not part of A.
    pub const NEW: EventClasses = EventClasses(1 << 13);
    /// A.
    pub const ALL: EventClasses = EventClasses(
        Self::GENERIC.0
            | Self::STRING.0
            | Self::LIST.0
            | Self::SET.0
            | Self::HASH.0
            | Self::ZSET.0
            | Self::EXPIRED.0
            | Self::EVICTED.0
            | Self::STREAM.0
            | Self::MODULE.0,
    );

    /// The letters of single classes, in the order that CONFIG GET answers them: those of [`ALL`](Self::ALL) first.
    const LETTERS: [(char, EventClasses); 14] = [
        ('g', Self::GENERIC),
        ('$', Self::STRING),
        ('l', Self::LIST),
        ('s', Self::SET),
        ('h', Self::HASH),
        ('z', Self::ZSET),
        ('x', Self::EXPIRED),
        ('e', Self::EVICTED),
        ('t', Self::STREAM),
        ('d', Self::MODULE),
        ('n', Self::NEW),
        ('K', Self::KEYSPACE),
        ('E', Self::KEYEVENT),
        ('m', Self::KEY_MISS),
    ];

    /// Reads letters; `None` when one of them is no class.
    pub(super) fn parse(text: &str) -> Option<EventClasses> {
        text.chars().try_fold(EventClasses::default(), |classes, letter| {
            let class = match letter {
                'A' => Self::ALL,
                letter => Self::LETTERS.iter().find(|(known, _)| *known == letter)?.1,
            };
            Some(EventClasses(classes.0 | class.0))
        })
    }

    /// Whether every class of `other` is among these.
    pub const fn has(self, other: EventClasses) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether an event of this class is published at all: it needs a channel to go to.
    pub const fn publishes(self, class: EventClasses) -> bool {
        self.has(class) && self.0 & (Self::KEYSPACE.0 | Self::KEYEVENT.0) != 0
    }

    pub(super) fn bits(self) -> i64 {
        i64::from(self.0)
    }

    pub(super) fn from_bits(bits: i64) -> EventClasses {
        EventClasses(u32::try_from(bits).unwrap_or_default())
    }
}

/// The letters, with `A` for all of its classes.
impl fmt::Display for EventClasses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.has(Self::ALL);
        if all {
            write!(f, "A")?;
        }
        Self::LETTERS
            .iter()
            .filter(|(_, class)| self.has(*class) && !(all && Self::ALL.has(*class)))
            .try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

impl Typed for EventClasses {
    fn read(cell: &Cell) -> Self {
        EventClasses::from_bits(cell.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_read_and_write() {
        for (input, output) in [
            ("", ""),
            ("gKE", "gKE"),
            ("$lshzxeKE", "$lshzxeKE"),
            ("KA", "AK"),
            ("EA", "AE"),
            ("g$lshzxetdKEmn", "AnKEm"),
        ] {
            assert_eq!(EventClasses::parse(input).unwrap().to_string(), output, "{input}");
        }
        assert!(EventClasses::parse("Kq").is_none());
    }

    #[test]
    fn an_event_needs_a_class_and_a_channel() {
        let classes = |text| EventClasses::parse(text).unwrap();
        assert!(classes("KA").publishes(EventClasses::LIST) && classes("El").publishes(EventClasses::LIST));
        assert!(!classes("A").publishes(EventClasses::LIST) && !classes("Kg").publishes(EventClasses::LIST));
        assert!(!classes("KEA").publishes(EventClasses::NEW) && !classes("KEA").publishes(EventClasses::KEY_MISS));
    }
}
