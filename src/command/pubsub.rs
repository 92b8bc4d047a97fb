//! Channels: SUBSCRIBE, PUBLISH and their kin, PUBSUB.

use bytes::Bytes;

use super::{After, CommandError, Ctx, Flags, Group, Keys, Spec, Within};
use crate::pubsub::Topic;

const ANY_TIME: Flags = Flags::PUBSUB.and(Flags::LOADING).and(Flags::STALE);
const LISTEN: Flags = ANY_TIME.and(Flags::NOSCRIPT).and(Flags::SUBSCRIBED);
const PUBLISH: Flags = ANY_TIME.and(Flags::FAST).and(Flags::MAY_REPLICATE);

const BASE: Spec = Spec {
    name: "",
    arity: -2,
    flags: LISTEN,
    keys: Keys::None,
    group: Group::PubSub,
    since: "2.0.0",
    complexity: "O(N), N being the number of channels.",
    summary: "",
    usage: "",
    handler: subscribe,
    subcommands: &[],
};

/// The family's part of the command table.
pub static PUBSUB: &[Spec] = &[
    Spec {
        name: "psubscribe",
        complexity: "O(N), N being the number of patterns.",
        summary: "Listens to the channels that match patterns.",
        usage: "pattern [pattern ...]",
        handler: psubscribe,
        ..BASE
    },
    Spec {
        name: "publish",
        arity: 3,
        flags: PUBLISH,
        complexity: "O(N+M), N being the number of listeners, M that of all patterns.",
        summary: "Sends a message to a channel.",
        usage: "channel message",
        handler: publish,
        ..BASE
    },
    Spec {
        summary: "Commands about channels.",
        ..Spec::container("pubsub", Group::PubSub, "2.8.0", "", PUBSUB_SUBCOMMANDS)
    },
    Spec {
        name: "punsubscribe",
        arity: -1,
        complexity: "O(N), N being the number of patterns.",
        summary: "Listens to the channels of patterns, or of all patterns, no more.",
        usage: "[pattern [pattern ...]]",
        handler: punsubscribe,
        ..BASE
    },
    Spec {
        name: "spublish",
        arity: 3,
        flags: PUBLISH,
        since: "7.0.0",
        complexity: "O(N), N being the number of listeners.",
        summary: "Sends a message to a shard channel.",
        usage: "shardchannel message",
        handler: spublish,
        ..BASE
    },
    Spec {
        name: "ssubscribe",
        since: "7.0.0",
        summary: "Listens to shard channels.",
        usage: "shardchannel [shardchannel ...]",
        handler: ssubscribe,
        ..BASE
    },
    Spec { name: "subscribe", summary: "Listens to channels.", usage: "channel [channel ...]", ..BASE },
    Spec {
        name: "sunsubscribe",
        arity: -1,
        since: "7.0.0",
        summary: "Listens to shard channels, or to all of them, no more.",
        usage: "[shardchannel [shardchannel ...]]",
        handler: sunsubscribe,
        ..BASE
    },
    Spec {
        name: "unsubscribe",
        arity: -1,
        summary: "Listens to channels, or to all of them, no more.",
        usage: "[channel [channel ...]]",
        handler: unsubscribe,
        ..BASE
    },
];

const LOOK: Spec = Spec { flags: ANY_TIME, since: "2.8.0", ..BASE };

static PUBSUB_SUBCOMMANDS: &[Spec] = &[
    Spec {
        name: "channels",
        complexity: "O(N), N being the number of channels.",
        summary: "Lists the channels that somebody listens to.",
        usage: "[pattern]",
        handler: channels,
        ..LOOK
    },
    Spec::help(Group::PubSub, "6.2.0"),
    Spec {
        name: "numpat",
        arity: 2,
        complexity: "O(1)",
        summary: "Counts the patterns that somebody listens to.",
        handler: numpat,
        ..LOOK
    },
    Spec {
        name: "numsub",
        summary: "Counts the listeners of channels.",
        usage: "[channel [channel ...]]",
        handler: numsub,
        ..LOOK
    },
    Spec {
        name: "shardchannels",
        since: "7.0.0",
        complexity: "O(N), N being the number of shard channels.",
        summary: "Lists the shard channels that somebody listens to.",
        usage: "[pattern]",
        handler: shardchannels,
        ..LOOK
    },
    Spec {
        name: "shardnumsub",
        since: "7.0.0",
        complexity: "O(N), N being the number of shard channels.",
        summary: "Counts the listeners of shard channels.",
        usage: "[shardchannel [shardchannel ...]]",
        handler: shardnumsub,
        ..LOOK
    },
];

/// SUBSCRIBE channel [channel ...]
fn subscribe(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    listen(ctx, Topic::Channel, "subscribe", args)
}

/// PSUBSCRIBE pattern [pattern ...]
fn psubscribe(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    listen(ctx, Topic::Pattern, "psubscribe", args)
}

/// SSUBSCRIBE shardchannel [shardchannel ...]
fn ssubscribe(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    listen(ctx, Topic::Shard, "ssubscribe", args)
}

