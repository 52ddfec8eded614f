//! The hello: nothing of a connection is believed before both sides have proved that they hold the pool's key.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frame::length_of;
use crate::frame::{Hello, MAX_HELLO, Malformed, PREAMBLE, Refusal, VERSION, Welcome};
use crate::inbox::End;
use crate::seal::{Failed, Keys, Opener, PeerKey, Sealer};

/// Why two agents do not talk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Estranged {
    #[error("{0}; look at the network between the nodes and at the other agent")]
    Io(#[from] io::Error),
    #[error("the answer is no agent's: {0}")]
    Malformed(#[from] Malformed),
    #[error("the other agent refuses: {0}")]
    Refused(String),
    #[error("the other side does not hold the key of this pool; give all its agents the same")]
    Key,
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error("{0}; look at the other agent")]
    End(#[from] End),
}

/// Says hello over a new connection.
pub(crate) async fn call(
    socket: &mut TcpStream,
    key: &PeerKey,
    hello: &Hello,
) -> Result<(Sealer, Opener), Estranged> {
    let said = hello.encode();
    socket.write_all(&said).await?;
    let welcome = match Welcome::decode(&receive(socket).await?.1)? {
        Ok(welcome) => welcome,
        Err(Refusal { words }) => return Err(Estranged::Refused(words)),
    };
    if welcome.version != VERSION {
        return Err(Malformed::new("a version that was not offered").into());
    }
    let keys = Keys::new(key, &said, welcome.version, &welcome.nonce)?;
    if !keys.server_proved(&welcome.mac) {
        return Err(Estranged::Key);
    }
    socket.write_all(&keys.prove_client()).await?;
    Ok(keys.client_ends()?)
}

/// Hears the hello of whoever has connected.
pub(crate) async fn hear(socket: &mut TcpStream) -> Result<(Vec<u8>, Hello), Estranged> {
    let (said, body) = receive(socket).await?;
    let hello = Hello::decode(&body)?;
    Ok((said, hello))
}

/// Answers a hello, and waits for the proof.
pub(crate) async fn answer(
    socket: &mut TcpStream,
    key: &PeerKey,
    said: &[u8],
    version: u16,
) -> Result<(Sealer, Opener), Estranged> {
    let nonce = crate::seal::random()?;
    let keys = Keys::new(key, said, version, &nonce)?;
    let welcome = Welcome {
        version,
        nonce,
        mac: keys.prove_server(),
    };
    socket.write_all(&welcome.encode()).await?;
    let mut proof = [0; 32];
    match socket.read_exact(&mut proof).await {
        // Who has another key sees that in the welcome, and leaves.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Estranged::Key),
        other => other?,
    };
    if !keys.client_proved(&proof) {
        return Err(Estranged::Key);
    }
    Ok(keys.server_ends()?)
}

/// Says why there will be no session.
pub(crate) async fn refuse(socket: &mut TcpStream, words: String) {
    // Who does not listen is not waited for: the message fits any socket's buffer.
    let _ = socket.write_all(&Refusal { words }.encode()).await;
}

/// A message, with and without its preamble.
async fn receive(socket: &mut TcpStream) -> Result<(Vec<u8>, Vec<u8>), Estranged> {
    let mut preamble = [0; PREAMBLE];
    socket.read_exact(&mut preamble).await?;
    let length = length_of(&preamble)?;
    debug_assert!(length <= MAX_HELLO);
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    Ok(([&preamble[..], &body].concat(), body))
}
