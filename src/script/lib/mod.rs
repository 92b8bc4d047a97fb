//! The libraries that Redis adds to Lua's own: `bit`, `struct`, `cjson` and `cmsgpack`.

pub(super) mod bit;
pub(super) mod cjson;
mod cjson_decode;
mod cjson_encode;
pub(super) mod cmsgpack;
pub(super) mod structs;

use mlua::{Lua, MultiValue, Table};

use super::raise::Args;

/// Values that a native function returns or keeps hold of at most. Lua hands natives at most 8,000 values at once.
pub(super) const MAX_VALUES: usize = 7000;

/// Puts the native function `name` into `table`.
fn put<R>(
    lua: &Lua,
    table: &Table,
    name: &'static str,
    function: impl Fn(Args<'_>) -> mlua::Result<R> + Send + 'static,
) -> mlua::Result<()>
where
    R: mlua::IntoLuaMulti,
{
    let native = lua.create_function(move |lua, values: MultiValue| function(Args::new(lua, name, values)))?;
    table.raw_set(name, native)
}
