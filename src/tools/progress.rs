//! How far a tool is, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const REDRAWS_A_SECOND: u8 = 10;

/// A bar of bytes; one that nobody sees unless `shown`.
pub fn byte_bar(shown: bool) -> ProgressBar {
    let target = match shown {
        true => ProgressDrawTarget::stderr_with_hz(REDRAWS_A_SECOND),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let template =
        "{bar:30} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}, {eta} left  {msg}";
    // Without the style it is a plain bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
