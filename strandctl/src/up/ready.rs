//! Asks a process whether it is ready, as the kubelet would: `GET /readyz`.

use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nothing, if the process at the address is ready; otherwise what it waits for.
pub async fn waits_for(address: SocketAddr) -> Option<String> {
    let answer = match timeout(PATIENCE, ask(address)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Some(format!("does not answer on {address} ({error})")),
        Err(_) => return Some(format!("does not answer on {address} in time")),
    };
    verdict(&answer)
}

/// HTTP/1.0 (RFC 1945): one request, the answer until the end of the connection.
async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer).await?;
    Ok(answer)
}

fn verdict(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let code = head.split_ascii_whitespace().nth(1).unwrap_or("nothing");
    match (code, body.trim()) {
        ("200", _) => None,
        (code, "") => Some(format!("answers {code}")),
        (_, words) => Some(words.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_the_kubelet_reads_it() {
        assert_eq!(verdict("HTTP/1.0 200 OK\r\nx: y\r\n\r\nok\n"), None);
        assert_eq!(
            verdict("HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: waiting for a scan\n")
                .as_deref(),
            Some("not ready: waiting for a scan")
        );
        assert_eq!(
            verdict("HTTP/1.1 404 Not Found\r\n\r\n").as_deref(),
            Some("answers 404")
        );
        assert_eq!(verdict("").as_deref(), Some("answers nothing"));
    }
}
