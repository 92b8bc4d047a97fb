//! The nodes above this one in a chain of replicas, and finding that the chain is a circle.
//!
//! A replica learns from its master who is above that: from the answer to MetaSync, and from every keepalive, since it
//! may change. A node refuses whoever is above it as a replica. Where the last links of a circle are closed at the same time, what the
//! keepalives carry goes round until each node finds itself above itself.

use super::proto::Hop;

/// A chain is followed no further than this.
const MAX_HOPS: usize = 64;

/// The nodes above the one with the run id `own`: its master, and what that `reported`. The second value says that it is itself
/// among them; they end before it then.
pub(super) fn above(own: &str, master: &Hop, reported: &[Hop]) -> (Vec<Hop>, bool) {
    let mut chain: Vec<Hop> = Vec::new();
    for hop in std::iter::once(master).chain(reported).take(MAX_HOPS) {
        if hop.run_id == own {
            return (chain, true);
        }
        // A circle above: round it once is enough.
        if chain.iter().any(|known| known.run_id == hop.run_id) {
            break;
        }
        chain.push(hop.clone());
    }
    (chain, false)
}

/// The addresses of a chain, for a message.
pub(super) fn addresses(chain: &[Hop]) -> String {
    chain.iter().map(|hop| hop.address.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(name: &str) -> Hop {
        Hop { run_id: name.into(), address: format!("{name}:1") }
    }

    #[test]
    fn finds_itself_and_stops_at_other_circles() {
        let names = |names: &[&str]| names.iter().map(|n| hop(n)).collect::<Vec<_>>();
        let cases: [(&[&str], &[&str], bool); 6] = [
            (&[], &["m"], false),
            (&["x", "y"], &["m", "x", "y"], false),
            (&["own"], &["m"], true),
            (&["x", "own", "m"], &["m", "x"], true),
            (&["x", "m", "x", "m"], &["m", "x"], false),
            (&["m", "own"], &["m"], false),
        ];
        for (reported, expected, circle) in cases {
            assert_eq!(above("own", &hop("m"), &names(reported)), (names(expected), circle), "{reported:?}");
        }
        let long: Vec<Hop> = (0..1000).map(|n| hop(&n.to_string())).collect();
        assert_eq!(above("own", &hop("m"), &long).0.len(), MAX_HOPS);
    }
}
