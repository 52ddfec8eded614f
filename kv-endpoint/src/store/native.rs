//! Context memory through the agent's native door.

use std::time::Duration;

use strand_kv_client::{Block, Client, Reservation};

use super::{Connection, Error, NamespaceStats, Page, Put, PutOptions, Store, Ttl};

impl Store for Client {
    type Value = Block;
    type Room = Reservation;

    fn connection(&self) -> Connection {
        Client::connection(self)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Block>, Error> {
        Client::get(self, key).await
    }

    async fn reserve(&self, length: usize) -> Result<Option<Reservation>, Error> {
        Client::reserve(self, length as u64).await
    }

    async fn commit(
        &self,
        room: Reservation,
        key: &[u8],
        options: PutOptions,
    ) -> Result<Put, Error> {
        room.commit(key, options).await
    }

    async fn exists(&self, keys: &[Vec<u8>]) -> Result<Vec<bool>, Error> {
        match keys {
            [key] => Ok(vec![Client::exists(self, key).await?]),
            keys => self.exists_many(keys).await,
        }
    }

    async fn length(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        Client::length(self, key).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Ttl, Error> {
        Client::ttl(self, key).await
    }

    async fn expire(&self, key: &[u8], ttl: Option<Duration>) -> Result<bool, Error> {
        Client::expire(self, key, ttl).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        Client::delete(self, key).await
    }

    async fn flush(&self) -> Result<(), Error> {
        Client::flush(self).await
    }

    async fn scan(&self, cursor: u64, limit: u32) -> Result<Page, Error> {
        Client::scan(self, cursor, limit).await
    }

    async fn stats(&self) -> Result<NamespaceStats, Error> {
        Client::stats(self).await
    }
}
