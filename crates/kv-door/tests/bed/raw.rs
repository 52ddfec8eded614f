//! A client that says exactly what a test wants.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use strand_kv_client::arena::PodArenas;
use strand_kv_client::frame::{Header, Hello, Reply, Request, Versions, Welcome};
use strand_kv_client::wire::{Broken, Wire, receive_hello, send_hello};
use tokio::net::UnixStream;

pub fn hello() -> Hello {
    Hello {
        versions: Versions::ours(),
        get_bytes: 0,
        put_bytes: 0,
        name: "raw".into(),
    }
}

pub struct Raw {
    pub welcome: Welcome,
    pub wire: Wire,
    pub descriptors: [OwnedFd; 3],
    replies: Vec<(Header, Reply)>,
}

impl Raw {
    pub async fn open(path: &Path) -> Self {
        let socket = UnixStream::connect(path).await.unwrap();
        send_hello(&socket, &hello().encode(), &[]).await.unwrap();
        let (body, descriptors) = receive_hello(&socket).await.unwrap();
        Self {
            welcome: Welcome::decode(&body).unwrap().unwrap(),
            wire: Wire::new(socket),
            descriptors: descriptors.try_into().unwrap(),
            replies: Vec::new(),
        }
    }

    pub fn map(&self) -> Arc<PodArenas> {
        let copies = self
            .descriptors
            .each_ref()
            .map(|fd| fd.try_clone().unwrap());
        let limits = self.welcome.limits;
        PodArenas::map(copies, limits.get_bytes as usize, limits.put_bytes as usize).unwrap()
    }

    pub fn send(&self, id: u64, request: &Request) {
        self.wire
            .send(|out| request.encode(out, self.welcome.epoch, id));
    }

    pub async fn reply(&mut self) -> Result<(Header, Reply), Broken> {
        while self.replies.is_empty() {
            let replies = &mut self.replies;
            self.wire
                .read(|header, body| {
                    replies.push((header, Reply::decode(header.operation, body)?));
                    Ok::<(), Broken>(())
                })
                .await?;
        }
        Ok(self.replies.remove(0))
    }

    pub async fn ask(&mut self, id: u64, request: &Request) -> Reply {
        self.send(id, request);
        let (header, reply) = self.reply().await.unwrap();
        assert_eq!(header.id, id);
        reply
    }
}