/// UNSUBSCRIBE [channel [channel ...]]
fn unsubscribe(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    leave(ctx, Topic::Channel, "unsubscribe", args)
}

/// PUNSUBSCRIBE [pattern [pattern ...]]
fn punsubscribe(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    leave(ctx, Topic::Pattern, "punsubscribe", args)
}

/// SUNSUBSCRIBE [shardchannel [shardchannel ...]]
fn sunsubscribe(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    leave(ctx, Topic::Shard, "sunsubscribe", args)
}

/// A message for each topic.
fn listen(ctx: &mut Ctx<'_, '_>, topic: Topic, name: &str, args: &[Bytes]) -> Result<(), CommandError> {
    if ctx.client.denies_blocking() && ctx.within != Within::Exec {
        let name = name.to_ascii_uppercase();
        return Err(CommandError::Text(format!("ERR {name} isn't allowed for a DENY BLOCKING client")));
    }
    let info = ctx.client.info().clone();
    for channel in args.iter().skip(1) {
        ctx.client.subscriptions.add(&ctx.server.pubsub, &info, topic, channel);
        confirm(ctx, topic, name, Some(channel));
    }
    Ok(())
}

/// A message for each topic, and one if there is none.
fn leave(ctx: &mut Ctx<'_, '_>, topic: Topic, name: &str, args: &[Bytes]) -> Result<(), CommandError> {
    let left: Vec<Bytes> = match args.get(1..).unwrap_or_default() {
        [] => ctx.client.subscriptions.list(topic).cloned().collect(),
        named => named.to_vec(),
    };
    if left.is_empty() {
        confirm(ctx, topic, name, None);
    }
    for channel in &left {
        ctx.client.subscriptions.remove(topic, channel);
        // What came before must not be read after the end of the subscription was told; inside of EXEC's reply it has no place.
        if ctx.within == Within::Nothing
            && let Some(sent) = ctx.client.info().take_outbox()
        {
            ctx.reply.raw(&sent);
        }
        confirm(ctx, topic, name, Some(channel));
    }
    Ok(())
}

fn confirm(ctx: &mut Ctx<'_, '_>, topic: Topic, name: &str, channel: Option<&Bytes>) {
    let count = ctx.client.subscriptions.count(topic);
    ctx.reply.push(3);
    ctx.reply.bulk(name.as_bytes());
    match channel {
        Some(channel) => ctx.reply.bulk(channel),
        None => ctx.reply.null(),
    }
    ctx.reply.int(count as i64);
}

/// PUBLISH channel message
fn publish(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    send(ctx, args, false)
}

/// SPUBLISH shardchannel message
fn spublish(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    send(ctx, args, true)
}

fn send(ctx: &mut Ctx<'_, '_>, args: &[Bytes], shard: bool) -> Result<(), CommandError> {
    let [_, channel, message] = args else { return Err(CommandError::Syntax) };
    let receivers = ctx.server.pubsub.receivers(channel, shard);
    if receivers > 0 {
        ctx.after.push(After::Publish { channel: channel.clone(), message: message.clone(), shard });
    }
    ctx.reply.int(receivers as i64);
    Ok(())
}

/// PUBSUB CHANNELS [pattern]
fn channels(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    list(ctx, args, false)
}

/// PUBSUB SHARDCHANNELS [pattern]
fn shardchannels(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    list(ctx, args, true)
}

fn list(ctx: &mut Ctx<'_, '_>, args: &[Bytes], shard: bool) -> Result<(), CommandError> {
    let pattern = match args {
        [_, _] => None,
        [_, _, pattern] => Some(&**pattern),
        [_, subcommand, ..] => {
            let subcommand = super::error::lossy(subcommand, 128);
            return Err(CommandError::SubcommandForm { subcommand, container: "PUBSUB" });
        }
        _ => return Err(CommandError::Syntax),
    };
    let channels = ctx.server.pubsub.channels(shard, pattern);
    ctx.reply.array(channels.len());
    channels.iter().for_each(|channel| ctx.reply.bulk(channel));
    Ok(())
}

/// PUBSUB NUMPAT
fn numpat(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let (_, patterns, _) = ctx.server.pubsub.counts();
    ctx.reply.int(patterns as i64);
    Ok(())
}

/// PUBSUB NUMSUB [channel [channel ...]]
fn numsub(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    count(ctx, args, false)
}

/// PUBSUB SHARDNUMSUB [shardchannel [shardchannel ...]]
fn shardnumsub(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    count(ctx, args, true)
}

fn count(ctx: &mut Ctx<'_, '_>, args: &[Bytes], shard: bool) -> Result<(), CommandError> {
    let channels = args.get(2..).unwrap_or_default();
    ctx.reply.array(2 * channels.len());
    for channel in channels {
        ctx.reply.bulk(channel);
        ctx.reply.int(ctx.server.pubsub.listeners_of(shard, channel) as i64);
    }
    Ok(())
}
