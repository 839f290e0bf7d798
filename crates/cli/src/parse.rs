//! What is typed, read into what it means. A refusal says what would be right.

use std::time::Duration;

use claudemesh_proto::api_key::{BadCapability, Capability as ApiCapability};
use claudemesh_proto::group::BadGroupName;
use claudemesh_proto::hello::Group as InGroup;
use claudemesh_proto::message::Invalid;
use claudemesh_proto::presence::{BadStatus, StatusSource};
use claudemesh_proto::topic::{BadTopicName, BadTopicRole, BadVisibility};
use claudemesh_proto::{GroupName, Priority, Status, TopicName, TopicRole, Visibility};

pub(crate) fn priority(text: &str) -> Result<Priority, &'static str> {
    text.parse().map_err(|invalid: Invalid| invalid.why)
}

pub(crate) fn status(text: &str) -> Result<Status, BadStatus> {
    text.parse()
}

pub(crate) fn source(text: &str) -> Result<StatusSource, &'static str> {
    match text {
        "manual" => Ok(StatusSource::Manual),
        "jsonl" => Ok(StatusSource::Jsonl),
        _ => Err("must be manual or jsonl"),
    }
}

pub(crate) fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("must be on or off"),
    }
}

/// `@` is how others write it when they send to it.
pub(crate) fn group(text: &str) -> Result<GroupName, BadGroupName> {
    text.strip_prefix('@').unwrap_or(text).parse()
}

/// One to be in. What reads like everybody would never be reached.
pub(crate) fn new_group(text: &str) -> Result<GroupName, String> {
    let name = text.strip_prefix('@').unwrap_or(text);
    if name == "*" || name.eq_ignore_ascii_case("all") {
        return Err("* and @all mean everybody; choose another name".into());
    }
    group(text).map_err(|why| why.to_string())
}

pub(crate) fn group_with_role(text: &str) -> Result<InGroup, String> {
    let (name, role) = text.split_once(':').map_or((text, None), |(name, role)| (name, Some(role.to_owned())));
    Ok(InGroup { name: new_group(name)?.to_string(), role })
}

/// By name or id. `#` is how others write it when they speak of it.
pub(crate) fn topic(text: &str) -> Result<String, &'static str> {
    let named = text.strip_prefix('#').unwrap_or(text);
    if named.is_empty() { Err("must be the name or id of a topic") } else { Ok(named.to_owned()) }
}

pub(crate) fn topic_name(text: &str) -> Result<TopicName, BadTopicName> {
    text.strip_prefix('#').unwrap_or(text).parse()
}

pub(crate) fn topic_role(text: &str) -> Result<TopicRole, BadTopicRole> {
    text.parse()
}

pub(crate) fn visibility(text: &str) -> Result<Visibility, BadVisibility> {
    text.parse()
}

pub(crate) fn capability(text: &str) -> Result<ApiCapability, BadCapability> {
    text.parse()
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("hours or days? write {text}h or {text}d"));
    }
    humantime::parse_duration(text).map_err(|_| "must be a time such as 30min, 12h or 7d".into())
}

pub(crate) fn id_or_prefix(text: &str) -> Result<String, &'static str> {
    if text.len() < 8 { Err("an id has at least 8 letters and digits") } else { Ok(text.to_owned()) }
}
