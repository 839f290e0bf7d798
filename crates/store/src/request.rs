//! What the journal is asked for, and what becomes of it.

use tokio::sync::oneshot;

use claudemesh_proto::MeshId;

use crate::audit::Event;
use crate::claim::{Claim, Reclaim, Withdraw};
use crate::delivery::Claimed;
use crate::error::StoreError;
use crate::message::{Appended, NewMessage};
use crate::peer_state::Remember;
use crate::session::{Admission, Admitted};
use crate::settle::{Release, Settle};

/// A request, and where its answer goes.
pub(crate) type Entry = (Request, oneshot::Sender<Result<Outcome, StoreError>>);

/// Something for the journal to write.
#[derive(Debug)]
pub(crate) enum Request {
    Admit(Admission),
    Append(Box<NewMessage>),
    Claim(Claim),
    Reclaim(Reclaim),
    Settle(Settle),
    Release(Release),
    Withdraw(Withdraw),
    Record(Event),
    Remember(Box<Remember>),
}

/// What became of a [`Request`].
#[derive(Debug)]
pub(crate) enum Outcome {
    Admitted(Admitted),
    Appended(Appended),
    Claimed(Vec<Claimed>),
    /// A claim that waits found nothing.
    Nothing,
    Done,
}

impl Request {
    pub(crate) fn mesh_id(&self) -> &MeshId {
        match self {
            Self::Admit(admission) => &admission.mesh_id,
            Self::Append(message) => &message.mesh_id,
            Self::Claim(claim) => &claim.mesh_id,
            Self::Reclaim(again) => &again.mesh_id,
            Self::Settle(settle) => &settle.mesh_id,
            Self::Release(release) => &release.mesh_id,
            Self::Withdraw(withdraw) => &withdraw.mesh_id,
            Self::Record(event) => &event.mesh_id,
            Self::Remember(remember) => &remember.mesh_id,
        }
    }

    /// About how many bytes it puts into the values of a batch's statements.
    pub(crate) fn weight(&self) -> usize {
        /// Ids, keys and names.
        const FIELDS: usize = 1024;
        match self {
            Self::Append(message) => FIELDS + usize::try_from(message.size_bytes()).unwrap_or(usize::MAX),
            // It names rows, and they are read whatever they weigh: as much as a connection's window.
            Self::Reclaim(_) => 1 << 20,
            Self::Release(release) => FIELDS + release.held.len() * 64,
            Self::Remember(remember) => FIELDS + remember.what.weight(),
            // What a claim reads has a limit of its own.
            Self::Admit(_) | Self::Claim(_) | Self::Settle(_) | Self::Withdraw(_) | Self::Record(_) => FIELDS,
        }
    }

    /// Whether it may wait for company: nobody waits for its answer, or the answer is that there is nothing yet.
    ///
    /// An acknowledgement comes a moment before its recipient's reply, and so does the question for what comes next. In a batch of
    /// their own they would be in that reply's way for as long as a sync takes.
    pub(crate) fn is_patient(&self) -> bool {
        match self {
            Self::Settle(_) => true,
            // It goes on after what was handed over last; the first one of a connection begins at 0, and so does whoever was told
            // that older mail came free.
            Self::Claim(claim) => claim.waits && !claim.is_retry && claim.after_seq > 0,
            _ => false,
        }
    }

    /// A claim as far as [`Request::undo`] needs it; `None` for what hands out no rows.
    pub(crate) fn without_rows(&self) -> Option<Self> {
        match self {
            Self::Claim(claim) => Some(Self::Claim(claim.clone())),
            Self::Reclaim(Reclaim { mesh_id, connection, .. }) => {
                let (mesh_id, connection) = (mesh_id.clone(), connection.clone());
                Some(Self::Reclaim(Reclaim { mesh_id, connection, rows: Vec::new() }))
            }
            _ => None,
        }
    }

    /// What frees the rows again that were handed to somebody who is gone.
    pub(crate) fn undo(&self, outcome: Outcome) -> Option<Self> {
        let Outcome::Claimed(rows) = outcome else { return None };
        let (mesh_id, connection) = match self {
            Self::Claim(claim) => (&claim.mesh_id, &claim.connection),
            Self::Reclaim(again) => (&again.mesh_id, &again.connection),
            _ => return None,
        };
        let held: Vec<_> = rows.into_iter().map(|row| (row.delivery, row.recipient)).collect();
        let (mesh_id, connection) = (mesh_id.clone(), connection.clone());
        (!held.is_empty()).then(|| Self::Release(Release { mesh_id, connection, held, unanswered: Vec::new() }))
    }
}

/// The requests of a batch by kind, each kind in order, each with its place in the batch.
#[derive(Default)]
pub(crate) struct Sorted<'a> {
    pub(crate) admissions: Vec<(usize, &'a Admission)>,
    pub(crate) messages: Vec<(usize, &'a NewMessage)>,
    pub(crate) claims: Vec<(usize, &'a Claim)>,
    pub(crate) reclaims: Vec<(usize, &'a Reclaim)>,
    pub(crate) settles: Vec<&'a Settle>,
    pub(crate) releases: Vec<&'a Release>,
    pub(crate) events: Vec<&'a Event>,
    pub(crate) remembers: Vec<&'a Remember>,
}

impl<'a> Sorted<'a> {
    pub(crate) fn of(entries: &'a [Entry]) -> Self {
        let mut sorted = Self::default();
        for (index, (request, _)) in entries.iter().enumerate() {
            match request {
                Request::Admit(admission) => sorted.admissions.push((index, admission)),
                Request::Append(message) => sorted.messages.push((index, message)),
                Request::Claim(claim) => sorted.claims.push((index, claim)),
                Request::Reclaim(again) => sorted.reclaims.push((index, again)),
                Request::Settle(settle) => sorted.settles.push(settle),
                Request::Release(release) => sorted.releases.push(release),
                Request::Record(event) => sorted.events.push(event),
                Request::Remember(remember) => sorted.remembers.push(remember),
                // It changes nothing in the database.
                Request::Withdraw(_) => {}
            }
        }
        sorted
    }
}
