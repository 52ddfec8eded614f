//! Legs that scenarios export and connect to: `rack-fabric` in the guests does what the agent will.

use std::time::Duration;

use strand_fabric::{Connection, Export, Exported, Listen, Nqn, Remote, Secret, Transport};
use strand_rack_bed::{Guest, Said, wait};
use uuid::Uuid;

pub const SOON: Duration = Duration::from_secs(60);
const PORT: u16 = 4420;

/// What a node has to have before its agent can export or connect.
pub async fn prepare(guest: &Guest) {
    guest
        .sh("modprobe nvmet-tcp && modprobe nvme-tcp
             mount -t configfs configfs /sys/kernel/config 2>/dev/null
             mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
             [ -d /sys/kernel/config/nvmet/subsystems ]")
        .await
        .unwrap();
}

fn listen(guest: &Guest, transport: Transport) -> String {
    let listen = Listen {
        transport,
        address: guest.address().parse().unwrap(),
        port: PORT,
    };
    serde_json::to_string(&listen).unwrap()
}

pub async fn secret(guest: &Guest) -> Secret {
    let said = guest.sh("/strand/rack-fabric secret").await.unwrap();
    serde_json::from_str(&said).unwrap()
}

/// The leg that a machine holds: its drive.
pub fn leg(guest: &Guest, generation: u64, secret: &Secret) -> Export {
    let number = guest.address().rsplit('.').next().unwrap().parse().unwrap();
    Export {
        leg: Uuid::from_u128(number),
        generation,
        device: "/dev/nvme0n1".into(),
        secret: Some(secret.clone()),
    }
}

/// Makes a machine export these legs and no others.
pub async fn export(guest: &Guest, exports: &[Export]) {
    export_over(guest, Transport::Tcp, exports).await;
}

/// The same, over this transport.
pub async fn export_over(guest: &Guest, transport: Transport, exports: &[Export]) {
    let script = format!("/strand/rack-fabric export '{}'", listen(guest, transport));
    let input = serde_json::to_vec(exports).unwrap();
    let said = guest.feed(&script, &input).await.unwrap();
    assert_eq!(said.status, 0, "{said}");
}

pub async fn exports(guest: &Guest) -> Vec<Exported> {
    let script = format!(
        "/strand/rack-fabric exports '{}'",
        listen(guest, Transport::Tcp)
    );
    serde_json::from_str(&guest.sh(&script).await.unwrap()).unwrap()
}

/// Connects to a leg of another machine with what `export` says of it.
pub async fn connect(consumer: &Guest, target: &Guest, export: &Export) -> Said {
    connect_over(consumer, Transport::Tcp, target, export).await
}

/// The same, over this transport.
pub async fn connect_over(
    consumer: &Guest,
    transport: Transport,
    target: &Guest,
    export: &Export,
) -> Said {
    let remote = Remote {
        nqn: export.nqn(),
        transport,
        address: target.address().parse().unwrap(),
        port: PORT,
        secret: export.secret.clone(),
        patience: Some(Duration::from_secs(600)),
    };
    let input = serde_json::to_vec(&remote).unwrap();
    consumer
        .feed("/strand/rack-fabric connect", &input)
        .await
        .unwrap()
}

pub async fn connections(consumer: &Guest) -> Vec<Connection> {
    let said = consumer
        .sh("/strand/rack-fabric connections")
        .await
        .unwrap();
    serde_json::from_str(&said).unwrap()
}

/// Waits until a connection is live and has its device; device names move.
pub async fn device(consumer: &Guest, nqn: Nqn) -> String {
    wait::until(&format!("{nqn} is live"), SOON, || async {
        let all = connections(consumer).await;
        let live = |connection: &&Connection| {
            connection.nqn == nqn && connection.states == ["live"] && connection.device.is_some()
        };
        let device = all.iter().find(live).and_then(|c| c.device.as_ref());
        device
            .map(|device| device.display().to_string())
            .ok_or_else(|| format!("{all:?}"))
    })
    .await
    .unwrap()
}

/// Makes a leg on a target, exports it, and connects its consumer; the leg and its device there.
pub async fn connected(consumer: &Guest, target: &Guest) -> (Export, String) {
    let leg = leg(target, 1, &secret(target).await);
    export(target, std::slice::from_ref(&leg)).await;
    let said = connect(consumer, target, &leg).await;
    assert_eq!(said.status, 0, "{said}");
    let device = device(consumer, leg.nqn()).await;
    (leg, device)
}

/// Waits until a consumer notices that it does not reach a leg any more.
pub async fn lost(consumer: &Guest, nqn: Nqn) {
    wait::until(&format!("{nqn} is not reached"), SOON, || async {
        let all = connections(consumer).await;
        let connection = all.iter().find(|c| c.nqn == nqn).unwrap();
        match connection.states != ["live"] {
            true => Ok(()),
            false => Err(format!("{all:?}")),
        }
    })
    .await
    .unwrap();
}

pub async fn disconnect(consumer: &Guest, nqn: Nqn) {
    let script = format!("/strand/rack-fabric disconnect {nqn}");
    consumer.sh(&script).await.unwrap();
}
