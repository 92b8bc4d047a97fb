//! Fuzzing of everything that reads bytes from outside or from disk, within one process. What is sent to a running server, and to a
//! replica by its master, is fuzzed in tests/fuzz.
//!
//! | target | what is mutated | what must hold besides that nothing panics |
//! | --- | --- | --- |
//! | `requests` | RESP and inline commands | in pieces as at once |
//! | `log_files` | the files of a binlog | recovery gives a prefix of what was written, or an error |
//! | `log_runs` | runs of records as a master sends them | what is decoded is a prefix |
//! | `record_bodies` | bodies of records | effects that decode encode to the same, and applying them leaves what can be read |
//! | `elements` | entries and elements of collections | reading and changing them ends |
//! | `dumps` | DUMP payloads, of every encoding | what is read is written and read again as the same, in bounded memory |
//! | `conf`, `node`, `current`, `listing`, `info` | files of lines | what is accepted is what would be written |

mod dump;
mod elements;
mod files;
mod log;
mod record;
mod requests;

#[path = "../../tests/common/fuzz.rs"]
mod driver;

use driver::{Answer, Fuzz, answer, answer_of};
