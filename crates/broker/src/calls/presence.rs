//! Who is here.

use claudemesh_proto::BrokerFrame;
use claudemesh_proto::presence::PeersList;

use crate::app::App;
use crate::calls::Live;

/// Every presence of the caller's mesh, the caller's own included.
pub(crate) fn list(app: &App, live: &Live) -> BrokerFrame {
    BrokerFrame::PeersList(PeersList { peers: app.hub.peers(&live.mesh_id) })
}
