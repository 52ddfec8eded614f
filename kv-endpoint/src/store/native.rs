//! Context memory through the agent's native door.

use std::time::Duration;

use strand_kv_client::{Block, Client};

use super::{
    Connection, Error, Lost, NamespaceStats, Next, Page, Put, PutOptions, Store, Ttl, Upload, Value,
};

impl Store for Client {
    type Value = strand_kv_client::Value;
    type Upload = strand_kv_client::Upload;

    fn connection(&self) -> Connection {
        Client::connection(self)
    }

    async fn fetch(&self, key: &[u8]) -> Result<Option<Self::Value>, Error> {
        Client::fetch(self, key).await
    }

    async fn upload(&self, key: &[u8], length: usize) -> Result<Option<Self::Upload>, Error> {
        Client::upload(self, key, length as u64).await
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

    async fn delete(&self, keys: &[Vec<u8>]) -> Result<u64, Error> {
        self.delete_many(keys).await
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

impl Value for strand_kv_client::Value {
    type Bytes = Block;

    fn length(&self) -> u64 {
        strand_kv_client::Value::length(self)
    }

    async fn next(&mut self) -> Result<Option<Block>, Lost> {
        strand_kv_client::Value::next(self).await
    }
}

impl Upload for strand_kv_client::Upload {
    async fn next(&mut self) -> Next<'_> {
        strand_kv_client::Upload::next(self).await
    }

    async fn commit(self, key: &[u8], options: PutOptions) -> Result<Put, Error> {
        strand_kv_client::Upload::commit(self, key, options).await
    }
}
