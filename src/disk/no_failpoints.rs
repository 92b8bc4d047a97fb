//! What is left of the failpoints in a build without them: nothing.

use std::io;

use super::Point;

#[inline(always)]
pub(super) fn before(_: Point) -> io::Result<()> {
    Ok(())
}

#[inline(always)]
pub(super) fn before_write(_: Point, _: &[u8], _: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    Ok(())
}

#[inline(always)]
pub(super) fn after(_: Point) -> io::Result<()> {
    Ok(())
}
