//! What may pile up for clients that do not read: `client-output-buffer-limit`. Where it is kept: [`crate::net::output`].

use super::cell::{Cell, Typed};
use super::value::{ValueError, parse_size};

/// The classes, by the names that CONFIG GET answers, with other names for them.
const CLASSES: [(&str, &[&str]); 3] =
    [("normal", &["normal"]), ("slave", &["slave", "replica"]), ("pubsub", &["pubsub"])];

/// Limits of one class.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct OutputLimit {
    /// Bytes beyond which a client is closed at once; 0 = no limit.
    pub hard: usize,
    /// Bytes beyond which it is closed if they stay so for long; 0 = no limit.
    pub soft: usize,
    /// How long that is.
    pub seconds: u64,
}

impl OutputLimit {
    /// Whether there is none.
    pub fn is_off(&self) -> bool {
        self.hard == 0 && self.soft == 0
    }
}

/// Limits of all classes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct OutputLimits {
    /// Clients that do not listen to channels.
    pub normal: OutputLimit,
    /// Replicas that are fed over the client port, as Redis's are: there are none.
    pub slave: OutputLimit,
    /// Clients that listen to channels.
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    /// Reads the classes that are given, with sizes as people write them, and writes them with sizes in bytes.
    pub(super) fn normalize(text: &str) -> Result<String, ValueError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (rules, []) = words.as_chunks::<4>() else {
            return Err(ValueError::NotOutputLimits("Wrong number of arguments in buffer limit configuration."));
        };
        let mut out: Vec<String> = Vec::new();
        for [class, hard, soft, seconds] in rules {
            let known = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(class));
            let (class, _) = CLASSES
                .iter()
                .find(|(_, names)| known(names))
                .ok_or(ValueError::NotOutputLimits("Invalid client class specified in buffer limit configuration."))?;
            let malformed = ValueError::NotOutputLimits(
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
            );
            let (Ok(hard), Ok(soft), Ok(seconds)) = (parse_size(hard), parse_size(soft), seconds.parse::<u32>()) else {
                return Err(malformed);
            };
            out.push(format!("{class} {hard} {soft} {seconds}"));
        }
        Ok(out.join(" "))
    }

    /// What `old` becomes when `new` is set: classes that are not given keep their limits. Both are normalized.
    pub(super) fn merge(old: &str, new: &str) -> String {
        let rule = |text: &str, class: &str| {
            let words: Vec<&str> = text.split(' ').collect();
            // Of a class that is given twice the last counts.
            words.chunks(4).rfind(|rule| rule.first() == Some(&class)).map(|rule| rule.join(" "))
        };
        let rules = CLASSES.iter().filter_map(|(class, _)| rule(new, class).or_else(|| rule(old, class)));
        rules.collect::<Vec<_>>().join(" ")
    }

    pub(super) fn parse(normalized: &str) -> OutputLimits {
        let mut limits = OutputLimits::default();
        let words: Vec<&str> = normalized.split(' ').collect();
        for [class, hard, soft, seconds] in words.as_chunks::<4>().0 {
            let limit = OutputLimit {
                hard: hard.parse().unwrap_or_default(),
                soft: soft.parse().unwrap_or_default(),
                seconds: seconds.parse().unwrap_or_default(),
            };
            match *class {
                "normal" => limits.normal = limit,
                "slave" => limits.slave = limit,
                _ => limits.pubsub = limit,
            }
        }
        limits
    }
}

impl Typed for OutputLimits {
    fn read(cell: &Cell) -> Self {
        cell.limits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";

    #[test]
    fn classes_that_are_not_given_stay() {
        let new = OutputLimits::normalize("PubSub 1mb 2k 7 replica 1 2 3").unwrap();
        let merged = OutputLimits::merge(DEFAULT, &new);
        assert_eq!(merged, "normal 0 0 0 slave 1 2 3 pubsub 1048576 2048 7");
        assert_eq!(OutputLimits::parse(&merged).pubsub, OutputLimit { hard: 1 << 20, soft: 2048, seconds: 7 });
        assert_eq!(OutputLimits::merge(DEFAULT, DEFAULT), DEFAULT);
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for text in ["normal 0 0", "master 0 0 0", "normal x 0 0", "normal 0 0 -1", "normal -1 0 0"] {
            assert!(matches!(OutputLimits::normalize(text), Err(ValueError::NotOutputLimits(_))), "{text}");
        }
    }
}
