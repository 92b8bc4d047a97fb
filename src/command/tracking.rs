//! CLIENT TRACKING, CACHING, TRACKINGINFO, GETREDIR: caches that clients keep.

use bytes::Bytes;

use super::{CommandError, Ctx, error::lossy, numbers};
use crate::net::Mode;
use crate::pubsub::TrackingOptions;

/// CLIENT TRACKING ON|OFF [REDIRECT client-id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]
pub fn tracking(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let mut options = TrackingOptions::default();
    let mut prefixes: Vec<Bytes> = Vec::new();
    let mut rest = args.get(3..).unwrap_or_default();
    while let [option, more @ ..] = rest {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        rest = more;
        match more {
            [id, more @ ..] if is("redirect") => {
                if options.redirect.is_some() {
                    return Err(CommandError::Static("ERR A client can only redirect to a single other client"));
                }
                let id = u64::try_from(numbers::integer(id)?).unwrap_or_default();
                options.redirect = Some(
                    ctx.server
                        .clients
                        .get(id)
                        .ok_or(CommandError::Static("ERR The client ID you want redirect to does not exist"))?,
                );
                rest = more;
            }
            [prefix, more @ ..] if is("prefix") => {
                prefixes.push(Bytes::copy_from_slice(prefix));
                rest = more;
            }
            _ if is("bcast") => options.broadcast = true,
            _ if is("optin") => options.optin = true,
            _ if is("optout") => options.optout = true,
            _ if is("noloop") => options.noloop = true,
            _ => return Err(CommandError::Syntax),
        }
    }
    let switch = args.get(2).map(|arg| arg.to_ascii_lowercase()).unwrap_or_default();
    match &switch[..] {
        b"on" => {
            check(ctx, &options, &prefixes)?;
            if options.broadcast && prefixes.is_empty() {
                prefixes.push(Bytes::new());
            }
            let info = ctx.client.info().clone();
            ctx.client.tracked.start(&ctx.server.events, &info, options, prefixes.into_iter());
        }
        b"off" => ctx.client.tracked.stop(),
        _ => return Err(CommandError::Syntax),
    }
    ctx.reply.ok();
    Ok(())
}

/// Whether options fit each other and what the client has chosen before.
fn check(ctx: &Ctx<'_, '_>, options: &TrackingOptions, prefixes: &[Bytes]) -> Result<(), CommandError> {
    let tracked = &ctx.client.tracked;
    let error = |text| Err(CommandError::Static(text));
    if !options.broadcast && !prefixes.is_empty() {
        return error("ERR PREFIX option requires BCAST mode to be enabled");
    }
    if tracked.is_on() && tracked.options.broadcast != options.broadcast {
        return error(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a \
             different mode.",
        );
    }
    if options.broadcast && (options.optin || options.optout) {
        return error("ERR OPTIN and OPTOUT are not compatible with BCAST");
    }
    if options.optin && options.optout {
        return error("ERR You can't specify both OPTIN mode and OPTOUT mode");
    }
    if (options.optin && tracked.options.optout) || (options.optout && tracked.options.optin) {
        return error(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a \
             different mode.",
        );
    }
    if options.broadcast {
        let overlap = |one: &Bytes, other: &Bytes| one.starts_with(other) || other.starts_with(one);
        for (at, prefix) in prefixes.iter().enumerate() {
            let existing =
                tracked.prefixes().iter().find(|known| overlap(prefix, known)).map(|known| ("an existing", known));
            let provided = || {
                let others = prefixes.iter().skip(at + 1);
                others.into_iter().find(|other| overlap(prefix, other)).map(|other| ("another provided", other))
            };
            if let Some((which, other)) = existing.or_else(provided) {
                return Err(CommandError::Text(format!(
                    "ERR Prefix '{}' overlaps with {which} prefix '{}'. Prefixes for a single client must not overlap.",
                    lossy(prefix, 128),
                    lossy(other, 128)
                )));
            }
        }
    }
    Ok(())
}

/// CLIENT CACHING YES|NO
pub fn caching(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let tracked = &mut ctx.client.tracked;
    if !tracked.is_on() {
        return Err(CommandError::Static(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    }
    let choice = args.get(2).map(|arg| arg.to_ascii_lowercase()).unwrap_or_default();
    match &choice[..] {
        b"yes" if !tracked.options.optin => {
            return Err(CommandError::Static(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
        b"no" if !tracked.options.optout => {
            return Err(CommandError::Static(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
        b"yes" | b"no" => tracked.caching = true,
        _ => return Err(CommandError::Syntax),
    }
    ctx.reply.ok();
    Ok(())
}

/// CLIENT GETREDIR
pub fn getredir(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.int(ctx.client.tracked.redirect());
    Ok(())
}

/// CLIENT TRACKINGINFO
pub fn trackinginfo(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let tracked = &ctx.client.tracked;
    let options = &tracked.options;
    let broken = ctx.client.info().is(Mode::BrokenRedirect);
    let flags: Vec<&str> = [
        (true, if tracked.is_on() { "on" } else { "off" }),
        (options.broadcast, "bcast"),
        (options.optin, "optin"),
        (options.optin && tracked.caching, "caching-yes"),
        (options.optout, "optout"),
        (options.optout && tracked.caching, "caching-no"),
        (options.noloop, "noloop"),
        (broken, "broken_redirect"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect();
    let reply = &mut *ctx.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.int(tracked.redirect());
    reply.bulk(b"prefixes");
    reply.array(tracked.prefixes().len());
    tracked.prefixes().iter().for_each(|prefix| reply.bulk(prefix));
    Ok(())
}
