//! Serves a directory: `cargo run -p strand-embedded-api --example serve -- DIR [ADDRESS:PORT]`, then
//! `kubectl --kubeconfig DIR/kubeconfig get nodes`. Ends with Ctrl-C.

use strand_embedded_api::{Config, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: serve DIR [ADDRESS:PORT]")?;
    let mut config = Config::new(&dir);
    if let Some(listen) = arguments.next() {
        config.listen = listen.parse()?;
    }
    let server = Server::start(config).await?;
    let kubeconfig = std::path::Path::new(&dir).join("kubeconfig");
    server.write_kubeconfig(&kubeconfig)?;
    println!("serving {} with {}", server.url(), kubeconfig.display());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
