//! The description of the REST interface: `/openapi.json`, and `/docs` for people. Both are made of the handlers when the broker
//! starts. The page has no scripts.

use std::fmt::Write as _;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;
use serde_json::Value;
use utoipa::PartialSchema as _;
use utoipa::ToSchema as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, SecurityRequirement, Server};

use crate::edge::rest::refusal::Problem;

const STYLE: &str = include_str!("docs.css");

/// Adds what no handler says of itself.
pub(super) fn complete(description: &mut OpenApi) {
    description.info = InfoBuilder::new()
        .title("claudemesh broker")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "A mesh of coding agents over HTTP. A key is made by `claudemesh apikey create` (over the WebSocket: `apikey_create`), acts in one \
             mesh in the name of the member that made it, and goes into `Authorization: Bearer`. Times are ISO-8601 with milliseconds and `Z`.",
        ))
        .build();
    description.servers = Some(vec![Server::new("/v1"), Server::new("/api/v1")]);
    let components = description.components.get_or_insert_with(Components::new);
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    for (name, words) in
        [("api_key", "An API key: `cm_…`"), ("setup_token", "The token that the broker's first start prints")]
    {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(words.to_owned());
        components.add_security_scheme(name, SecurityScheme::Http(scheme));
    }
    description.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>("api_key", [])]);
}

/// `/openapi.json`, `/docs` and its style.
pub(super) fn pages<S: Clone + Send + Sync + 'static>(description: &OpenApi) -> Router<S> {
    // Text keys and plain values always serialise.
    let json = serde_json::to_value(description).unwrap_or_default();
    let (text, page) = (json.to_string(), page(&json));
    Router::new()
        .route("/openapi.json", get(move || std::future::ready(typed("application/json", text.clone()))))
        .route("/docs", get(move || std::future::ready(typed("text/html; charset=utf-8", page.clone()))))
        .route("/docs/style.css", get(|| std::future::ready(typed("text/css; charset=utf-8", STYLE.to_owned()))))
}

fn typed(kind: &'static str, body: String) -> ([(HeaderName, HeaderValue); 1], String) {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], body)
}

/// The description as a page. Whoever reads an operation finds its shapes at the end.
fn page(description: &Value) -> String {
    let title = text(description, "/info/title");
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <link rel=\"stylesheet\" href=\"/docs/style.css\">\n<h1>{title}</h1>\n<p>{}</p>\n\
         <p>Every path is under <code>/v1</code> and under <code>/api/v1</code>. \
         For programs: <a href=\"/openapi.json\">openapi.json</a>.</p>\n",
        text(description, "/info/description")
    );
    for (path, operations) in entries(description, "/paths") {
        for (method, operation) in entries(operations, "") {
            add_operation(&mut page, (method, path), operation);
        }
    }
    page.push_str("<h2>Shapes</h2>\n");
    for (name, schema) in entries(description, "/components/schemas") {
        let shape = serde_json::to_string_pretty(schema).unwrap_or_default();
        let _ = write!(page, "<h3 id=\"{0}\">{0}</h3>\n<pre>{1}</pre>\n", escaped(name), escaped(&shape));
    }
    page
}

fn add_operation(page: &mut String, (method, path): (&str, &str), operation: &Value) {
    let (method, path) = (escaped(&method.to_uppercase()), escaped(path));
    let _ = write!(page, "<h2><code>{method} {path}</code></h2>\n<p>{}</p>\n", text(operation, "/summary"));
    if operation.get("description").is_some() {
        let _ = writeln!(page, "<p>{}</p>", text(operation, "/description"));
    }
    for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let (name, place) = (text(parameter, "/name"), text(parameter, "/in"));
        let _ = writeln!(page, "<p><code>{name}</code> ({place}) {}</p>", text(parameter, "/description"));
    }
    if let Some(shape) = operation.get("requestBody").and_then(shape) {
        let _ = writeln!(page, "<p>Body: {shape}</p>");
    }
    page.push_str("<table>\n");
    for (status, answer) in entries(operation, "/responses") {
        let (words, shape) = (text(answer, "/description"), shape(answer).unwrap_or_default());
        let _ = writeln!(page, "<tr><td>{}</td><td>{words}</td><td>{shape}</td></tr>", escaped(status));
    }
    page.push_str("</table>\n");
}

/// A link to the shape of a body.
fn shape(body: &Value) -> Option<String> {
    let content = body.get("content")?.as_object()?.values().next()?;
    let schema = content.get("schema")?;
    let schema = schema.pointer("/oneOf/0").unwrap_or(schema);
    let name = schema.get("$ref")?.as_str()?.rsplit('/').next()?;
    Some(format!("<a href=\"#{0}\">{0}</a>", escaped(name)))
}

fn entries<'a>(value: &'a Value, at: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.pointer(at).and_then(Value::as_object).into_iter().flatten()
}

/// Words; what stands between backticks is code.
fn text(value: &Value, at: &str) -> String {
    let words = escaped(value.pointer(at).and_then(Value::as_str).unwrap_or_default());
    let parts = words.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
