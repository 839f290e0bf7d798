//! `claudemesh apikey create`, `apikey list`, `apikey revoke`

use std::time::Duration;

use clap::{Args, Subcommand};
use claudemesh_client::now;
use claudemesh_proto::api_key::{ApiKey, ApiKeyCreate, ApiKeyRevokeResponse, Capability};
use claudemesh_proto::text::one_line;
use claudemesh_proto::{Timestamp, TopicName};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::parse;
use crate::table::table;

/// Keys by which programs use the broker's REST interface in your name
#[derive(Debug, Args)]
pub(crate) struct ApiKeyVerb {
    #[command(subcommand)]
    pub(crate) what: ApiKeyWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeyWhat {
    Create(CreateKey),
    /// List your keys; an admin sees those of everybody
    #[command(
        after_help = "Example: claudemesh apikey list --all\n\nJSON: {keys: [{id, label, prefix, capabilities, topicScopes|null, createdAt, \
        lastUsedAt|null, revokedAt|null, expiresAt|null, issuedByMemberId}]}"
    )]
    List {
        /// Also those that are revoked or expired
        #[arg(long)]
        all: bool,
    },
    /// End a key
    #[command(after_help = "Example: claudemesh apikey revoke 3kTq9xYz\n\nJSON: {id, status: \"revoked\"}")]
    Revoke {
        /// Its id, or the first 8 characters of it or more
        #[arg(value_parser = parse::id_or_prefix)]
        id: String,
    },
}

/// Make a key, and print its secret
#[derive(Debug, Args)]
#[command(
    after_help = "The secret is shown this once: the broker keeps its hash alone. It goes into Authorization: Bearer SECRET. A key may \
    do no more than you, and ends when you are removed. What it can ask is shown by the broker's page /docs. Messages of a topic with \
    a key are ciphertext there: a program that writes or reads them needs the topic's key too.\n\n\
    Example: claudemesh apikey create dashboard --can read --expires 90d\n\n\
    JSON: {id, secret, label, prefix, capabilities, topicScopes|null, createdAt, expiresAt|null}"
)]
pub(crate) struct CreateKey {
    /// What you call it
    pub(crate) label: String,
    /// read, send, state_write or admin; several with commas between
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', default_value = "read", value_parser = parse::capability)]
    pub(crate) can: Vec<Capability>,
    /// Only for this topic; say it again for more [default: all]
    #[arg(long, value_name = "NAME", value_parser = parse::topic_name)]
    pub(crate) topic: Vec<TopicName>,
    /// How long it is valid, such as 12h or 90d [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) expires: Option<Duration>,
}

pub(crate) async fn run(context: &Context, asked: ApiKeyVerb) -> anyhow::Result<()> {
    match asked.what {
        ApiKeyWhat::Create(asked) => create(context, asked).await,
        ApiKeyWhat::List { all } => list(context, all).await,
        ApiKeyWhat::Revoke { id } => revoke(context, &id).await,
    }
}

async fn create(context: &Context, asked: CreateKey) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let expires_at = asked.expires.map(|life| now().plus(life));
    let create = ApiKeyCreate {
        label: asked.label,
        capabilities: asked.can.iter().map(|one| one.as_str().to_owned()).collect(),
        topic_scopes: (!asked.topic.is_empty()).then(|| asked.topic.iter().map(ToString::to_string).collect()),
        expires_at: expires_at.map(|at| at.to_string()),
    };
    let made = context.on_line(&mesh, async |line| Ok(line.connection().create_api_key(create).await?)).await?;
    let mut value = serde_json::to_value(&made)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("expiresAt".into(), json!(expires_at));
    }
    let printed = context.output.data(&value, |_| made.secret.0.clone());
    if printed.is_err() {
        let id = &made.id;
        context.output.notice(&format!("The key is made, and its secret is lost: claudemesh apikey revoke {id}"));
    }
    printed?;
    let may = words(made.capabilities.iter().copied());
    let until = expires_at.map(|at| format!(", until {at}")).unwrap_or_default();
    context
        .output
        .notice(&format!("It may {may}{until}. It is shown this once; end it: claudemesh apikey revoke {}", made.id));
    Ok(())
}

async fn list(context: &Context, all: bool) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let mut keys = context.on_line(&mesh, async |line| Ok(line.connection().api_keys().await?)).await?;
    let now = now();
    let found = keys.len();
    keys.retain(|key| all || state(key, now) == "valid");
    context.output.data(&json!({ "keys": keys }), |output| {
        let row = |key: &ApiKey| {
            let topics = key.topic_scopes.as_ref().map_or_else(
                || "all".to_owned(),
                |scopes| scopes.iter().map(|scope| format!("#{scope}")).collect::<Vec<_>>().join(", "),
            );
            let used = key.last_used_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
            let (id, may) = (key.id.as_str().chars().take(8).collect(), words(key.capabilities.iter().copied()));
            let until = key.expires_at.map_or_else(|| "until revoked".to_owned(), |at| format!("until {at}"));
            vec![id, one_line(&key.label), may, topics, used, until, state(key, now).into()]
        };
        let rows: Vec<_> = keys.iter().map(row).collect();
        table(output, &["ID", "LABEL", "MAY", "TOPICS", "LAST USED", "VALID", "STATE"], &rows)
    })?;
    if keys.is_empty() {
        let more = if found > 0 { " --all shows those that are none any more." } else { "" };
        context.output.notice(&format!("No key is valid.{more}"));
    }
    Ok(())
}

async fn revoke(context: &Context, id: &str) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let answer = context.on_line(&mesh, async |line| Ok(line.connection().revoke_api_key(id).await?)).await?;
    let refused = |exit, text: String| Err(Failure { exit, text }.into());
    match answer {
        ApiKeyRevokeResponse::Revoked { id } => {
            context.output.data(&json!({ "id": id, "status": "revoked" }), |_| format!("{id} is no key any more."))
        }
        ApiKeyRevokeResponse::NotFound => {
            let text = format!("no key of yours begins with \"{}\"\ntry: claudemesh apikey list", one_line(id));
            refused(Exit::NotFound, text)
        }
        ApiKeyRevokeResponse::NotUnique { matches } => {
            let text = format!("{matches} keys begin with \"{}\"; none was revoked\ntry: more of the id", one_line(id));
            refused(Exit::BadArguments, text)
        }
    }
}

fn state(key: &ApiKey, now: Timestamp) -> &'static str {
    if key.revoked_at.is_some() {
        "revoked"
    } else if key.expires_at.is_some_and(|at| at <= now) {
        "expired"
    } else {
        "valid"
    }
}

fn words(capabilities: impl Iterator<Item = Capability>) -> String {
    capabilities.map(Capability::as_str).collect::<Vec<_>>().join(", ")
}
