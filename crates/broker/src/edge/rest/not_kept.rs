//! What other brokers of the protocol keep besides, of which there is nothing here yet: lists that are empty.

use axum::Json;
use claudemesh_proto::api_key::Capability;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::Parameters;
use crate::edge::rest::refusal::{Keyed, Queried, Refusal};

/// Tasks: there are none yet.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Tasks {
    #[schema(value_type = Vec<Object>)]
    tasks: [(); 0],
    totals: TaskTotals,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct TaskTotals {
    open: usize,
    claimed: usize,
    completed: usize,
}

/// Shared state: there is none yet.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct States {
    #[schema(value_type = Vec<Object>)]
    entries: [(); 0],
    totals: StateTotals,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct StateTotals {
    entries: usize,
    meshes: usize,
}

/// What was remembered: nothing yet.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Remembered {
    query: String,
    #[schema(value_type = Vec<Object>)]
    memories: [(); 0],
    totals: MemoryTotals,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct MemoryTotals {
    entries: usize,
}

/// The tasks of the mesh: this broker keeps none yet.
#[utoipa::path(
    get,
    path = "/me/tasks",
    tag = "me",
    responses((status = 200, description = "An empty list", body = Tasks), Keyed)
)]
pub(crate) async fn tasks(caller: Caller) -> Result<Json<Tasks>, Refusal> {
    caller.may(&[Capability::Read])?;
    Ok(Json(Tasks::default()))
}

/// The shared state of the mesh: this broker keeps none yet.
#[utoipa::path(
    get,
    path = "/me/state",
    tag = "me",
    responses((status = 200, description = "An empty list", body = States), Keyed)
)]
pub(crate) async fn state(caller: Caller) -> Result<Json<States>, Refusal> {
    caller.may(&[Capability::Read])?;
    Ok(Json(States::default()))
}

/// What to recall.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Recalled {
    /// Words.
    q: Option<String>,
}

/// What the mesh remembers: this broker keeps nothing of it yet.
#[utoipa::path(
    get,
    path = "/me/memory",
    tag = "me",
    params(Recalled),
    responses((status = 200, description = "An empty list", body = Remembered), Keyed, Queried)
)]
pub(crate) async fn memory(
    caller: Caller,
    recalled: Result<Parameters<Recalled>, Refusal>,
) -> Result<Json<Remembered>, Refusal> {
    caller.may(&[Capability::Read])?;
    let Parameters(recalled) = recalled?;
    Ok(Json(Remembered { query: recalled.q.unwrap_or_default(), ..Remembered::default() }))
}
