//! Who may write a leg: the host of the newest attachment, and nobody else.

use strand_rack_bed::{DrivePlan, Guest, Rack};

use super::legs::{
    SOON, connect, connections, device, disconnect, export, exports, leg, prepare, secret,
};

/// Where the number lies that the writer counts up, in units of its 8 digits.
const AT: u32 = 524_288;

async fn number(guest: &Guest, device: &str) -> u64 {
    let script = format!(
        "echo 3 >/proc/sys/vm/drop_caches; dd if={device} bs=8 skip={AT} count=1 2>/dev/null"
    );
    guest.sh(&script).await.unwrap().trim().parse().unwrap()
}

/// A writer that was cut off from the target is fenced there and the leg is given to another machine. Everything that the first was
/// told is written is there; once it is reachable again, what it still had to write never arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_writer_that_was_cut_off_cannot_write_once_the_leg_is_another_ones() {
    let plans = [
        vec![],
        vec![],
        vec![DrivePlan {
            bytes: 256 << 20,
            ..DrivePlan::new("LEG")
        }],
    ];
    let rack = Rack::boot("fencing", &plans).await.unwrap();
    let (old, new, target) = (rack.guest(0), rack.guest(1), rack.guest(2));
    for guest in [old, new, target] {
        prepare(guest).await;
    }
    let first = leg(target, 1, &secret(target).await);
    export(target, std::slice::from_ref(&first)).await;

    let guess = leg(target, 1, &secret(new).await);
    let said = connect(new, target, &guess).await;
    assert_ne!(said.status, 0, "a host with another key gets in: {said}");

    let said = connect(old, target, &first).await;
    assert_eq!(said.status, 0, "{said}");
    let there = device(old, first.nqn()).await;
    old.start(&format!(
        "sh -c 'i=0; while i=$((i+1)); printf %08d $i | dd of={there} bs=8 seek={AT} conv=fsync,notrunc 2>/dev/null; do \
         echo $i >/run/told.new && mv /run/told.new /run/told; done'"
    ))
    .await
    .unwrap();
    let told = async || {
        old.sh("cat /run/told")
            .await
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    old.until("it writes", SOON, "[ $(cat /run/told) -gt 3 ]")
        .await
        .unwrap();

    // What an agent does that was killed: it looks, and finds everything done. The writer does not notice.
    let before = old
        .sh("ls /sys/class/nvme; dmesg | grep -c reconnect")
        .await;
    export(target, std::slice::from_ref(&first)).await;
    let so_far = told().await;
    let on = format!("[ $(cat /run/told) -gt {} ]", so_far + 3);
    old.until("it writes on", SOON, &on).await.unwrap();
    let after = old
        .sh("ls /sys/class/nvme; dmesg | grep -c reconnect")
        .await;
    assert_eq!(before.is_ok(), after.is_ok());
    assert_eq!(before.ok(), after.ok(), "the same controller, never lost");

    rack.network().partition(&[0], &[2]);
    let second = leg(target, 2, &secret(target).await);
    export(target, std::slice::from_ref(&second)).await;
    let seen: Vec<_> = exports(target).await;
    assert!(
        seen.len() == 1 && seen[0].is(&second),
        "only the new attachment's: {seen:?}"
    );
    let told_at_most = told().await;

    let said = connect(new, target, &second).await;
    assert_eq!(said.status, 0, "{said}");
    let there = device(new, second.nqn()).await;
    let found = number(new, &there).await;
    assert!(
        found >= told_at_most,
        "{told_at_most} was told to be written, {found} is there"
    );
    new.sh(&format!(
        "printf 99999999 | dd of={there} bs=8 seek={AT} conv=fsync,notrunc 2>/dev/null"
    ))
    .await
    .unwrap();

    // The old writer comes back, with a write that waits, and asks for a subsystem that is not there any more.
    old.sh("dmesg -c >/dev/null").await.unwrap();
    rack.network().heal();
    old.until(
        "it has tried again",
        SOON,
        "dmesg | grep -qE 'Failed reconnect|Removing ctrl|failed to connect|rejected'",
    )
    .await
    .unwrap();
    assert_eq!(number(new, &there).await, 99_999_999);
    let seen = connections(old).await;
    assert!(
        seen.iter()
            .all(|c| !c.states.iter().any(|state| state == "live")),
        "{seen:?}"
    );

    disconnect(old, first.nqn()).await;
    disconnect(new, second.nqn()).await;
    export(target, &[]).await;
    assert_eq!(number(target, "/dev/nvme0n1").await, 99_999_999);
    for guest in [old, new] {
        assert_eq!(connections(guest).await, []);
    }
    let left = "cd /sys/kernel/config/nvmet && ls subsystems hosts ports | grep -v :$ | grep .";
    let left = target.run(left).await.unwrap();
    assert_ne!(left.status, 0, "left over: {left}");
}
