//! Glob patterns over bytes, as in KEYS, SCAN MATCH and CONFIG GET.
//!
//! `*` any run of bytes, `?` any byte, `[abc]` `[a-z]` `[^a]` one byte of a set, `\x` the byte `x`.
//! Odd patterns mean what they mean in Redis 7: an unclosed `[` runs to the end of the pattern, a
//! range may be written backwards, its bytes compare as signed numbers (as Redis does on x86), and the empty
//! text matches the empty pattern only; see [`matches_everything`] for the one exception callers make.

/// Runs of `*` that a match may go through, a last one not counted; Redis 7.0.15 answers that nothing matches a pattern
/// with more.
const MAX_STARS: usize = 1000;

/// Whether `pattern` is the lone `*`, which callers take as "no pattern" (it then covers the empty key too).
pub fn matches_everything(pattern: &[u8]) -> bool {
    pattern == b"*"
}

/// Whether `text` matches `pattern`, byte for byte.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    run(pattern, text, false)
}

/// Whether `text` matches `pattern` when ASCII case is ignored.
pub fn matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    run(pattern, text, true)
}

/// The bytes that every text matching `pattern` begins with.
pub fn literal_prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    loop {
        rest = match *rest {
            [b'\\', literal, ref rest @ ..] => {
                prefix.push(literal);
                rest
            }
            [] | [b'*' | b'?' | b'[', ..] => return prefix,
            [literal, ref rest @ ..] => {
                prefix.push(literal);
                rest
            }
        };
    }
}

/// Each `*` need only be retried until the next one is reached, so the work is bounded by
/// `pattern.len() * text.len()` and no pattern is exponential.
fn run(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    // Where to resume when a match after the last `*` fails: past the star, and the text it swallows so far.
    let mut retry: Option<(usize, usize)> = None;
    let mut stars = 0;
    while let Some(&byte) = text.get(t) {
        let rest = pattern.get(p..).unwrap_or_default();
        if rest.first() == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            match pattern.get(p) {
                None => return true,
                Some(b'*') => {}
                Some(_) if stars == MAX_STARS => return false,
                Some(_) => stars += 1,
            }
            continue;
        }
        match one(rest, byte, nocase) {
            Some(used) => {
                p += used;
                t += 1;
            }
            None => match retry {
                Some((star, swallowed)) => {
                    p = star;
                    t = swallowed + 1;
                    retry = Some((star, t));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the first element of `pattern`, which is no `*`; the length of the element if it matches.
fn one(pattern: &[u8], byte: u8, nocase: bool) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref set @ ..] => {
            let (matched, used) = one_of(set, byte, nocase);
            matched.then_some(used + 1)
        }
        [b'\\', literal, ..] => same(literal, byte, nocase).then_some(2),
        [literal, ..] => same(literal, byte, nocase).then_some(1),
    }
}

/// Matches one byte against the set that follows a `[`; with the set's length, its `]` included.
fn one_of(set: &[u8], byte: u8, nocase: bool) -> (bool, usize) {
    let negated = set.first() == Some(&b'^');
    let mut used = usize::from(negated);
    let mut matched = false;
    loop {
        let rest = set.get(used..).unwrap_or_default();
        used += match *rest {
            [] => break,
            // An escaped byte keeps its case even where case is ignored.
            [b'\\', literal, ..] => {
                matched |= literal == byte;
                2
            }
            [b']', ..] => {
                used += 1;
                break;
            }
            [from, b'-', to, ..] => {
                matched |= in_range(from, to, byte, nocase);
                3
            }
            [literal, ..] => {
                matched |= same(literal, byte, nocase);
                1
            }
        };
    }
    (matched != negated, used)
}

fn same(a: u8, b: u8, nocase: bool) -> bool {
    if nocase { a.eq_ignore_ascii_case(&b) } else { a == b }
}

fn in_range(from: u8, to: u8, byte: u8, nocase: bool) -> bool {
    // The ends are put in order before their case is dropped.
    let signed = |byte: u8| byte.cast_signed();
    let (from, to) = if signed(from) <= signed(to) { (from, to) } else { (to, from) };
    let fold = |byte: u8| signed(if nocase { byte.to_ascii_lowercase() } else { byte });
    (fold(from)..=fold(to)).contains(&fold(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_wildcards() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "abc", true),
            ("*", "", false),
            ("**", "", false),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "a", true),
            ("a*b", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abbcd", false),
            ("*b*d", "abcbd", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("a\\", "a\\", true),
            ("*.*.?", "a.b.c.d", true),
            ("*abcab*", "abcabdabcab", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn sets() {
        for (pattern, text, expected) in [
            ("h[ae]llo", "hello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("[a-c]", "b", true),
            ("[c-a]", "b", true),
            ("[a-c]", "d", false),
            ("[\\]]", "]", true),
            ("[]", "]", false),
            ("[^]", "x", true),
            ("[", "[", false),
            ("[^", "x", true),
            ("[abc", "b", true),
            ("[abc", "d", false),
            ("[a-]", "a", true),
            ("[a-]x", "x", true),
            ("[a-", "-", true),
            ("[\\", "\\", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} {text:?}");
        }
        assert!(matches(b"[\x80-\xff]", b"\x90"));
        assert!(!matches(b"[a-z]", b"\xff"));
    }

    #[test]
    fn ignoring_case() {
        assert!(matches_nocase(b"MAX*", b"maxclients"));
        assert!(matches_nocase(b"[A-C]X", b"bx"));
        assert!(!matches_nocase(b"[\\A]", b"a"));
        assert!(!matches(b"A", b"a"));
    }

    #[test]
    fn literal_prefixes() {
        for (pattern, prefix) in [
            ("user:*", "user:"),
            ("a\\*b?", "a*b"),
            ("", ""),
            ("*a", ""),
            ("x[ab]", "x"),
            ("plain", "plain"),
            ("a\\", "a\\"),
        ] {
            assert_eq!(literal_prefix(pattern.as_bytes()), prefix.as_bytes(), "{pattern}");
        }
    }

    #[test]
    fn no_pattern_is_exponential() {
        let pattern = b"a*".repeat(1000);
        let text = b"a".repeat(3000);
        assert!(matches(&pattern, &text));
        assert!(!matches(&[pattern, b"b".to_vec()].concat(), &text));
    }

    #[test]
    fn too_many_stars_match_nothing() {
        let text = b"a".repeat(3000);
        for (stars, expected) in [(MAX_STARS, true), (MAX_STARS + 1, false), (50_000, false)] {
            let pattern = b"*?".repeat(stars);
            assert_eq!(matches(&pattern, &text), expected, "{stars}");
            let pattern = [b"**?".repeat(stars), b"*".to_vec()].concat();
            assert_eq!(matches(&pattern, &text), expected, "{stars} and a last one");
        }
    }
}
