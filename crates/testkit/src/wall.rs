//! A wall with a door between a broker and its database: TCP passes while the door is open.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes TCP on to somewhere else, until it is shut.
#[derive(Debug)]
pub struct Wall {
    /// Where to connect to.
    pub address: SocketAddr,
    open: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Wall {
    /// A wall before `target`, open.
    pub async fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                if *is_open.borrow() {
                    passing.spawn(pass(stream, target.clone(), is_open.clone()));
                }
            }
        });
        Self { address, open, _tasks: tasks }
    }

    /// Cuts what passes and lets nothing new through.
    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

async fn pass(mut near: TcpStream, target: String, mut is_open: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = is_open.wait_for(|open| !open) => {}
    }
}
