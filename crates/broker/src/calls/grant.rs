//! What the caller's member lets others do to it.

use std::collections::{BTreeMap, BTreeSet};

use claudemesh_proto::grant::{BadCapability, Capability, GrantSet};
use claudemesh_proto::key::BadHex;
use claudemesh_proto::{BrokerFrame, ErrorCode, PublicKey};
use claudemesh_store::{GrantsSet, MAX_GRANTS};

use crate::app::App;
use crate::calls::Live;
use crate::fault::Fault;

/// Changes grants, all of them or none.
pub(crate) async fn set(app: &App, live: &Live, request: GrantSet) -> Result<BrokerFrame, Fault> {
    let changes = parse(request)?;
    match app.store.set_grants((&live.mesh_id, &live.member_id), &changes).await? {
        GrantsSet::Done(grants) => {
            // What was held back may come now.
            app.hub.look_again(&live.mesh_id, &live.member_id);
            Ok(BrokerFrame::GrantSetResponse(grants))
        }
        GrantsSet::TooMany => Err(Fault::invalid(format!("grants must be for {MAX_GRANTS} keys at most"))),
        GrantsSet::NoMember => Err(Fault::new(ErrorCode::Forbidden, "you are no member of this mesh any more")),
    }
}

/// The grants as they are.
pub(crate) async fn list(app: &App, live: &Live) -> Result<BrokerFrame, Fault> {
    Ok(BrokerFrame::GrantListResponse(app.store.grants(&live.mesh_id, &live.member_id).await?))
}

type Changes = BTreeMap<PublicKey, Option<BTreeSet<Capability>>>;

fn parse(request: GrantSet) -> Result<Changes, Fault> {
    let changes = request.grants.into_iter().map(|(key, words)| {
        let pubkey: PublicKey =
            key.parse().map_err(|why: BadHex| Fault::invalid(format!("grants.{} {why}", shown(&key))))?;
        let capability = |word: String| {
            word.parse().map_err(|why: BadCapability| {
                Fault::invalid(format!("grants.{key} has \"{}\", and each {why}", shown(&word)))
            })
        };
        let words = words.map(|words| words.into_iter().map(capability).collect::<Result<_, Fault>>());
        Ok((pubkey, words.transpose()?))
    });
    changes.collect()
}

/// What somebody wrote, short enough to be told back.
fn shown(text: &str) -> String {
    claudemesh_proto::text::one_line(text).chars().take(64).collect()
}
