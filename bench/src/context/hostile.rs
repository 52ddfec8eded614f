//! `strand-bench hostile`: a pod that asks for all it can get. `run MILLISECONDS` is answered when it has begun, and again
//! when it has ended.

use anyhow::Context;
use futures::future::try_join_all;
use std::{
    io::BufRead,
    path::Path,
    time::{Duration, Instant},
};
use strand_kv_client::Client;

use super::{
    load::{Blocks, mixed, put, put_one},
    serving::connect,
};

const GETS: u64 = 48;
const PUTS: u64 = 16;
const BLOCKS: Blocks = Blocks {
    count: 128,
    len: 1 << 20,
};

/// Serves until the input ends.
pub async fn run(socket: &Path) -> anyhow::Result<()> {
    let client = connect(socket, 0.6, Duration::ZERO).await?;
    put(&client, BLOCKS, 0..BLOCKS.count, 8).await?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let millis = line.strip_prefix("run ").context("the command is run")?;
        let until = Instant::now() + Duration::from_millis(millis.parse()?);
        println!("begun");
        let gets = (0..GETS).map(|seed| tokio::spawn(gets(client.clone(), until, seed)));
        let puts = (0..PUTS).map(|seed| tokio::spawn(puts(client.clone(), until, seed)));
        for ended in try_join_all(gets.chain(puts)).await? {
            ended?;
        }
        println!("ended");
    }
    Ok(())
}

async fn gets(client: Client, until: Instant, seed: u64) -> anyhow::Result<()> {
    let mut random = seed;
    while Instant::now() < until {
        random = mixed(random);
        if client
            .get(&BLOCKS.key(random % BLOCKS.count))
            .await?
            .is_none()
        {
            put_one(&client, BLOCKS, random % BLOCKS.count).await?;
        }
    }
    Ok(())
}

async fn puts(client: Client, until: Instant, seed: u64) -> anyhow::Result<()> {
    let mut number = mixed(seed);
    while Instant::now() < until {
        number += 1;
        put_one(&client, BLOCKS, number).await?;
    }
    Ok(())
}
