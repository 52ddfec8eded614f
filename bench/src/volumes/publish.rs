//! From CreateVolume to NodePublishVolume, one volume at a time.

use super::{
    KINDS, Plan, Times, VOLUME,
    bed::{Bed, Drive},
    csi::Access,
    steps,
};
use crate::report::Row;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in KINDS {
        let bed = Bed::start(Drive {
            kind,
            bytes: 4 * VOLUME,
            allocated: false,
        })
        .await?;
        let (mut ways, mut ends) = (Vec::new(), Vec::new());
        for number in 0..plan.published {
            let name = format!("one-{number}");
            let published = bed.driver.publish(&name, VOLUME, Access::Files).await?;
            ends.push(bed.driver.end(&published).await?);
            bed.until_gone(&published.id).await?;
            ways.push(published.way);
        }
        bed.stop().await?;
        let whole = Times::of(
            ways.iter()
                .map(|way| way.iter().map(|step| step.time).sum()),
        );
        let what = format!("create to published, {}, 10 GiB, XFS", kind.words());
        rows.push(whole.goal(&what, 0.50, 250.0));
        rows.push(whole.goal(&what, 0.99, 1000.0));
        rows.extend(steps(&ways));
        rows.extend(steps(&ends));
    }
    Ok(rows)
}
