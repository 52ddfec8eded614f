//! The rack behind the doors of its node.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use strand_context_store::{Namespace, Span};
use strand_kv_client::arena::{Memory, PutBytes};
use strand_kv_door::{
    Blocks, Described, Landed, Page, Put, PutOptions, Refused, Room, StoreArena, Totals,
};

use crate::Rack;
use crate::opened::OpenedBlock;
use crate::value::Bytes;

impl Blocks for Rack {
    type Arena = StoreArena;
    type Opened = OpenedBlock;

    fn map(&self, get: Memory<'_>, put: Memory<'_>) -> io::Result<StoreArena> {
        StoreArena::map(get, put)
    }

    async fn get(
        &self,
        namespace: Namespace,
        key: &[u8],
        room: Room<StoreArena>,
    ) -> Result<Option<Landed<StoreArena>>, Refused> {
        self.read(namespace, key, &room).await
    }

    async fn open(&self, namespace: Namespace, key: &[u8]) -> Result<Option<OpenedBlock>, Refused> {
        self.open_block(namespace, key).await
    }

    async fn put(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: PutBytes<StoreArena>,
        options: PutOptions,
    ) -> Result<Put, Refused> {
        let value = Bytes::Pod(Arc::new(value));
        self.write(namespace, key, value, options).await
    }

    async fn put_gathered(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: Vec<Span>,
        options: PutOptions,
    ) -> Result<Put, Refused> {
        self.write(namespace, key, Bytes::Own(value), options).await
    }

    async fn exists(&self, namespace: Namespace, keys: &[Vec<u8>]) -> Result<Vec<bool>, Refused> {
        Ok(self.presence(namespace, keys).await)
    }

    async fn leading_run(&self, namespace: Namespace, keys: &[Vec<u8>]) -> Result<usize, Refused> {
        Ok(self.run(namespace, keys).await)
    }

    async fn describe(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Described>, Refused> {
        self.known(namespace, key).await
    }

    async fn expire(
        &self,
        namespace: Namespace,
        key: &[u8],
        left: Option<Duration>,
    ) -> Result<bool, Refused> {
        self.set_life(namespace, key, left).await
    }

    async fn delete(&self, namespace: Namespace, key: &[u8]) -> Result<bool, Refused> {
        self.erase(namespace, key).await
    }

    async fn flush(&self, namespace: Namespace) -> Result<(), Refused> {
        self.clear_all(namespace).await
    }

    async fn scan(&self, namespace: Namespace, cursor: u64, limit: usize) -> Result<Page, Refused> {
        self.some_keys(namespace, cursor, limit).await
    }

    async fn totals(&self, namespace: Namespace) -> Result<Totals, Refused> {
        Ok(self.sum(namespace).await)
    }
}
